//! How fast the local stack is: `cargo bench -p supabase-local`. Prints a table; ends with 1 if a bound is missed.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a bench may fail")]
#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use supabase_local::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const USER: &str = "11111111-1111-4111-8111-111111111111";

const SCHEMA: &str = "
create table public.events (id bigint generated always as identity primary key, owner uuid not null, room int not null, body text);
alter table public.events enable row level security;
create policy own on public.events to authenticated using (owner = (select auth.uid())) with check (owner = (select auth.uid()));
grant all on public.events to authenticated;
create table public.logs (job int, seq int, line text, primary key (job, seq));
alter table public.logs enable row level security;
create policy own on public.logs to authenticated using ((select auth.uid()) is not null) with check ((select auth.uid()) is not null);
grant all on public.logs to authenticated;
alter publication supabase_realtime add table public.events;
";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One measured thing.
struct Row {
    name: &'static str,
    measured: String,
    bound: &'static str,
    kept: bool,
}

#[tokio::main]
async fn main() {
    let stack = Stack::builder().without_migrations().sql(SCHEMA).start().await.unwrap();
    let rows = [latency(&stack).await, crowd(&stack).await, bulk(&stack).await];
    stack.stop().await.unwrap();
    println!("| what | measured | bound |\n|---|---|---|");
    for Row { name, measured, bound, kept } in &rows {
        println!("| {name} | {measured} | {bound}{} |", if *kept { "" } else { ": MISSED" });
    }
    if rows.iter().any(|row| !row.kept) {
        std::process::exit(1);
    }
}

/// A socket that receives the inserts which a filter selects.
async fn listener(stack: &Stack, filter: Option<String>) -> Socket {
    let url = format!(
        "{}/realtime/v1/websocket?apikey={}&vsn=2.0.0",
        stack.api_url().replace("http", "ws"),
        stack.anon_key()
    );
    let (mut socket, _) = connect_async(url).await.unwrap();
    let mut binding = json!({"event": "INSERT", "schema": "public", "table": "events"});
    if let Some(filter) = filter {
        binding["filter"] = filter.into();
    }
    let payload = json!({"config": {"postgres_changes": [binding]}, "access_token": stack.mint_user(USER)});
    socket
        .send(Message::text(json!(["1", "1", "realtime:bench", "phx_join", payload]).to_string()))
        .await
        .unwrap();
    while !socket.next().await.unwrap().unwrap().into_text().unwrap().contains("Subscribed to PostgreSQL") {}
    socket
}

async fn database(stack: &Stack) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&stack.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// From the insert of a row to its event, under a policy.
async fn latency(stack: &Stack) -> Row {
    let mut socket = listener(stack, None).await;
    let database = database(stack).await;
    let insert = database
        .prepare("insert into public.events (owner, room) values ($1::text::uuid, -1)")
        .await
        .unwrap();
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        database.execute(&insert, &[&USER]).await.unwrap();
        while !socket.next().await.unwrap().unwrap().into_text().unwrap().contains("\"INSERT\"") {}
        times.push(began.elapsed());
    }
    let (p50, p95) = (percentile(&mut times, 50), percentile(&mut times, 95));
    let measured = format!("p50 {:.1} ms, p95 {:.1} ms", p50.as_secs_f64() * 1e3, p95.as_secs_f64() * 1e3);
    Row {
        name: "INSERT to event, with RLS",
        measured,
        bound: "p50 ≤ 10 ms",
        kept: p50 <= Duration::from_millis(10),
    }
}

/// 500 sockets with a filter each, 500 changes a second for 10 seconds.
async fn crowd(stack: &Stack) -> Row {
    const SOCKETS: usize = 500;
    const SECONDS: usize = 10;
    const RATE: usize = 500;
    let heard = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for room in 0..SOCKETS {
        let mut socket = listener(stack, Some(format!("room=eq.{room}"))).await;
        let heard = Arc::clone(&heard);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                if message.to_text().is_ok_and(|text| text.contains("\"INSERT\"")) {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let before = memory();
    let database = database(stack).await;
    let insert = database
        .prepare("insert into public.events (owner, room) values ($1::text::uuid, $2)")
        .await
        .unwrap();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for tick in 0..SECONDS * 50 {
        ticks.tick().await;
        for n in 0..RATE / 50 {
            let room = i32::try_from((tick * 10 + n) % SOCKETS).unwrap();
            database.execute(&insert, &[&USER, &room]).await.unwrap();
        }
    }
    let wrote = began.elapsed();
    while heard.load(Ordering::Relaxed) < RATE * SECONDS && began.elapsed() < wrote + Duration::from_secs(30)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let behind = began.elapsed().saturating_sub(wrote);
    let all = heard.load(Ordering::Relaxed) == RATE * SECONDS;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let measured = format!(
        "{} of {} events, the last {:.0} ms after the last INSERT; {:.1} s of writing; {:+} MiB",
        heard.load(Ordering::Relaxed),
        RATE * SECONDS,
        behind.as_secs_f64() * 1e3,
        wrote.as_secs_f64(),
        memory() - before
    );
    let kept = all && behind < Duration::from_secs(1);
    Row {
        name: "500 sockets with a filter each, 500 changes/s",
        measured,
        bound: "all, at most 1 s behind",
        kept,
    }
}

/// This process's memory in MiB, where the system reports it.
fn memory() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or_default() / 1024
}

/// 500 rows in one request.
async fn bulk(stack: &Stack) -> Row {
    let address = stack.api_url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let token = stack.mint_user(USER);
    let mut times = Vec::new();
    for job in 0..60 {
        let rows: Vec<Value> = (0..500)
            .map(|seq| json!({"job": job, "seq": seq, "line": format!("line {seq} of the log")}))
            .collect();
        let body = Value::from(rows).to_string();
        let request = format!(
            "POST /rest/v1/logs?on_conflict=job,seq HTTP/1.1\r\nHost: localhost\r\napikey: {}\r\nAuthorization: Bearer {token}\r\n\
             Prefer: resolution=ignore-duplicates,return=minimal\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            stack.anon_key(),
            body.len()
        );
        let began = Instant::now();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = socket.read(&mut answer).await.unwrap();
        times.push(began.elapsed());
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    let p50 = percentile(&mut times, 50);
    let measured = format!("p50 {:.1} ms", p50.as_secs_f64() * 1e3);
    Row {
        name: "bulk insert of 500 log rows",
        measured,
        bound: "p50 ≤ 10 ms",
        kept: p50 <= Duration::from_millis(10),
    }
}
