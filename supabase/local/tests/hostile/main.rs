//! Thousands of random requests and frames: none ends the server, shows or changes rows of others, or leaves a transaction open.
//!
//! The randomness is seeded: a failure comes again.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod frames;
mod random;
mod requests;

use futures_util::{SinkExt as _, StreamExt as _};
use random::Random;
use serde_json::json;
use supabase_local::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Requests and frames, each.
const COUNT: usize = 10_000;

/// What nobody may see.
const SECRET: &str = "hidden-from-everybody";

const USER: &str = "11111111-1111-4111-8111-111111111111";

const SCHEMA: &str = "
create table public.notes (
    id int generated always as identity primary key, owner uuid default auth.uid(), body text, meta jsonb default '{}'
);
alter table public.notes enable row level security;
create policy own on public.notes using (owner = auth.uid());
grant all on public.notes to anon, authenticated;
create table public.links (note_id int references public.notes on delete cascade, url text);
grant all on public.links to anon, authenticated;
create view public.hidden_view with (security_invoker = true) as select * from public.notes;
grant select on public.hidden_view to anon, authenticated;
create function public.twice(n int) returns int language sql as $$ select 2 * n $$;
create function public.fails() returns int language plpgsql as $$ begin raise exception 'no'; end $$;
create function public.busy() returns int language plpgsql as $$ begin perform pg_sleep(0.02); return 1; end $$;
create function public.find(pattern text) returns setof public.notes language sql stable as
    $$ select * from public.notes where body like pattern $$;
alter publication supabase_realtime add table public.notes, public.links;
grant all on public.notes, public.links to service_role;
insert into public.notes (owner, body) values ('99999999-9999-4999-8999-999999999999', 'hidden-from-everybody');
insert into public.links values (1, 'x');
";

async fn stack() -> Stack {
    Stack::builder().without_migrations().sql(SCHEMA).start().await.unwrap()
}

async fn database(stack: &Stack) -> tokio_postgres::Client {
    let (database, connection) =
        tokio_postgres::connect(&stack.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_do_no_harm() {
    let stack = stack().await;
    let address = stack.api_url().replace("http://", "");
    let (token, key) = (stack.mint_user(USER), stack.anon_key().to_owned());
    let senders = (0..8_u64).map(|seed| {
        let (address, token, key) = (address.clone(), token.clone(), key.clone());
        tokio::spawn(async move {
            let mut random = Random::new(seed);
            let mut good = 0;
            for _ in 0..COUNT / 8 {
                let request = requests::request(&mut random, &key, &token);
                let answer = send(&address, &request).await;
                assert!(!answer.contains(SECRET), "{}\nshows {answer}", String::from_utf8_lossy(&request));
                good += usize::from(answer.starts_with("HTTP/1.1 2"));
            }
            good
        })
    });
    let mut good = 0;
    for sender in senders.collect::<Vec<_>>() {
        good += sender.await.unwrap();
    }
    // Otherwise it was refused at the door, and nothing was tried.
    assert!(good > COUNT / 20, "only {good} requests were answered with a success");
    unharmed(&stack).await;
    stack.stop().await.unwrap();
}

async fn send(address: &str, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.expect("somebody listens");
    // The server may close the connection before the end.
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no answer to {}", String::from_utf8_lossy(request));
    String::from_utf8_lossy(&answer).into_owned()
}

fn websocket(stack: &Stack, version: &str) -> String {
    let (base, key) = (stack.api_url().replace("http", "ws"), stack.anon_key());
    format!("{base}/realtime/v1/websocket?apikey={key}&vsn={version}")
}

#[tokio::test(flavor = "multi_thread")]
async fn random_frames_do_no_harm() {
    let stack = stack().await;
    let token = stack.mint_user(USER);
    let senders = (0..8_u64).map(|seed| {
        let version = if seed % 2 == 0 { 2 } else { 1 };
        let (url, token) = (websocket(&stack, &format!("{version}.0.0")), token.clone());
        tokio::spawn(async move {
            let mut random = Random::new(100 + seed);
            let mut sent = 0;
            while sent < COUNT / 8 {
                // A socket may be closed for what it sends; the next one is accepted.
                let (socket, _) =
                    tokio_tungstenite::connect_async(&url).await.expect("the server lets sockets in");
                let (mut sink, mut received) = socket.split();
                let listener = tokio::spawn(async move {
                    while let Some(Ok(message)) = received.next().await {
                        let text = String::from_utf8_lossy(&message.into_data()).into_owned();
                        assert!(!text.contains(SECRET), "{text}");
                    }
                });
                for _ in 0..250 {
                    sent += 1;
                    if sink.send(frames::frame(&mut random, version, &token)).await.is_err() {
                        break;
                    }
                }
                let _ = sink.close().await;
                listener.await.unwrap();
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let witness = tokio::spawn(witness(websocket(&stack, "2.0.0"), token));
    let database = database(&stack).await;
    let insert = format!("insert into public.notes (owner, body) values ('{USER}', 'mine')");
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) || !witness.is_finished() {
        database.batch_execute("update public.notes set meta = '{}' where id < 6").await.unwrap();
        database.batch_execute(&insert).await.unwrap();
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let rows = witness.await.unwrap();
    assert!(rows > 100, "only {rows} rows reached the client that behaves well");
    unharmed(&stack).await;
    stack.stop().await.unwrap();
}

/// A user who only listens, and receives only their own rows; how many in ten seconds.
async fn witness(url: String, token: String) -> usize {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let binding = json!({"event": "*", "schema": "public", "table": "notes"});
    let config = json!({"config": {"postgres_changes": [binding]}, "access_token": token});
    let join = json!(["1", "1", "realtime:witness", "phx_join", config]);
    socket.send(Message::text(join.to_string())).await.unwrap();
    let mut rows = 0;
    let listening = async {
        while rows < 1000 {
            let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
            assert!(!text.contains(SECRET), "{text}");
            rows += usize::from(text.contains("commit_timestamp"));
        }
    };
    // Whatever came by then.
    let _ = timeout(Duration::from_secs(10), listening).await;
    rows
}

/// Requests and sockets work as ever, no transaction is open, and what is hidden is there and seen by those who may see it.
async fn unharmed(stack: &Stack) {
    let database = database(stack).await;
    let hidden =
        "select count(*) from public.notes where body = 'hidden-from-everybody' and owner::text like '9999%'";
    assert_eq!(database.query_one(hidden, &[]).await.unwrap().get::<_, i64>(0), 1);
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    // A request whose client is gone is rolled back a moment later.
    while database.query_one(open, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "a transaction stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let key = stack.service_role_key();
    let request = format!(
        "GET /rest/v1/notes?body=eq.{SECRET} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\napikey: {key}\r\n\r\n"
    );
    let seen = send(&stack.api_url().replace("http://", ""), request.as_bytes()).await;
    assert!(seen.contains(SECRET), "{seen}");
    let url = websocket(stack, "2.0.0").replace(stack.anon_key(), key);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let binding = json!({"event": "UPDATE", "schema": "public", "table": "notes", "filter": "id=eq.1"});
    let join = json!(["1", "1", "realtime:last", "phx_join", {"config": {"postgres_changes": [binding]}}]);
    socket.send(Message::text(join.to_string())).await.unwrap();
    for wanted in ["Subscribed to PostgreSQL", SECRET] {
        let received =
            async { while !socket.next().await.unwrap().unwrap().into_text().unwrap().contains(wanted) {} };
        timeout(Duration::from_secs(20), received).await.unwrap_or_else(|_| panic!("{wanted} never came"));
        database.batch_execute("update public.notes set meta = '{}' where id = 1").await.unwrap();
    }
}
