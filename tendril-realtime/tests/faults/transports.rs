//! Both transports, REST and the websocket, over TLS with certificates of one's own and by the proxies of the environment.

use std::{process::Stdio, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use serde_json::{Value, json};
use tendril_realtime::{Client, ClientBuilder, Error, ErrorKind};
use tendril_realtime_testkit::{FakeServer, HttpAnswer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{in_time, server};

pub(crate) async fn rest_server() -> FakeServer {
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(200).json(&json!([])));
    server
}

/// Reads by both transports.
pub(crate) async fn reach(client: &Client) -> (Result<(), Error>, Result<(), Error>) {
    let joined = client.channel("room").join().await.map(drop);
    let read = client.from("t").rows::<Value>().await.map(drop);
    (joined, read)
}

/// An authority and what it signed: a server's and a client's certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key, as PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// Ends TLS in front of the server, as a gateway does; asks for a certificate of this authority's, if there is one.
async fn gateway(server: &FakeServer, authority: &Authority, clients: Option<&Authority>) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.issuer.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = authority.sign("localhost");
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![chain], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = server.address();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let Ok(mut outside) = TcpStream::connect(upstream).await else { return };
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    format!("https://localhost:{port}")
}

pub(crate) fn impatient(url: &str) -> ClientBuilder {
    Client::builder(url, "anon-key").no_proxy().subscribe_timeout(Duration::from_millis(500))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_in_pem_are_trusted_by_both_transports_and_strangers_are_not() {
    let server = rest_server().await;
    let (ours, other) = (Authority::new(), Authority::new());
    let url = gateway(&server, &ours, None).await;
    let bundle = format!("# two of them\n{}\n{}", other.pem(), ours.pem());
    let client = Client::builder(&url, "anon-key").no_proxy().root_certificates_pem(bundle.as_bytes());
    let (joined, read) = in_time("both", reach(&client.build().unwrap())).await;
    joined.unwrap();
    read.unwrap();

    let wary = impatient(&url).root_certificates_pem(other.pem().as_bytes()).build().unwrap();
    let (joined, read) = in_time("both", reach(&wary)).await;
    for error in [joined.unwrap_err(), read.unwrap_err()] {
        let chain = format!("{error:#}").to_lowercase();
        assert!(chain.contains("certificate"), "{chain}");
    }
    for garbage in ["", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "no PEM"] {
        let error = impatient(&url).root_certificates_pem(garbage.as_bytes()).build().unwrap_err();
        let field = "root_certificates_pem";
        assert!(
            matches!(error.kind(), ErrorKind::InvalidInput { field: named, .. } if *named == field),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_by_both_transports() {
    let server = rest_server().await;
    let (ours, clients) = (Authority::new(), Authority::new());
    let url = gateway(&server, &ours, Some(&clients)).await;
    let (chain, key) = clients.sign("tendril");
    let trusting = || impatient(&url).root_certificates_pem(ours.pem().as_bytes());
    let known = trusting().client_certificate_pem(chain.as_bytes(), key.as_bytes()).build().unwrap();
    let (joined, read) = in_time("both", reach(&known)).await;
    joined.unwrap();
    read.unwrap();

    let (stranger_chain, stranger_key) = Authority::new().sign("tendril");
    let stranger = trusting().client_certificate_pem(stranger_chain.as_bytes(), stranger_key.as_bytes());
    for refused in [trusting().build().unwrap(), stranger.build().unwrap()] {
        let (joined, read) = in_time("both", reach(&refused)).await;
        assert!(joined.is_err() && read.is_err(), "{joined:?} {read:?}");
    }
    for (chain, key) in [(&chain, &stranger_key), (&key, &key), (&chain, &chain)] {
        let error = trusting().client_certificate_pem(chain.as_bytes(), key.as_bytes()).build().unwrap_err();
        let field = "client_certificate";
        assert!(
            matches!(error.kind(), ErrorKind::InvalidInput { field: named, .. } if *named == field),
            "{error}"
        );
        assert!(!format!("{error:#} {error:?}").contains(key.lines().nth(1).unwrap()), "the key is a secret");
    }
}

/// The environment belongs to a whole process: the tests below start this one as a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as a child of other tests"]
async fn a_client_that_goes_by_its_environment() {
    let url = std::env::var("TENDRIL_TEST_URL").expect("the parent names the server");
    let client =
        Client::builder(url, "anon-key").subscribe_timeout(Duration::from_secs(5)).build().expect("settings");
    let (joined, read) = reach(&client).await;
    joined.expect("the websocket");
    read.expect("REST");
}

pub(crate) async fn child(server: &FakeServer, environment: &[(&str, &str)]) -> std::process::Output {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "transports::a_client_that_goes_by_its_environment",
        "--ignored",
        "--nocapture",
    ]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("TENDRIL_TEST_URL", server.url()).envs(environment.iter().copied());
    in_time("the child", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_that_is_not_understood_is_an_error_that_names_it() {
    let server = rest_server().await;
    for (name, value) in
        [("ALL_PROXY", "socks4://127.0.0.1:1"), ("HTTP_PROXY", "gopher://x"), ("NO_PROXY", "10.0.0.0/64")]
    {
        let output = child(&server, &[(name, value)]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{name}: {said}");
    }
    assert_eq!(server.journal().accepted(), 0, "nothing goes out by another way");
}
