//! Tokens that end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use supabase_local::Stack;
use tendril_realtime::{
    AccessToken, ChangeEvent, Client, PostgresChanges, ResyncReason, TokenFuture, TokenSource,
};

use crate::table::{Job, insert, stack};

/// Mints short tokens, as an Edge Function would.
struct Mint {
    stack: Arc<Stack>,
    life: Duration,
    minted: Arc<AtomicU32>,
}

fn short_token(stack: &Stack, life: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    stack.mint(&serde_json::json!({
        "role": "service_role", "aud": "authenticated", "iat": now, "exp": now + life.as_secs(),
        "jti": uuid::Uuid::new_v4(),
    }))
}

impl TokenSource for Mint {
    fn token(&self) -> TokenFuture<'_> {
        self.minted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { AccessToken::new(short_token(&self.stack, self.life)) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_six_seconds_are_renewed_without_a_rejoin() {
    let (stack, database) = stack().await;
    let stack = Arc::new(stack);
    let minted = Arc::new(AtomicU32::new(0));
    let mint = Mint { stack: Arc::clone(&stack), life: Duration::from_secs(6), minted: Arc::clone(&minted) };
    let client = Client::builder(stack.api_url(), stack.anon_key()).token_source(mint).build().unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let mut stream = client.channel("jobs").postgres_changes::<Job>(changes).subscribe().await.unwrap();
    for second in 0..16 {
        insert(&database, second, second + 1).await;
        loop {
            let event =
                tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("rows flow");
            match event.unwrap().expect("no error") {
                ChangeEvent::Insert(job) => {
                    assert_eq!(job.id, second);
                    break;
                }
                ChangeEvent::Resync(reason) => assert_eq!(reason, ResyncReason::TokenRenewed),
                other => panic!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(client.stats().connections, 1);
    assert!(minted.load(Ordering::Relaxed) >= 4, "renewed several times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_one_second_cost_joins_at_a_measured_pace_and_end_nothing() {
    let (stack, database) = stack().await;
    let stack = Arc::new(stack);
    let minted = Arc::new(AtomicU32::new(0));
    let mint = Mint { stack: Arc::clone(&stack), life: Duration::from_secs(1), minted: Arc::clone(&minted) };
    let client = Client::builder(stack.api_url(), stack.anon_key()).token_source(mint).build().unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let mut stream = client.channel("jobs").postgres_changes::<Job>(changes).subscribe().await.unwrap();
    let (frames, tokens) = (client.stats().frames_sent, minted.load(Ordering::Relaxed));
    let mut rows = 0;
    for second in 0..12 {
        insert(&database, second, second + 1).await;
        let end = tokio::time::Instant::now() + Duration::from_secs(1);
        while let Ok(event) = tokio::time::timeout_at(end, stream.next()).await {
            let event = event.expect("the stream goes on").expect("no end");
            rows += u32::from(event.row().is_some());
        }
    }
    assert_eq!(client.stats().connections, 1);
    let (frames, tokens) = (client.stats().frames_sent - frames, minted.load(Ordering::Relaxed) - tokens);
    // Joins, leaves, tokens.
    assert!(frames < 40, "{frames} frames in 12 s");
    assert!(tokens < 30, "{tokens} tokens in 12 s");
    assert!(rows > 0, "rows flow while a token is good");
}

#[tokio::test]
async fn an_expired_token_that_nobody_can_renew_is_a_final_error_with_the_servers_code() {
    let (stack, _database) = stack().await;
    let token = short_token(&stack, Duration::ZERO);
    let client = Client::builder(stack.api_url(), stack.anon_key())
        .token_source(AccessToken::new(token).unwrap())
        .build()
        .unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let error = client.channel("jobs").postgres_changes::<Job>(changes).subscribe().await.unwrap_err();
    assert_eq!(error.code(), "InvalidJWTToken");
    assert_eq!(error.retry(), tendril_realtime::Retry::Never);
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_key_that_the_server_does_not_take_is_a_final_error() {
    let (stack, _database) = stack().await;
    let client = Client::builder(stack.api_url(), "nonsense").build().unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let error = client.channel("jobs").postgres_changes::<Job>(changes).subscribe().await.unwrap_err();
    assert_eq!(error.code(), "Handshake");
    assert!(error.to_string().contains("401"), "{error}");
}

/// A source with moods: it fails, hangs and panics before it gives a token.
struct Moody {
    stack: Arc<Stack>,
    requests: AtomicU32,
}

impl TokenSource for Moody {
    fn token(&self) -> TokenFuture<'_> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match requests {
                // A file that is being rewritten.
                0 => AccessToken::new(""),
                1 => panic!("a bug in the source"),
                _ => AccessToken::new(short_token(&self.stack, Duration::from_secs(60))),
            }
        })
    }
}

#[tokio::test]
async fn a_source_that_fails_for_a_while_is_asked_again_and_ends_nothing() {
    let (stack, database) = stack().await;
    let stack = Arc::new(stack);
    let source = Moody { stack: Arc::clone(&stack), requests: AtomicU32::new(0) };
    let client = Client::builder(stack.api_url(), stack.anon_key())
        .token_source(source)
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
        .build()
        .unwrap();
    let changes = PostgresChanges::on("public", "jobs");
    let (mut stream, ready) = client.channel("jobs").postgres_changes::<Job>(changes).start().unwrap();
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("it recovers").unwrap();
    insert(&database, 1, 2).await;
    let mut complaints = 0;
    loop {
        match stream.next().await.expect("the stream goes on") {
            Ok(ChangeEvent::Insert(job)) => break assert_eq!(job.id, 1),
            Ok(ChangeEvent::Interrupted(error)) => {
                assert_eq!(error.code(), "TokenSource");
                assert_ne!(error.retry(), tendril_realtime::Retry::Never);
                complaints += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(complaints >= 1, "the failures were reported");
}
