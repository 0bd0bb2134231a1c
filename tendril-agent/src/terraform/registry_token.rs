//! Tokens of private registries. Terraform finds the token of a host in the variable `TF_TOKEN_<host>`.
//!
//! Modules and providers are fetched by `terraform init` alone, and nothing of a template runs meanwhile: no other command gets
//! the tokens, so that no provisioner and no provider can read them in its environment.

use std::{
    ffi::OsString,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

/// Largest file of a token.
const LARGEST: u64 = 16 * 1024;
const SETTING: &str = "--terraform-token-file / TENDRIL_TERRAFORM_TOKEN_FILE";

/// Which hosts have a token, and where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryTokens(Vec<TokenFile>);

/// The token of one host; the file is read for every run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TokenFile {
    host: String,
    /// The variable in which Terraform looks for it.
    variable: String,
    file: PathBuf,
}

impl RegistryTokens {
    /// Reads `HOST=FILE,HOST=FILE`. Errors: every problem, and how to fix it.
    pub(crate) fn read(setting: &str) -> Result<Self, Vec<String>> {
        let mut tokens: Vec<TokenFile> = Vec::new();
        let mut problems = Vec::new();
        for entry in setting.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match TokenFile::parse(entry) {
                Err(problem) => problems.push(problem),
                Ok(token) if tokens.iter().any(|other| other.variable == token.variable) => {
                    problems.push(format!("{SETTING} names the host {} twice: keep one of them", token.host));
                }
                Ok(token) => tokens.push(token),
            }
        }
        if problems.is_empty() { Ok(Self(tokens)) } else { Err(problems) }
    }

    /// The variables with the tokens as they are now. Errors: a sentence that names the file.
    pub(crate) fn environment(&self) -> Result<Vec<(OsString, SecretString)>, String> {
        self.0.iter().map(|token| Ok((token.variable.clone().into(), token.value()?))).collect()
    }

    /// What no log may show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let values = self.0.iter().filter_map(|token| token.value().ok());
        values.map(|value| value.expose_secret().to_owned()).collect()
    }

    /// The hosts.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        self.0.iter().map(|token| token.host.as_str()).collect()
    }

    /// Tries the files: what to fix.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.0.iter().filter_map(|token| token.value().err()).collect()
    }
}

impl TokenFile {
    fn parse(entry: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{SETTING} holds \"{entry}\": write HOST=FILE, such as app.terraform.io=/etc/tendril/registry-token, and several with commas between them"
            )
        };
        let (host, file) = entry.split_once('=').ok_or_else(wrong)?;
        let (host, variable) = names_of(host.trim()).ok_or_else(wrong)?;
        let file = std::path::absolute(file.trim()).map_err(|_| wrong())?;
        Ok(Self { host, variable, file })
    }

    fn value(&self) -> Result<SecretString, String> {
        let problem = |why: &dyn fmt::Display| {
            format!(
                "the token for the registry {} cannot be used: {} {why} ({SETTING})",
                self.host,
                self.file.display()
            )
        };
        let text = read_token(&self.file).map_err(|error| problem(&format!("cannot be read: {error}")))?;
        let token = text.trim();
        if token.is_empty() {
            return Err(problem(&"is empty"));
        }
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(problem(&"holds a blank or a character that no token has"));
        }
        Ok(SecretString::from(token))
    }
}

fn read_token(file: &Path) -> std::io::Result<String> {
    // Whoever reads a pipe waits for its other end.
    if !fs::metadata(file)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let read = fs::File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(std::io::Error::other("it is larger than 16 KiB"));
    }
    Ok(text)
}

/// A host as addresses have it, with its port where that is not the usual one, and the variable in which Terraform looks for its
/// token: in punycode, `_` for a dot and `__` for a dash.
fn names_of(written: &str) -> Option<(String, String)> {
    if written.is_empty() || written.contains(|c: char| c.is_whitespace() || "/?#@_\\%".contains(c)) {
        return None;
    }
    let url = Url::parse(&format!("https://{written}/")).ok()?;
    let host = match url.host()? {
        Host::Domain(domain) => domain.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(_) => return None,
    };
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.is_empty() || host.split('.').any(str::is_empty) {
        return None;
    }
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let encoded = host.replace('-', "__").replace('.', "_");
    Some((format!("{host}{port}"), format!("TF_TOKEN_{encoded}{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_becomes_the_variable_in_which_terraform_looks() {
        for (host, variable) in [
            ("app.terraform.io", "TF_TOKEN_app_terraform_io"),
            ("Registry.Acme-Corp.example", "TF_TOKEN_registry_acme__corp_example"),
            ("bücher.example", "TF_TOKEN_xn____bcher__kva_example"),
            ("xn--bcher-kva.example", "TF_TOKEN_xn____bcher__kva_example"),
            ("registry.example:443", "TF_TOKEN_registry_example"),
            ("registry.example:8443", "TF_TOKEN_registry_example:8443"),
            ("localhost", "TF_TOKEN_localhost"),
            ("127.0.0.1", "TF_TOKEN_127_0_0_1"),
        ] {
            assert_eq!(names_of(host).map(|(_, variable)| variable).as_deref(), Some(variable), "{host}");
        }
        for host in
            ["", "a/b", "a b", "https://a", "u@a", "a_b", "[::1]", "a?b", "a#b", "a%2eb", "..", "a:99999"]
        {
            assert_eq!(names_of(host), None, "{host}");
        }
    }

    #[test]
    fn every_wrong_entry_is_named_and_no_token_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let (good, empty, bad) = (write("good", "  s3cret\n"), write("empty", "\n"), write("bad", "s3 cret"));
        let large = write("large", &"x".repeat(20_000));
        let files = format!(
            "a.example={good}, b.example={empty},c.example={bad},d.example=/no/such/file,f.example={large},g.example=/"
        );
        let mut problems = RegistryTokens::read(&files).unwrap().problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
        let written = format!("a.example={good},e.example,a.example={good}");
        problems.extend(RegistryTokens::read(&written).unwrap_err());
        for part in [
            "\"e.example\": write HOST=FILE",
            "names the host a.example twice",
            "registry b.example cannot be used",
            "is empty",
            "holds a blank",
            "/no/such/file cannot be read",
            "larger than 16 KiB",
            "it is no file",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert!(!problems.iter().any(|problem| problem.contains("s3")), "{problems:?}");
    }

    #[test]
    fn a_token_is_read_as_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "one\n").unwrap();
        let tokens = RegistryTokens::read(&format!("a.example={}", file.display())).unwrap();
        assert_eq!(tokens.secrets(), ["one"]);
        fs::write(&file, "two").unwrap();
        let env = tokens.environment().unwrap();
        assert_eq!((env[0].0.to_str(), env[0].1.expose_secret()), (Some("TF_TOKEN_a_example"), "two"));
        fs::remove_file(&file).unwrap();
        assert!(tokens.environment().unwrap_err().contains("a.example"));
    }
}
