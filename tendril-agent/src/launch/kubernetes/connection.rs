//! The way to the API server.

use std::time::Duration;

use kube::{Client, Config};

/// How long an open connection may be silent: a watch has a bookmark each minute. One whose other end is gone without a word would be believed
/// for ever.
const SILENT_FOR: Duration = Duration::from_secs(100);

/// A client and the namespace of the runs.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Where the API server is, for people.
    pub(crate) url: String,
    /// Whose certificates it trusts, in DER. Empty: what the platform trusts.
    pub(crate) authorities: Vec<Vec<u8>>,
}

impl Connection {
    /// Connects as the pod's service account, or as the kubeconfig says. Nothing is sent yet.
    ///
    /// Errors: a sentence that says what to set.
    pub(crate) async fn open(namespace: Option<&str>) -> Result<Self, String> {
        let mut config = Config::infer().await.map_err(|error| {
            format!(
                "--launcher kubernetes finds no cluster: there is no kubeconfig (KUBECONFIG, ~/.kube/config), and no service account of a pod: {error}"
            )
        })?;
        if let Some(namespace) = namespace {
            namespace.clone_into(&mut config.default_namespace);
        }
        Self::of(config)
    }

    /// Connects as this says. Errors: a sentence.
    pub(crate) fn of(mut config: Config) -> Result<Self, String> {
        let authorities = config.root_cert.clone().unwrap_or_default();
        config.read_timeout.get_or_insert(SILENT_FOR);
        let (namespace, url) = (config.default_namespace.clone(), config.cluster_url.to_string());
        let client = Client::try_from(config)
            .map_err(|error| format!("the connection to the cluster {url} cannot be set up: {error}"))?;
        Ok(Self { client, namespace, url, authorities })
    }
}
