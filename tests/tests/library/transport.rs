//! TLS with a private authority, and a real proxy.

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tendril_realtime::{ChangeEvent, Client, PostgresChanges};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_rustls::TlsAcceptor;

use crate::table::{Job, insert, stack};

/// An authority of our own and a server certificate it signed: (authority, chain, key), all DER.
fn certificates() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (authority.der().to_vec(), leaf.der().to_vec(), key.serialize_der())
}

/// Ends TLS in front of the stack, as a gateway does.
async fn gateway(upstream: SocketAddr, chain: Vec<u8>, key: Vec<u8>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain.into()], PrivateKeyDer::Pkcs8(key.into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
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
    address
}

fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_trusted_when_given_and_not_otherwise() {
    let (stack, database) = stack().await;
    let (authority, chain, key) = certificates();
    let address = gateway(address_of(&stack.api_url()), chain, key).await;
    let url = format!("https://localhost:{}", address.port());

    let trusting =
        Client::builder(&url, stack.service_role_key()).root_certificate(authority).build().unwrap();
    let changes = || PostgresChanges::on("public", "jobs");
    let mut stream = trusting.channel("jobs").postgres_changes::<Job>(changes()).subscribe().await.unwrap();
    insert(&database, 1, 2).await;
    assert!(matches!(stream.next().await.unwrap().unwrap(), ChangeEvent::Insert(_)));
    let rows: Vec<Job> = trusting.rest().from("jobs").rows().await.unwrap();
    assert_eq!(rows.len(), 1);

    let wary = Client::builder(&url, stack.service_role_key()).build().unwrap();
    let error = wary.rest().from("jobs").rows::<Job>().await.unwrap_err();
    assert_eq!(error.code(), "ConnectFailed");
    let (mut stream, _ready) = wary.channel("jobs").postgres_changes::<Job>(changes()).start().unwrap();
    let event = stream.next().await.unwrap().unwrap();
    assert!(
        matches!(&event, ChangeEvent::Interrupted(error) if error.to_string().contains("tls")),
        "{event:?}"
    );
}

/// A proxy, stopped at the end.
struct Proxy {
    port: u16,
    log: std::path::PathBuf,
    _process: Child,
    _dir: tempfile::TempDir,
}

async fn tinyproxy() -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (config, log) = (dir.path().join("tinyproxy.conf"), dir.path().join("tinyproxy.log"));
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogLevel Connect\nLogFile \"{}\"\n",
        log.display()
    );
    std::fs::write(&config, text).unwrap();
    let process = Command::new("tinyproxy")
        .args(["-d", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("tinyproxy is there: `apt-get install -y tinyproxy`, or `make setup`");
    let ready = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ready).await.expect("the proxy listens");
    Proxy { port, log, _process: process, _dir: dir }
}

/// The proxy is named by the environment, which belongs to the whole process: so the client is one of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_websocket_goes_through_the_proxy_that_the_environment_names() {
    let (stack, database) = stack().await;
    let proxy = tinyproxy().await;
    let listen = tendril_tests::program::example("listen");
    let mut child = Command::new(listen)
        .args([
            "--url",
            &stack.api_url(),
            "--key",
            stack.service_role_key(),
            "--table",
            "public.jobs",
            "--count",
            "1",
        ])
        .env("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env_remove("http_proxy")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen = Vec::new();
    let watching = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(r#""ready""#) {
                insert(&database, 1, 2).await;
            }
            seen.push(line);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), watching).await.expect("the row comes through");
    assert!(child.wait().await.unwrap().success());
    assert!(seen.iter().any(|line| line.contains(r#""type":"insert""#)), "{seen:?}");
    let log = std::fs::read_to_string(&proxy.log).unwrap();
    assert!(log.contains("CONNECT 127.0.0.1"), "the proxy was used for a tunnel: {log}");
}
