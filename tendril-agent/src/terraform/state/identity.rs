//! Whether two agents store their states in the same place: a fingerprint of the backend's settings.
//!
//! The database compares the fingerprints of a cluster's agents: agents with different states would each make their own copy of
//! the infrastructure. No secret can be read from one.

use std::{fs, io, path::Path};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use crate::{
    os::files::private_file,
    terraform::state::backend::{Kind, StateBackend},
};

/// The file that identifies a directory of local states.
const IDENTITY_FILE: &str = ".identity";

impl StateBackend {
    /// The same for all agents whose states are the same. `variable` reads the agent's environment. Errors: the directory of local
    /// states cannot be used.
    pub(crate) fn fingerprint(
        &self,
        state_dir: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> io::Result<String> {
        let place = match self.kind() {
            Kind::Local => json!({"directory": directory_identity(state_dir)?}),
            Kind::Pg => json!({
                "settings": self.shared_settings(),
                "server": variable("PG_CONN_STR").map(|text| without_credentials(&text)),
                "host": variable("PGHOST"),
                "port": variable("PGPORT"),
                "database": variable("PGDATABASE"),
            }),
            Kind::Http => json!({"settings": self.shared_settings(), "address": variable("TF_HTTP_ADDRESS")}),
            Kind::S3 | Kind::Kubernetes => json!({"settings": self.shared_settings()}),
        };
        let digest = format!("{:x}", Sha256::digest(format!("{} {place}", self.kind().name())));
        Ok(digest[..32].to_owned())
    }
}

/// A directory on a volume has the same identity when another pod mounts it; a new directory has a new one.
fn directory_identity(state_dir: &Path) -> io::Result<String> {
    let file = state_dir.join(IDENTITY_FILE);
    match fs::read_to_string(&file) {
        Ok(text) if text.trim().parse::<Uuid>().is_ok() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Two agents that begin with one directory: the file of one of them stays, and both read that.
    let made = state_dir.join(format!("{IDENTITY_FILE}.{}", Uuid::new_v4()));
    private_file(&made, Uuid::new_v4().to_string().as_bytes())?;
    let linked = fs::hard_link(&made, &file);
    fs::remove_file(&made)?;
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(fs::read_to_string(&file)?.trim().to_owned())
}

/// Host, port and database of a connection string.
fn without_credentials(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) => {
            format!("{}:{}{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(5432), url.path())
        }
        // `host=… dbname=… password=…`
        Err(_) => text
            .split_whitespace()
            .filter(|pair| {
                ["host=", "hostaddr=", "port=", "dbname="].iter().any(|name| pair.starts_with(name))
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(kind: &str, settings: Option<&str>, dir: &Path, conn: &str) -> String {
        let backend = StateBackend::read(Some(kind), settings).unwrap();
        backend.fingerprint(dir, |name| (name == "PG_CONN_STR").then(|| conn.to_owned())).unwrap()
    }

    #[test]
    fn local_states_are_those_of_a_directory() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(print("local", None, one.path(), ""), print("local", None, one.path(), ""));
        assert_ne!(print("local", None, one.path(), ""), print("local", None, two.path(), ""));
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_new_password_is_no_new_place_and_another_database_is() {
        let dir = tempfile::tempdir().unwrap();
        let pg = |conn: &str| print("pg", None, dir.path(), conn);
        assert_eq!(pg("postgres://a:old@db/states"), pg("postgres://b:new@db:5432/states"));
        assert_ne!(pg("postgres://a:old@db/states"), pg("postgres://a:old@db/others"));
        assert_eq!(pg("host=db dbname=s password=x"), pg("host=db password=y dbname=s"));
        assert_ne!(pg("host=db dbname=s"), pg("host=db dbname=t"));
    }

    #[test]
    fn other_settings_are_another_place() {
        let dir = tempfile::tempdir().unwrap();
        let s3 = |settings: &str| print("s3", Some(settings), dir.path(), "");
        assert_eq!(s3(r#"{"bucket": "a", "region": "r"}"#), s3(r#"{"region": "r", "bucket": "a"}"#));
        assert_ne!(s3(r#"{"bucket": "a"}"#), s3(r#"{"bucket": "b"}"#));
        assert_ne!(s3(r#"{"bucket": "a"}"#), s3(r#"{"bucket": "a", "prefix": "other"}"#));
    }
}
