use std::{
    error::Error as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use tendril_realtime::{Client, ErrorKind, Retry};
use tendril_realtime_testkit::{Answer, FakeServer, HttpAnswer, Point};

use crate::{builder, in_time, server};

/// A client whose attempts end soon.
fn impatient(url: &str) -> Client {
    Client::builder(url, "anon-key")
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .subscribe_timeout(Duration::from_millis(400))
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
        .build()
        .unwrap()
}

/// `localhost` is `::1` and `127.0.0.1`: what is wrong with the first of them must not matter.
async fn connects_by_the_second_address(first: impl FnOnce(u16) -> Option<TcpListener>) {
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(200).json(&serde_json::json!([])));
    let port = server.address().port();
    let Some(_first) = first(port) else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let start = Instant::now();
    let client = Client::builder(format!("http://localhost:{port}"), "anon-key").no_proxy().build().unwrap();
    let (joined, read) = tokio::join!(
        in_time("the join", client.channel("room").join()),
        in_time("REST", client.from("t").rows::<serde_json::Value>())
    );
    joined.unwrap();
    read.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

fn on_ipv6(port: u16) -> Option<TcpListener> {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_address_that_resets_every_connection_is_passed_over() {
    connects_by_the_second_address(|port| {
        let listener = on_ipv6(port)?;
        let accepting = listener.try_clone().ok()?;
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                drop(stream);
            }
        });
        Some(listener)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_address_that_closes_in_the_middle_of_the_upgrade_is_passed_over() {
    connects_by_the_second_address(|port| {
        let listener = on_ipv6(port)?;
        let accepting = listener.try_clone().ok()?;
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 101 Swit");
            }
        });
        Some(listener)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_address_that_stays_silent_is_passed_over() {
    let server = server().await;
    server.on_http(|_| HttpAnswer::new(200).json(&serde_json::json!([])));
    let port = server.address().port();
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    if socket.bind(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))).is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    // Nobody accepts: once its queue is full, a connection request is dropped.
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut full = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        full.push(connected.unwrap());
        assert!(full.len() < 64, "the queue of a listener is never full");
    }
    let start = Instant::now();
    let client = Client::builder(format!("http://localhost:{port}"), "anon-key").no_proxy().build().unwrap();
    let (joined, read) = tokio::join!(
        in_time("the join", client.channel("room").join()),
        in_time("REST", client.from("t").rows::<serde_json::Value>())
    );
    joined.unwrap();
    read.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop((full, listener));
}

#[tokio::test]
async fn join_names_what_it_met_at_a_closed_port() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = impatient(&format!("http://{closed}")).channel("room").join().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error:?}");
    let chain = format!("{error:#}");
    assert!(chain.contains("refused"), "{chain}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn a_redirect_of_the_upgrade_is_final_and_says_where_to() {
    for status in [301, 302, 303, 307, 308] {
        let server = server().await;
        let other = FakeServer::start().await.unwrap();
        let answer = HttpAnswer::new(status).header("location", format!("{}/x?apikey=anon-key", other.url()));
        let _redirects = server.faults().on(Point::Upgrade, Answer::Http(answer));
        let start = Instant::now();
        let error = builder(&server).build().unwrap().channel("room").join().await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "at once");
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.to_string().contains(&other.url()), "{error}");
        assert!(!error.to_string().contains("anon-key"), "{error}");
        assert_eq!(other.journal().accepted(), 0, "nobody follows it");
    }
}

#[tokio::test]
async fn a_refused_upgrade_says_why_at_once() {
    for (status, words) in [(401, "API key is missing"), (400, "nonsense"), (403, "Realtime was disabled")] {
        let server = server().await;
        let answer = HttpAnswer::new(status).json(&serde_json::json!({"error": words}));
        let _refuses = server.faults().on(Point::Upgrade, Answer::Http(answer));
        let client = builder(&server).build().unwrap();
        let error = in_time("the refusal", client.channel("room").join()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.journal().accepted(), 1, "a refusal is not tried again");
    }
}

#[tokio::test]
async fn headers_and_parameters_of_ones_own_go_with_the_upgrade() {
    let server = server().await;
    let client = builder(&server).header("x-tenant", "seven").query("log_level", "info").build().unwrap();
    client.channel("room").join().await.unwrap();
    let journal = server.journal();
    assert_eq!(journal.count(|event| format!("{event:?}").contains("log_level=info")), 1, "{journal:?}");
    for name in ["host", "Sec-WebSocket-Key", "with blank"] {
        let error = builder(&server).header(name, "x").build().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "header", .. }), "{error:?}");
    }
}
