//! Thousands of random requests and frames: none ends the server, shows rows of others, or leaves a transaction open.
//!
//! The randomness is seeded: a failure comes again.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::fmt::Write as _;

use futures_util::{SinkExt as _, StreamExt as _};
use supabase_local::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Requests and frames, each.
const COUNT: usize = 10_000;

/// What nobody may see.
const SECRET: &str = "hidden-from-everybody";

const SCHEMA: &str = "
create table public.notes (id int generated always as identity primary key, owner uuid, body text, meta jsonb default '{}');
alter table public.notes enable row level security;
create policy own on public.notes using (owner = auth.uid());
grant all on public.notes to anon, authenticated;
create table public.links (note_id int references public.notes, url text);
grant all on public.links to anon, authenticated;
create function public.twice(n int) returns int language sql as $$ select 2 * n $$;
create function public.fails() returns int language plpgsql as $$ begin raise exception 'no'; end $$;
alter publication supabase_realtime add table public.notes, public.links;
insert into public.notes (owner, body) values ('99999999-9999-4999-8999-999999999999', 'hidden-from-everybody');
";

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// A text of pieces that mean something somewhere, and of some that mean nothing.
    fn text(&mut self, pieces: &[&str]) -> String {
        (0..self.below(6)).map(|_| self.one_of(pieces)).collect()
    }
}

const QUERY: [&str; 48] = [
    "select=",
    "id",
    "body",
    "meta->>a",
    "*",
    ",",
    "(",
    ")",
    "links(",
    "...",
    "!inner",
    "::text",
    "&",
    "=",
    "eq.",
    "not.",
    "in.(",
    "or=",
    "and=",
    "order=",
    ".desc",
    ".nullslast",
    "limit=",
    "offset=",
    "-1",
    "99999999999999999999",
    "%00",
    "%",
    "%ff",
    "\"",
    "\\",
    "'",
    ";--",
    "<",
    ">",
    "{",
    "}",
    "|",
    "é",
    "on_conflict=",
    "columns=",
    "like.",
    "fts.",
    "is.null",
    "owner=",
    "count()",
    ".",
    "notes",
];

const BODIES: [&str; 12] = [
    "",
    "{}",
    "[]",
    "[{}]",
    r#"{"body":"x"}"#,
    r#"[{"body":"x"},{"owner":null}]"#,
    r#"{"n":2}"#,
    r#"{"n":"x"}"#,
    "{",
    "null",
    "\u{0}",
    r#"{"body":"\u0000"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_do_no_harm() {
    let stack = Stack::builder().without_migrations().sql(SCHEMA).start().await.unwrap();
    let address = stack.api_url().replace("http://", "");
    let token = stack.mint_user("11111111-1111-4111-8111-111111111111");
    let key = stack.anon_key().to_owned();
    let senders = (0..8_u64).map(|seed| {
        let (address, token, key) = (address.clone(), token.clone(), key.clone());
        tokio::spawn(async move {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (seed + 1));
            for _ in 0..COUNT / 8 {
                let request = request(&mut random, &key, &token);
                let mut socket = TcpStream::connect(&address).await.expect("somebody listens");
                // The server may have heard enough before the end.
                let _ = socket.write_all(&request).await;
                let mut answer = Vec::new();
                let read = timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
                assert!(read.is_ok(), "no answer to {}", String::from_utf8_lossy(&request));
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains(SECRET), "{}\nshows {answer}", String::from_utf8_lossy(&request));
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    no_transaction_is_open(&stack).await;
    stack.stop().await.unwrap();
}

fn request(random: &mut Random, key: &str, token: &str) -> Vec<u8> {
    let method = random.one_of(&["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "FOO", ""]);
    let path = match random.below(8) {
        0 => format!("/auth/v1/{}", random.one_of(&["token", "user", "signup", "logout", "admin/users", ""])),
        1 => {
            format!("/realtime/v1/api/broadcast{}", random.one_of(&["", "/a/events/b", "/%00/events/", "?"]))
        }
        2 => format!("/{}", random.text(&QUERY)),
        3 => format!("/rest/v1/rpc/{}", random.one_of(&["twice", "fails", "none", "", "twice/"])),
        _ => format!("/rest/v1/{}", random.one_of(&["notes", "links", "none", "", "notes/", "%00", "é"])),
    };
    let query: String = (0..random.below(8)).map(|_| random.one_of(&QUERY)).collect();
    let body = random.one_of(&BODIES);
    let mut head = format!(
        "{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\napikey: {key}\r\n"
    );
    if random.below(2) == 0 {
        write!(head, "Authorization: Bearer {token}\r\n").unwrap();
    }
    let prefer = random.one_of(&[
        "return=representation",
        "count=exact",
        "count=planned",
        "tx=rollback",
        "max-affected=0, handling=strict",
        "x",
    ]);
    write!(head, "Prefer: {prefer}\r\n").unwrap();
    let accept = random.one_of(&["*/*", "application/vnd.pgrst.object+json", "text/csv", "x/y", ""]);
    write!(
        head,
        "Accept: {accept}\r\nContent-Type: {}\r\n",
        random.one_of(&["application/json", "text/csv", "x/y"])
    )
    .unwrap();
    // Sometimes the body is shorter than promised.
    let length = if random.below(20) == 0 { body.len().saturating_sub(1) } else { body.len() };
    write!(head, "Content-Length: {length}\r\n\r\n{body}").unwrap();
    head.into_bytes()
}

const FRAMES: [&str; 34] = [
    "[",
    "]",
    "{",
    "}",
    ",",
    "null",
    "\"1\"",
    "1",
    "\"phoenix\"",
    "\"heartbeat\"",
    "\"realtime:a\"",
    "\"realtime:b\"",
    "\"phx_join\"",
    "\"phx_leave\"",
    "\"broadcast\"",
    "\"presence\"",
    "\"access_token\"",
    ":",
    "\"config\"",
    "\"postgres_changes\"",
    "{\"event\":\"*\",\"schema\":\"public\",\"table\":\"notes\"}",
    "\"filter\":\"id=gt.0\"",
    "true",
    "\"é\"",
    "\\",
    "\"",
    "-1e999",
    "{\"config\":{\"postgres_changes\":[{\"event\":\"*\",\"schema\":\"public\"}]}}",
    "{\"type\":\"broadcast\",\"event\":\"e\",\"payload\":{}}",
    "[null,\"1\",\"phoenix\",\"heartbeat\",{}]",
    "[\"1\",\"1\",\"realtime:a\",\"phx_join\",{\"config\":{\"postgres_changes\":[{\"event\":\"*\",\"schema\":\"public\",\"table\":\"notes\"}]}}]",
    "[\"1\",\"2\",\"realtime:a\",\"broadcast\",{\"type\":\"broadcast\",\"event\":\"e\",\"payload\":{}}]",
    "[\"1\",\"3\",\"realtime:a\",\"presence\",{\"type\":\"presence\",\"event\":\"track\",\"payload\":{}}]",
    "[\"1\",\"4\",\"realtime:a\",\"phx_leave\",{}]",
];

#[tokio::test(flavor = "multi_thread")]
async fn random_frames_do_no_harm() {
    let stack = Stack::builder().without_migrations().sql(SCHEMA).start().await.unwrap();
    let socket = format!(
        "{}/realtime/v1/websocket?apikey={}&vsn=",
        stack.api_url().replace("http", "ws"),
        stack.anon_key()
    );
    let senders = (0..8_u64).map(|seed| {
        let url = format!("{socket}{}", if seed % 2 == 0 { "2.0.0" } else { "1.0.0" });
        tokio::spawn(async move {
            let mut random = Random(0xD1B5_4A32_D192_ED03 ^ (seed + 1));
            let mut sent = 0;
            while sent < COUNT / 8 {
                // A socket may be ended by what it says; the next one is let in.
                let (socket, _) =
                    tokio_tungstenite::connect_async(&url).await.expect("the server lets sockets in");
                let (mut sink, mut heard) = socket.split();
                let listener = tokio::spawn(async move {
                    while let Some(Ok(message)) = heard.next().await {
                        let text = String::from_utf8_lossy(&message.into_data()).into_owned();
                        assert!(!text.contains(SECRET), "{text}");
                    }
                });
                for _ in 0..250 {
                    sent += 1;
                    let whole = random.below(3) > 0;
                    let text =
                        if whole { random.one_of(&FRAMES[29..]).to_owned() } else { random.text(&FRAMES) };
                    let message = match random.below(4) {
                        0 => Message::binary(
                            (0..random.below(40))
                                .map(|_| u8::try_from(random.below(256)).unwrap())
                                .collect::<Vec<_>>(),
                        ),
                        _ => Message::text(text),
                    };
                    if sink.send(message).await.is_err() {
                        break;
                    }
                }
                let _ = sink.close().await;
                listener.await.unwrap();
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let (database, connection) =
        tokio_postgres::connect(&stack.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        database.batch_execute("update public.notes set meta = '{}' where true").await.unwrap();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    no_transaction_is_open(&stack).await;
    stack.stop().await.unwrap();
}

/// Nobody of the server's own is in the middle of a transaction.
async fn no_transaction_is_open(stack: &Stack) {
    let (database, connection) =
        tokio_postgres::connect(&stack.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    // A request whose client is gone is rolled back a moment later.
    while database.query_one(open, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "a transaction stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
