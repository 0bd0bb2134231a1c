//! Terraform's environment: an allow-list, then the agent's own settings. The agent's token is never in it.

use std::{collections::BTreeMap, env, ffi::OsString};

/// Variables that every program may inherit. `NAME_*` stands for a prefix.
const MACHINE: &[&str] = &[
    "PATH",
    "LANG",
    "LC_*",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables that Terraform and its providers may inherit beside those.
///
/// The cloud credentials of the pod (IRSA, workload identity, environment keys) are the reason that the agent runs in the
/// customer's cluster at all, so those families are in. Everything else has to be named by `TENDRIL_TERRAFORM_ENV`.
const ALLOWED: &[&str] = &[
    // clouds
    "AWS_*",
    "ARM_*",
    "AZURE_*",
    "GOOGLE_*",
    "CLOUDSDK_*",
    "GCLOUD_PROJECT",
    "OCI_*",
    "ALICLOUD_*",
    "DIGITALOCEAN_*",
    "HCLOUD_TOKEN",
    "CLOUDFLARE_*",
    // in-cluster access
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBE_*",
    "KUBECONFIG",
    "VAULT_*",
];

/// Names that no list can let in: the agent's own credentials, and what would change how Terraform is driven.
const REFUSED: &[&str] = &["TENDRIL_*", "SUPABASE_*", "INFRACOST_*", "TF_*", "HOME", "TMPDIR"];

/// What may be let in by name all the same: values of variables, and tokens of registries.
const NAMEABLE: &[&str] = &["TF_VAR_", "TF_TOKEN_"];

/// What marks a name of the list whose value is no secret.
const SHOWN: &str = ":shown";
/// A name in an address that is at least this long, and has no password, is taken for a token.
const SHORTEST_TOKEN: usize = 16;

/// Which variables Terraform may inherit.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    /// Names and prefixes beside the built-in ones. Their values are secrets.
    extra: Vec<String>,
    /// Those whose values may be shown.
    shown: Vec<String>,
    /// What the state's backend needs; may be what is refused to everybody else.
    for_backend: &'static [&'static str],
}

impl AllowList {
    /// The built-in list and these names, separated by commas. `TF_VAR_…` and `TF_TOKEN_…` may be named, one by one or as
    /// `TF_VAR_*`.
    /// What is in them is hidden, but for `NAME:shown`.
    pub(crate) fn with_extra(names: &str) -> Result<Self, String> {
        let names: Vec<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let (shown, extra): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with(SHOWN));
        let owned = |names: Vec<&str>| -> Vec<String> {
            names.into_iter().map(|name| name.strip_suffix(SHOWN).unwrap_or(name).to_owned()).collect()
        };
        let (extra, shown) = (owned(extra), owned(shown));
        for name in extra.iter().chain(&shown) {
            let stem = name.strip_suffix('*').unwrap_or(name);
            if stem.is_empty() || !stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!(
                    "--terraform-env / TENDRIL_TERRAFORM_ENV holds \"{name}\": write names such as GITHUB_TOKEN or GITHUB_*, or GITHUB_REPOSITORY:shown where the value is no secret"
                ));
            }
            // A prefix is refused too where it would cover a refused name, such as `T*`.
            let covers = name.ends_with('*')
                && REFUSED.iter().any(|refused| refused.trim_end_matches('*').starts_with(stem));
            if covers || is_refused(stem) {
                return Err(format!(
                    "--terraform-env / TENDRIL_TERRAFORM_ENV holds \"{name}\": the agent's own variables, INFRACOST_* and TF_* (but for TF_VAR_… and TF_TOKEN_…) are never given to Terraform; take it out"
                ));
            }
        }
        Ok(Self { extra, shown, for_backend: &[] })
    }

    /// The same list, and what the state's backend needs.
    pub(crate) fn for_backend(self, names: &'static [&'static str]) -> Self {
        Self { for_backend: names, ..self }
    }

    fn allows(&self, name: &str) -> bool {
        let mut listed = MACHINE.iter().chain(ALLOWED).copied().chain(self.named());
        let is_listed = !is_refused(name) && listed.any(|pattern| fits(pattern, name));
        is_listed || self.for_backend.iter().any(|pattern| fits(pattern, name))
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.extra.iter().chain(&self.shown).map(String::as_str)
    }

    /// What is inherited from this process.
    pub(crate) fn inherited(&self) -> BTreeMap<OsString, OsString> {
        self.select(env::vars_os())
    }

    fn select(&self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
        vars.into_iter().filter(|(name, _)| name.to_str().is_some_and(|name| self.allows(name))).collect()
    }
}

/// What a program of another kind inherits from this process: what every program may, and these names.
pub(crate) fn inherited(names: &[&str]) -> BTreeMap<OsString, OsString> {
    let allows = |name: &str| MACHINE.iter().chain(names).any(|pattern| fits(pattern, name));
    env::vars_os().filter(|(name, _)| name.to_str().is_some_and(allows)).collect()
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn is_refused(name: &str) -> bool {
    !NAMEABLE.iter().any(|prefix| name.starts_with(prefix))
        && REFUSED.iter().any(|pattern| fits(pattern, name))
}

impl AllowList {
    /// Values of an environment that must not appear in a log: what was let in by name, what is named like a secret, and the
    /// passwords in addresses, wherever they are.
    pub(crate) fn secrets_in<'a>(
        &self,
        environment: impl IntoIterator<Item = (&'a OsString, &'a OsString)>,
    ) -> Vec<String> {
        let mut secrets = Vec::new();
        for (name, value) in environment {
            let value = value.to_string_lossy();
            secrets.extend(passwords(&value));
            if self.is_secret(&name.to_string_lossy(), &value) {
                secrets.push(value.into_owned());
            }
        }
        secrets
    }

    fn is_secret(&self, name: &str, value: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|pattern| fits(pattern, name));
        if listed(&self.shown) {
            return false;
        }
        let upper = name.to_ascii_uppercase();
        if listed(&self.extra) {
            // The path of a secret is no secret.
            return !(about_a_file(&upper) && value.starts_with('/'));
        }
        let words =
            ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE", "_KEY", "CONN_STR", "TF_VAR_"];
        !about_a_file(&upper) && words.iter().any(|word| upper.contains(word))
    }
}

fn about_a_file(name: &str) -> bool {
    ["_FILE", "_PATH", "_URI"].iter().any(|end| name.ends_with(end))
}

/// The passwords of all addresses in a value, as they are written and as they are meant. A long name without a password is
/// one too: tokens are written so. An address may lack its scheme, as proxies do.
fn passwords(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = value.split("://");
    let first = rest.next().unwrap_or_default();
    let authorities: Vec<&str> = if first.len() == value.len() { vec![first] } else { rest.collect() };
    for authority in authorities {
        let end = authority.find(|c: char| c.is_whitespace() || "/?#".contains(c)).unwrap_or(authority.len());
        let Some((login, _host)) = authority[..end].rsplit_once('@') else { continue };
        let secret = match login.split_once(':') {
            Some((_name, password)) => password,
            None if login.len() >= SHORTEST_TOKEN && value.len() > first.len() => login,
            None => continue,
        };
        found.push(percent_encoding::percent_decode_str(secret).decode_utf8_lossy().into_owned());
        found.push(secret.to_owned());
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (OsString, OsString) {
        (name.into(), value.into())
    }

    #[test]
    fn only_listed_variables_are_inherited() {
        let list = AllowList::with_extra("GITHUB_TOKEN, CORP_*").unwrap();
        let names = [
            "PATH",
            "AWS_ROLE_ARN",
            "LC_ALL",
            "GITHUB_TOKEN",
            "CORP_REGION",
            "KUBERNETES_SERVICE_HOST",
            "TENDRIL_AGENT_TOKEN",
            "SUPABASE_URL",
            "TF_LOG",
            "TF_CLI_ARGS",
            "HOME",
            "LD_PRELOAD",
            "GITHUB_ACTOR",
        ];
        let selected = list.select(names.map(|name| pair(name, "v")));
        let selected: Vec<_> = selected.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(
            selected,
            ["AWS_ROLE_ARN", "CORP_REGION", "GITHUB_TOKEN", "KUBERNETES_SERVICE_HOST", "LC_ALL", "PATH"]
        );
    }

    #[test]
    fn the_agents_own_variables_cannot_be_let_in() {
        for names in [
            "TENDRIL_AGENT_TOKEN",
            "TENDRIL_*",
            "SUPABASE_ANON_KEY",
            "INFRACOST_API_KEY",
            "I*",
            "TF_CLI_ARGS",
            "T*",
            "*",
            "SUPA*",
            "a b",
        ] {
            assert!(AllowList::with_extra(names).is_err(), "{names}");
        }
        for names in ["TF_VAR_region", "TF_VAR_*", "TF_TOKEN_app_terraform_io", "TF_TOKEN_*"] {
            AllowList::with_extra(names).unwrap();
        }
        for names in ["TF_T*", "TF_TOKEN*", "TF_VA*", "TF_TOKENS"] {
            assert!(AllowList::with_extra(names).is_err(), "{names}");
        }
    }

    #[test]
    fn the_backends_variables_are_let_in_where_it_is_used_and_only_there() {
        let vars = || ["TF_HTTP_PASSWORD", "TF_LOG", "PG_CONN_STR"].map(|name| pair(name, "v"));
        let list = AllowList::with_extra("").unwrap();
        assert!(list.select(vars()).is_empty());
        let selected = list.for_backend(&["TF_HTTP_*"]).select(vars());
        assert_eq!(selected.keys().collect::<Vec<_>>(), ["TF_HTTP_PASSWORD"]);
    }

    fn secrets(list: &str, vars: &[(&str, &str)]) -> Vec<String> {
        let vars: Vec<_> = vars.iter().map(|(name, value)| pair(name, value)).collect();
        AllowList::with_extra(list).unwrap().secrets_in(vars.iter().map(|(name, value)| (name, value)))
    }

    #[test]
    fn the_password_of_an_address_is_a_secret_whatever_its_variable_is_called() {
        for (value, expected) in [
            ("postgres://u:s3cret@h/d", &["s3cret"] as &[&str]),
            ("http://user:p%40ss:w@proxy:3128", &["p@ss:w", "p%40ss:w"]),
            ("user:passw0rd@proxy:3128", &["passw0rd"]),
            ("http://a:one1@h:1,http://b:two2@h:2", &["one1", "two2"]),
            ("https://ghp_0123456789abcdef@github.com/a", &["ghp_0123456789abcdef"]),
            ("https://git@github.com/a", &[]),
            ("http://proxy:3128/path@x:y", &[]),
            ("somebody@example.com", &[]),
        ] {
            assert_eq!(secrets("", &[("HTTPS_PROXY", value)]), expected, "{value}");
        }
        assert_eq!(secrets("", &[("PG_CONN_STR", "pg://u:s3cret@h/d")]), ["s3cret", "pg://u:s3cret@h/d"]);
    }

    #[test]
    fn what_is_let_in_by_name_is_a_secret_but_for_what_may_be_shown_and_the_names_of_files() {
        let vars = [
            ("CORP_AUTH", "s1-s1"),
            ("CORP_REGION", "eu"),
            ("CORP_CA_FILE", "/a/path"),
            ("CORP_KEY_FILE", "inline"),
        ];
        assert_eq!(secrets("CORP_*, CORP_REGION:shown", &vars), ["s1-s1", "inline"]);
        assert!(AllowList::with_extra("TF_LOG:shown").is_err());
        assert!(AllowList::with_extra("CORP_REGION:show").is_err());
    }

    #[test]
    fn tokens_of_registries_are_let_in_by_name_alone_and_are_secrets() {
        let vars = || [pair("TF_TOKEN_app_terraform_io", "t0ken-1"), pair("TF_TOKEN_b_example", "t0ken-2")];
        assert!(AllowList::with_extra("").unwrap().select(vars()).is_empty());
        let list = AllowList::with_extra("TF_TOKEN_b_example").unwrap();
        let inherited = list.select(vars());
        assert_eq!(list.secrets_in(&inherited), ["t0ken-2"]);
        assert_eq!(inherited.len(), 1);
    }

    #[test]
    fn secrets_are_found_by_name() {
        let vars = [
            ("AWS_SECRET_ACCESS_KEY", "s1"),
            ("GITHUB_TOKEN", "s2"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/path"),
            ("AWS_REGION", "eu"),
        ];
        assert_eq!(secrets("", &vars), ["s1", "s2"]);
    }
}
