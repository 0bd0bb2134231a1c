//! Both transports, REST and the websocket, over TLS with certificates of one's own and through a SOCKS proxy.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use serde_json::{Value, json};
use tendril_realtime::{Client, ClientBuilder, Error, ErrorKind};
use tendril_realtime_testkit::{FakeServer, HttpAnswer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{in_time, server};

async fn rest_server() -> FakeServer {
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(200).json(&json!([])));
    server
}

/// Reads by both transports.
async fn reach(client: &Client) -> (Result<(), Error>, Result<(), Error>) {
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

fn impatient(url: &str) -> ClientBuilder {
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

/// A SOCKS 5 proxy (RFC 1928, RFC 1929) that asks for `user` and `pass word`.
#[cfg(feature = "socks")]
struct Socks {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
    names: Arc<AtomicU64>,
}

#[cfg(feature = "socks")]
impl Socks {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tunnels, names) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&tunnels), Arc::clone(&names));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tunnels, names) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
                tokio::spawn(async move { Self::serve(stream, &tunnels, &names).await });
            }
        });
        Self { address, tunnels, names }
    }

    async fn serve(mut inside: TcpStream, tunnels: &AtomicU64, names: &AtomicU64) -> std::io::Result<()> {
        assert_eq!(inside.read_u8().await?, 5, "the version");
        let mut methods = vec![0; inside.read_u8().await?.into()];
        inside.read_exact(&mut methods).await?;
        if !methods.contains(&2) {
            return inside.write_all(&[5, 0xff]).await;
        }
        inside.write_all(&[5, 2]).await?;
        assert_eq!(inside.read_u8().await?, 1, "the version of the authentication");
        let mut said = Vec::new();
        for _ in 0..2 {
            let mut text = vec![0; inside.read_u8().await?.into()];
            inside.read_exact(&mut text).await?;
            said.push(String::from_utf8(text).unwrap());
        }
        if said != ["user", "pass word"] {
            return inside.write_all(&[1, 1]).await;
        }
        inside.write_all(&[1, 0]).await?;
        let mut head = [0; 4];
        inside.read_exact(&mut head).await?;
        let host = match head[3] {
            1 => std::net::Ipv4Addr::from_bits(inside.read_u32().await?).to_string(),
            3 => {
                names.fetch_add(1, Ordering::SeqCst);
                let mut name = vec![0; inside.read_u8().await?.into()];
                inside.read_exact(&mut name).await?;
                String::from_utf8(name).unwrap()
            }
            _ => std::net::Ipv6Addr::from_bits(inside.read_u128().await?).to_string(),
        };
        let port = inside.read_u16().await?;
        // A name that only the proxy knows.
        let host = if host == "supabase.internal" { "127.0.0.1".to_owned() } else { host };
        let Ok(mut outside) = TcpStream::connect((host.as_str(), port)).await else {
            return inside.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        };
        tunnels.fetch_add(1, Ordering::SeqCst);
        inside.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut inside, &mut outside).await.map(drop)
    }

    fn url(&self, scheme: &str, password: &str) -> String {
        format!("{scheme}://user:{password}@{}", self.address)
    }
}

#[cfg(feature = "socks")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_transports_go_through_a_socks_proxy_which_may_know_the_name() {
    let server = rest_server().await;
    let proxy = Socks::start().await;
    for (scheme, host) in [("socks5", "127.0.0.1"), ("socks5h", "supabase.internal")] {
        let url = format!("http://{host}:{}", server.address().port());
        let before = proxy.tunnels.load(Ordering::SeqCst);
        let client =
            Client::builder(&url, "anon-key").proxy(proxy.url(scheme, "pass%20word")).build().unwrap();
        let (joined, read) = in_time("both", reach(&client)).await;
        joined.unwrap();
        read.unwrap();
        assert_eq!(proxy.tunnels.load(Ordering::SeqCst) - before, 2, "{scheme}: one for each transport");
    }
    assert_eq!(proxy.names.load(Ordering::SeqCst), 2, "socks5 resolves here, socks5h there");
    let wrong = impatient(&server.url()).proxy(proxy.url("socks5", "wrong")).build().unwrap();
    let (joined, read) = in_time("both", reach(&wrong)).await;
    for error in [joined.unwrap_err(), read.unwrap_err()] {
        let shown = format!("{error:#} {error:?}");
        assert!(!shown.contains("user:") && !shown.contains("anon-key"), "{shown}");
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

async fn child(server: &FakeServer, environment: &[(&str, &str)]) -> std::process::Output {
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

#[cfg(feature = "socks")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_transports_take_the_route_that_the_environment_names() {
    let server = rest_server().await;
    let proxy = Socks::start().await;
    let url = proxy.url("socks5", "pass%20word");
    for (environment, proxied) in [
        (vec![("ALL_PROXY", url.as_str())], true),
        (vec![("http_proxy", &url)], true),
        (vec![("HTTPS_PROXY", &url)], false),
        (vec![("ALL_PROXY", &url), ("NO_PROXY", "127.0.0.0/8")], false),
        (vec![("ALL_PROXY", &url), ("NO_PROXY", "10.0.0.0/8, 127.0.0.1/32")], false),
        (vec![("ALL_PROXY", &url), ("NO_PROXY", "127.0.0.0/31")], false),
        (vec![("ALL_PROXY", &url), ("NO_PROXY", "127.0.0.2/32,10.0.0.0/8,::1/128")], true),
        (vec![("ALL_PROXY", &url), ("no_proxy", "*")], false),
    ] {
        let before = proxy.tunnels.load(Ordering::SeqCst);
        let output = child(&server, &environment).await;
        assert!(output.status.success(), "{environment:?}: {}", String::from_utf8_lossy(&output.stderr));
        let tunnels = proxy.tunnels.load(Ordering::SeqCst) - before;
        assert_eq!(tunnels, if proxied { 2 } else { 0 }, "{environment:?}");
    }
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
