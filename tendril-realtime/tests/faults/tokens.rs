use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use tendril_realtime::{AccessToken, ErrorKind, TokenFuture, TokenSource};
use tendril_realtime_testkit::{Answer, Event, Point};

use crate::{builder, in_time, server};

#[tokio::test]
async fn a_closure_is_a_token_source() {
    let server = server().await;
    let client =
        builder(&server).token_source(|| async { AccessToken::new("from-a-closure") }).build().unwrap();
    client.channel("room").join().await.unwrap();
    let journal = server.journal();
    let joined = journal.count(
        |event| matches!(event, Event::Join { payload, .. } if payload["access_token"] == "from-a-closure"),
    );
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn a_source_that_panics_anywhere_is_an_error_and_not_the_end_of_the_client() {
    struct Panics;
    impl TokenSource for Panics {
        fn token(&self) -> TokenFuture<'_> {
            panic!("token")
        }
        fn can_refresh(&self) -> bool {
            panic!("can_refresh")
        }
    }
    let server = server().await;
    let client =
        builder(&server).token_source(Panics).subscribe_timeout(Duration::from_millis(300)).build().unwrap();
    let error = in_time("the join", client.channel("room").join()).await.unwrap_err();
    let chain = format!("{error:#}");
    assert!(chain.contains("panicked"), "{chain}");
    assert_ne!(client.status().borrow().phase, tendril_realtime::Phase::Closed, "the client lives");
}

#[tokio::test]
async fn the_websocket_and_rest_share_one_exchange() {
    struct Slow(Arc<AtomicU32>);
    impl TokenSource for Slow {
        fn token(&self) -> TokenFuture<'_> {
            Box::pin(async {
                self.0.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(300)).await;
                AccessToken::new("t")
            })
        }
    }
    let server = server().await;
    server.on_http(|_| tendril_realtime_testkit::HttpAnswer::new(200).json(&serde_json::json!([])));
    let asked = Arc::new(AtomicU32::new(0));
    let client = builder(&server).token_source(Slow(Arc::clone(&asked))).build().unwrap();
    let rest = client.rest().clone();
    let reads = (0..10).map(|_| {
        let rest = rest.clone();
        async move { rest.from("t").rows::<serde_json::Value>().await }
    });
    let joined = async { client.channel("room").join().await };
    let (rows, room) = tokio::join!(futures_util::future::join_all(reads), joined);
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
    room.unwrap();
    // One before the connect, which all requests share, and one before the join.
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_does_not_make_a_good_token_old() {
    // `exp` 60 s from now by the server's clock, which is an hour behind ours.
    let server = server().await;
    server.set_clock_ahead(-3600);
    let exp =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 3600 + 600;
    let claims = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        format!(r#"{{"exp":{exp}}}"#),
    );
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let client = builder(&server)
        .token_source(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let token = AccessToken::new(format!("h.{claims}.s"));
            async { token }
        })
        .build()
        .unwrap();
    let _room = client.channel("room").join().await.unwrap();
    let before = asked.load(Ordering::SeqCst);
    // A token that seems to be over would be asked for again every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(asked.load(Ordering::SeqCst), before, "it has ten minutes to live");
}

#[tokio::test]
async fn a_replay_is_asked_for_by_the_servers_clock_and_only_stored_messages_move_it() {
    for skew in [-3600, -10, 10, 3600] {
        let server = server().await;
        server.set_clock_ahead(skew);
        let client = builder(&server).build().unwrap();
        let mut room = client.channel("room").private(true).replay(UNIX_EPOCH + Duration::from_secs(1), None);
        let mut messages = room.on_any_broadcast();
        let _room = room.join().await.unwrap();
        let since = |nth: usize| {
            let joins: Vec<_> = server
                .journal()
                .entries()
                .iter()
                .filter_map(|entry| match &entry.event {
                    Event::Join { payload, .. } => payload["config"]["broadcast"]["replay"]["since"].as_u64(),
                    _ => None,
                })
                .collect();
            joins.get(nth).copied()
        };
        assert_eq!(since(0), Some(1_000));
        // Another client's message that only looks like a stored one.
        server.broadcast("room", "m", &serde_json::json!({"meta": {"id": "x"}, "text": "\"meta\""}));
        in_time("the message", tendril_realtime::StreamExt::next(&mut messages)).await.unwrap().unwrap();
        server.cut_connections();
        server.wait_for(|journal| journal.joins("room") == 2).await.unwrap();
        assert_eq!(since(1), Some(1_000), "it did not move");
        crate::until("it is joined", || server.joined("room") == 1).await;
        server.database_broadcast("room", "m", &serde_json::json!({}), "stored-1");
        crate::until("it came", || client.stats().events_delivered >= 2).await;
        server.cut_connections();
        server.wait_for(|journal| journal.joins("room") == 3).await.unwrap();
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        let by_server = now + skew * 1000;
        let asked = i64::try_from(since(2).unwrap()).unwrap();
        assert!(
            (by_server - 12_000..by_server - 3_000).contains(&asked),
            "skew {skew}: {asked} at {by_server}"
        );
    }
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_the_channel_is_joined_again() {
    let server = server().await;
    let _expires = server
        .faults()
        .on(Point::Join, Answer::Refuse("InvalidJWTToken: Token has expired 3 seconds ago".to_owned()))
        .times(1);
    let number = Arc::new(AtomicU32::new(0));
    let client = builder(&server)
        .token_source(move || {
            let token = AccessToken::new(format!("t{}", number.fetch_add(1, Ordering::SeqCst)));
            async { token }
        })
        .build()
        .unwrap();
    in_time("the join", client.channel("room").join()).await.unwrap();
    assert_eq!(server.journal().joins("room"), 2);
}

#[tokio::test]
async fn the_error_of_a_source_is_told_once_in_the_chain() {
    let error = tendril_realtime::Error::token(std::io::Error::other("no such login"));
    assert_eq!(format!("{error:#}").matches("no such login").count(), 1);
    assert!(matches!(error.kind(), ErrorKind::Token { .. }));
}
