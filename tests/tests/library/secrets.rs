//! Keys and tokens are in no log line of ours, however much is logged.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tendril_realtime::{AccessToken, Client, PostgresChanges};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::table::{Job, stack};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_logged_or_shown_at_any_level() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("trace"))
        .with_writer(captured.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (stack, _database) = stack().await;
    let (key, token) = (stack.anon_key().to_owned(), stack.mint_user("00000000-0000-4000-8000-000000000001"));
    let client = Client::builder(stack.api_url(), &key)
        .token_source(AccessToken::new(&token).unwrap())
        .build()
        .unwrap();
    let stream = client
        .channel("jobs")
        .postgres_changes::<Job>(PostgresChanges::on("public", "jobs"))
        .subscribe()
        .await
        .unwrap();
    let refused = client.rest().from("nothing_here").rows::<Job>().await.unwrap_err();
    let shown = format!("{client:?} {stream:?} {refused:?} {refused}");
    client.shutdown().await;
    let wrong = Client::builder(stack.api_url(), "secret-key-of-nobody").build().unwrap();
    let error = wrong.channel("x").join().await.unwrap_err();
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("connected"), "the log was captured: {log}");
    for secret in [key.as_str(), token.as_str(), "secret-key-of-nobody"] {
        assert!(!log.contains(secret), "in the log");
        assert!(!shown.contains(secret), "in what is shown");
        assert!(!format!("{error:?} {error}").contains(secret), "in an error");
    }
}
