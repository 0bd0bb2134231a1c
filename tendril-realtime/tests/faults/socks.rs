//! Both transports, REST and the websocket, through a SOCKS proxy.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tendril_realtime::Client;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    in_time,
    transports::{child, impatient, reach, rest_server},
};

/// A SOCKS 5 proxy (RFC 1928, RFC 1929) that asks for `user` and `pass word`.
struct Socks {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
    names: Arc<AtomicU64>,
}

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
