//! Terraform's environment: an allow-list, then the agent's own settings. The agent's token is never in it.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
};

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

/// Which variables Terraform may inherit.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    /// Names and prefixes beside the built-in ones.
    extra: Vec<String>,
    /// What the state's backend needs; may be what is refused to everybody else.
    for_backend: &'static [&'static str],
}

impl AllowList {
    /// The built-in list and these names, separated by commas. `TF_VAR_…` may be named, one by one or as `TF_VAR_*`.
    pub(crate) fn with_extra(names: &str) -> Result<Self, String> {
        let extra: Vec<String> =
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for name in &extra {
            let stem = name.strip_suffix('*').unwrap_or(name);
            if stem.is_empty() || !stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!(
                    "--terraform-env / TENDRIL_TERRAFORM_ENV holds \"{name}\": write names such as GITHUB_TOKEN or GITHUB_*"
                ));
            }
            // A prefix is refused too where it would cover a refused name, such as `T*`.
            let covers = name.ends_with('*')
                && REFUSED.iter().any(|refused| refused.trim_end_matches('*').starts_with(stem));
            if covers || is_refused(stem) {
                return Err(format!(
                    "--terraform-env / TENDRIL_TERRAFORM_ENV holds \"{name}\": the agent's own variables, INFRACOST_* and TF_* are never given to Terraform; take it out"
                ));
            }
        }
        Ok(Self { extra, for_backend: &[] })
    }

    /// The same list, and what the state's backend needs.
    pub(crate) fn for_backend(self, names: &'static [&'static str]) -> Self {
        Self { for_backend: names, ..self }
    }

    fn allows(&self, name: &str) -> bool {
        let mut listed = MACHINE.iter().chain(ALLOWED).copied().chain(self.extra.iter().map(String::as_str));
        let is_listed = !is_refused(name) && listed.any(|pattern| fits(pattern, name));
        is_listed || self.for_backend.iter().any(|pattern| fits(pattern, name))
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
    !name.starts_with("TF_VAR_") && REFUSED.iter().any(|pattern| fits(pattern, name))
}

/// Values of an environment that must not appear in a log: those whose names say that they are secrets.
pub(crate) fn secrets_in<'a>(
    environment: impl IntoIterator<Item = (&'a OsString, &'a OsString)>,
) -> Vec<String> {
    let secret = |name: &OsStr| {
        let name = name.to_string_lossy().to_ascii_uppercase();
        let about_a_file = name.ends_with("_FILE") || name.ends_with("_PATH") || name.ends_with("_URI");
        let words =
            ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE", "_KEY", "CONN_STR", "TF_VAR_"];
        !about_a_file && words.iter().any(|word| name.contains(word))
    };
    let named = environment.into_iter().filter(|(name, _)| secret(name));
    named.flat_map(|(_, value)| with_password(&value.to_string_lossy())).collect()
}

/// A value, and the password inside where it is an address with one.
fn with_password(value: &str) -> Vec<String> {
    let address = url::Url::parse(value).ok();
    let password = address.as_ref().and_then(url::Url::password).map(str::to_owned);
    std::iter::once(value.to_owned()).chain(password).collect()
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
        let kept = list.select(names.map(|name| pair(name, "v")));
        let kept: Vec<_> = kept.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(
            kept,
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
        AllowList::with_extra("TF_VAR_region").unwrap();
    }

    #[test]
    fn the_backends_variables_are_let_in_where_it_is_used_and_only_there() {
        let vars = || ["TF_HTTP_PASSWORD", "TF_LOG", "PG_CONN_STR"].map(|name| pair(name, "v"));
        let list = AllowList::with_extra("").unwrap();
        assert!(list.select(vars()).is_empty());
        let kept = list.for_backend(&["TF_HTTP_*"]).select(vars());
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["TF_HTTP_PASSWORD"]);
    }

    #[test]
    fn the_password_of_an_address_is_a_secret_too() {
        let vars = [pair("PG_CONN_STR", "postgres://u:s3cret@h/d")];
        let found = secrets_in(vars.iter().map(|(name, value)| (name, value)));
        assert_eq!(found, ["postgres://u:s3cret@h/d", "s3cret"]);
    }

    #[test]
    fn secrets_are_found_by_name() {
        let vars = [
            pair("AWS_SECRET_ACCESS_KEY", "s1"),
            pair("GITHUB_TOKEN", "s2"),
            pair("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/path"),
            pair("AWS_REGION", "eu"),
        ];
        assert_eq!(secrets_in(vars.iter().map(|(name, value)| (name, value))), ["s1", "s2"]);
    }
}
