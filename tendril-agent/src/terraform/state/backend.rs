//! Where Terraform's state is stored: which backend, and which place in it each state key has.
//!
//! The agent generates the backend block of every run, so that no template and no deployment decides where state goes. The
//! block never holds a credential: Terraform would copy it into its data directory and into every saved plan. Credentials
//! reach the backend through Terraform's environment.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    os::{
        files::{private_dir, private_file},
        ownership::{close_dir, give_file, share_dir},
    },
    template::{BACKEND_FILE, Workspace},
};

/// What Terraform writes into the folder of a local state.
const STATE_FILES: [&str; 3] =
    ["terraform.tfstate", "terraform.tfstate.backup", ".terraform.tfstate.lock.info"];

/// What is put in the place of the state key in `address` and its kin.
const KEY: &str = "{key}";

/// The schema of a trial: names that begin so are PostgreSQL's own, and it creates none.
pub(crate) const TRIAL_SCHEMA: &str = "pg_tendril_trial";

/// The backends that the agent can generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file below the state directory.
    Local,
    /// An S3 bucket, locked by a file beside the state.
    S3,
    /// An HTTP server.
    Http,
    /// A PostgreSQL database, a schema for each state.
    Pg,
    /// A Secret of a Kubernetes cluster for each state.
    Kubernetes,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Local, Self::S3, Self::Http, Self::Pg, Self::Kubernetes];

    /// As Terraform calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
            Self::Http => "http",
            Self::Pg => "pg",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Settings that the agent makes from the state key.
    const fn own(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["path", "workspace_dir"],
            Self::S3 => &["key", "workspace_key_prefix"],
            Self::Http => &[],
            Self::Pg => &["schema_name"],
            Self::Kubernetes => &["secret_suffix"],
        }
    }

    /// Settings that hold a credential, and the variable to use instead.
    const fn credentials(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Local => &[],
            Self::S3 => &[
                ("access_key", "AWS_ACCESS_KEY_ID"),
                ("secret_key", "AWS_SECRET_ACCESS_KEY"),
                ("token", "AWS_SESSION_TOKEN"),
                ("sse_customer_key", "AWS_SSE_CUSTOMER_KEY"),
            ],
            Self::Http => &[
                ("username", "TF_HTTP_USERNAME"),
                ("password", "TF_HTTP_PASSWORD"),
                ("client_private_key_pem", "TF_HTTP_CLIENT_PRIVATE_KEY_PEM"),
            ],
            Self::Pg => &[("conn_str", "PG_CONN_STR")],
            Self::Kubernetes => &[
                ("token", "KUBE_TOKEN"),
                ("password", "KUBE_PASSWORD"),
                ("client_key", "KUBE_CLIENT_KEY_DATA"),
            ],
        }
    }

    /// Settings without which the backend cannot work.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["bucket"],
            Self::Http => &["address"],
            Self::Local | Self::Pg | Self::Kubernetes => &[],
        }
    }

    /// Variables that Terraform must see for it, beside those that it may always see.
    pub(crate) const fn environment(self) -> &'static [&'static str] {
        match self {
            Self::Local | Self::S3 | Self::Kubernetes => &[],
            Self::Http => &["TF_HTTP_*"],
            Self::Pg => &["PG*"],
        }
    }

    /// Whether a lock ends with the process that holds it.
    pub(crate) const fn lock_ends_with_its_process(self) -> bool {
        matches!(self, Self::Local | Self::Pg)
    }
}

/// Where all states of this agent are stored.
#[derive(Clone)]
pub struct StateBackend {
    kind: Kind,
    /// What all states share.
    settings: Map<String, Value>,
    /// What the names of all states begin with.
    prefix: String,
}

impl StateBackend {
    /// Files below the state directory.
    #[cfg(test)]
    pub(crate) fn local() -> Self {
        Self { kind: Kind::Local, settings: Map::new(), prefix: String::new() }
    }

    /// Reads `TENDRIL_STATE_BACKEND`, and `TENDRIL_STATE_CONFIG`: a JSON object of the backend's settings, or the path of a
    /// file that holds one.
    pub(crate) fn read(kind: Option<&str>, config: Option<&str>) -> Result<Self, String> {
        let wanted = kind.unwrap_or("local");
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::name).join(", ");
            format!("--state-backend / TENDRIL_STATE_BACKEND is \"{wanted}\": it must be one of {known}")
        })?;
        let mut settings = config.map(read_settings).transpose()?.unwrap_or_default();
        let prefix = match settings.remove("prefix") {
            None => "tendril".to_owned(),
            Some(Value::String(prefix)) if is_prefix(&prefix) => prefix,
            Some(_) => {
                return Err("TENDRIL_STATE_CONFIG: \"prefix\" must be up to 40 letters, digits, -, _ and /"
                    .to_owned());
            }
        };
        let backend = Self { kind, settings, prefix };
        backend
            .check()
            .map_err(|why| format!("TENDRIL_STATE_CONFIG (--state-config) for {wanted}: {why}"))?;
        Ok(backend)
    }

    fn check(&self) -> Result<(), String> {
        for (name, value) in &self.settings {
            if let Some((_, variable)) = self.kind.credentials().iter().find(|(secret, _)| secret == name) {
                return Err(format!(
                    "\"{name}\" is a credential and would end up in saved plans: take it out, and set {variable} in the agent's environment"
                ));
            }
            if self.kind.own().contains(&name.as_str()) {
                return Err(format!("\"{name}\" is made by the agent for each state: take it out"));
            }
            let text = value.as_str().unwrap_or_default();
            if url::Url::parse(text).is_ok_and(|url| url.password().is_some()) {
                return Err(format!("\"{name}\" holds a password: take it out of the address"));
            }
        }
        match self.kind.required().iter().find(|name| !self.settings.contains_key(**name)) {
            Some(missing) => Err(format!("\"{missing}\" is missing")),
            None => Ok(()),
        }
    }

    /// What all states share, and what their names begin with.
    pub(crate) fn shared_settings(&self) -> Value {
        json!({"settings": self.settings, "prefix": self.prefix})
    }

    /// Which one it is.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The state of one key.
    pub(crate) fn of(&self, state_dir: &Path, key: &str) -> State {
        let dir = state_dir.join(key);
        let mut settings = self.settings.clone();
        let mut set = |name: &str, value: Value| drop(settings.insert(name.to_owned(), value));
        match self.kind {
            Kind::Local => set("path", json!(dir.join("terraform.tfstate"))),
            Kind::S3 => {
                set("key", json!(format!("{}/{key}.tfstate", self.prefix)));
                if !self.settings.contains_key("use_lockfile") {
                    set("use_lockfile", json!(true));
                }
            }
            Kind::Http => self.addresses(key, &mut settings),
            Kind::Pg => set("schema_name", json!(slug(&self.prefix, key, '_', 63))),
            Kind::Kubernetes => {
                set("secret_suffix", json!(slug(&self.prefix, key, '-', 40)));
                let how = ["in_cluster_config", "config_path", "config_paths", "host"];
                if !how.iter().any(|name| self.settings.contains_key(*name)) {
                    set("in_cluster_config", json!(true));
                }
            }
        }
        State { kind: self.kind, key: key.to_owned(), dir, settings }
    }

    /// `{key}` is replaced; an address without it gets the key as its last part. State without a lock is not offered.
    fn addresses(&self, key: &str, settings: &mut Map<String, Value>) {
        let address = self.settings.get("address").and_then(Value::as_str).unwrap_or_default();
        let whole = |text: &str| {
            let name = format!("{}-{key}", self.prefix);
            if text.contains(KEY) {
                text.replace(KEY, &name)
            } else {
                format!("{}/{name}", text.trim_end_matches('/'))
            }
        };
        for name in ["address", "lock_address", "unlock_address"] {
            let text = self.settings.get(name).and_then(Value::as_str).unwrap_or(address);
            settings.insert(name.to_owned(), json!(whole(text)));
        }
    }
}

impl fmt::Debug for StateBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateBackend({})", self.kind.name())
    }
}

/// The state of one key.
#[derive(Clone, Debug)]
pub(crate) struct State {
    kind: Kind,
    key: String,
    /// `<state dir>/<state key>`: the local state, and what concerns a remote one but must outlive the workspace.
    dir: PathBuf,
    settings: Map<String, Value>,
}

impl State {
    /// Which backend stores it.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What concerns this state and must outlive the workspace.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A setting of the backend, as Terraform gets it.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// The same for a trial that must leave nothing.
    pub(crate) fn on_trial(&self) -> Self {
        let mut trial = self.clone();
        if self.kind == Kind::Pg {
            let settings = [
                ("schema_name", json!(TRIAL_SCHEMA)),
                ("skip_table_creation", json!(true)),
                ("skip_index_creation", json!(true)),
            ];
            trial.settings.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        }
        trial
    }

    /// The file of a local state.
    pub(crate) fn local_file(&self) -> Option<PathBuf> {
        self.setting("path").filter(|_| self.kind == Kind::Local).map(PathBuf::from)
    }

    /// Writes the backend block into a module. Errors: the disk.
    pub(crate) fn lay_out(&self, module_dir: &Path) -> io::Result<()> {
        // A remote state has no folder here unless something must be stored beside it.
        if self.kind == Kind::Local {
            private_dir(&self.dir)?;
            // It is in use from now on, also if it was there.
            fs::File::open(&self.dir)?.set_modified(SystemTime::now())?;
        }
        private_file(&module_dir.join(BACKEND_FILE), self.block().to_string().as_bytes())
    }

    /// Lets the user of a run work on a local state: it may add files to the folder, and owns the state's own. What the agent stores
    /// there it can neither read nor remove.
    pub(crate) fn give_to(&self, workspace: &Workspace) -> io::Result<()> {
        let (Kind::Local, Some(user)) = (self.kind, workspace.user()?) else { return Ok(()) };
        private_dir(&self.dir)?;
        share_dir(&self.dir, user.uid)?;
        STATE_FILES.iter().try_for_each(|name| give_file(&self.dir.join(name), user.uid))
    }

    /// The run is over: nobody but the agent reaches a local state.
    pub(crate) fn close(&self) {
        if self.kind == Kind::Local
            && self.dir.exists()
            && let Err(error) = close_dir(&self.dir)
        {
            tracing::error!(dir = %self.dir.display(), %error, "the folder of a state cannot be closed to the user of its last run");
        }
    }

    /// Removes the folder of a state that holds nothing any more.
    pub(crate) fn tidy(&self) {
        // Not empty, or not there.
        let _kept = fs::remove_dir(&self.dir);
    }

    /// How to get at it by hand, for people.
    pub(crate) fn by_hand(&self, command: &str) -> String {
        format!(
            "in an empty folder with the file backend.tf.json\n  {}\nrun\n  terraform init\n  {command}",
            self.block()
        )
    }

    fn block(&self) -> Value {
        json!({"terraform": {"backend": {self.kind.name(): self.settings}}})
    }
}

fn read_settings(config: &str) -> Result<Map<String, Value>, String> {
    let name = "TENDRIL_STATE_CONFIG (--state-config)";
    let text = if config.starts_with('{') {
        config.to_owned()
    } else {
        fs::read_to_string(config).map_err(|error| {
            format!("{name} {config} cannot be read ({error}): give a JSON object, or the path of a file that holds one")
        })?
    };
    // The text itself is not repeated: it can hold what should not be in it.
    serde_json::from_str(&text).map_err(|error| {
        format!("{name} is not a JSON object (line {}, column {})", error.line(), error.column())
    })
}

fn is_prefix(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/');
    (1..=40).contains(&text.len()) && text.bytes().all(is_part)
}

/// A readable name that no other key has, of letters, digits and one kind of dash, no longer than `longest`.
fn slug(prefix: &str, key: &str, dash: char, longest: usize) -> String {
    let mut name: String = format!("{prefix}{dash}{key}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { dash })
        .collect();
    let hash = format!("{:.12}", format!("{:x}", Sha256::digest(format!("{prefix}/{key}"))));
    name.truncate(longest - hash.len() - 1);
    format!("{name}{dash}{hash}")
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
