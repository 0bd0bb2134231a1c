//! Row changes of a table, one JSON object a line.
//!
//! ```text
//! cargo run -p tendril-examples --example listen -- --url http://127.0.0.1:54321 --key $ANON_KEY --table public.deployments
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `{"type":"status","phase":…}` | where the connection stands |
//! | `{"type":"ready"}` | rows flow from now on |
//! | `{"type":"insert","new":{…}}` and `update`, `delete` | a row changed; `errors` names what the server left out |
//! | `{"type":"resync","reason":…}` | rows may have been missed before this line |
//! | `{"type":"error","code":…,"message":…,"retry":…}` | with `"retry":true` the program continues by itself |

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use futures_util::StreamExt as _;
use serde_json::{json, value::RawValue};
use tendril_realtime::{
    AccessToken, ChangeEvent, ChangeKind, Client, Error, Phase, PostgresChanges, PostgresEvent,
    ProtocolVersion, ResyncReason, Retry, Status,
};
use tokio::signal::unix::{SignalKind, signal};

/// Prints row changes of a table as they happen, one JSON object a line.
#[derive(Parser)]
struct Options {
    /// The project's base URL, such as <https://ref.supabase.co>; a full ws(s)://…/websocket address is taken too.
    #[arg(long, env = "SUPABASE_URL")]
    url: String,
    /// An API key of the project.
    #[arg(long, env = "SUPABASE_ANON_KEY", hide_env_values = true)]
    key: String,
    /// The JWT to listen with; without one, the API key is used.
    #[arg(long, hide_env_values = true)]
    token: Option<String>,
    /// The protocol's version: 2.0.0 or 1.0.0.
    #[arg(long, default_value = "2.0.0", value_parser = version)]
    vsn: ProtocolVersion,
    /// The table, as schema.table; `schema.*` for all tables of a schema.
    #[arg(long, value_parser = table)]
    table: (String, String),
    /// INSERT, UPDATE, DELETE, or * for all.
    #[arg(long, default_value = "*", value_parser = event)]
    event: PostgresEvent,
    /// A row filter, such as `cluster_id=eq.c1`.
    #[arg(long)]
    filter: Option<String>,
    /// Only these columns, comma-separated.
    #[arg(long, value_delimiter = ',')]
    select: Vec<String>,
    /// Ends after so many changes.
    #[arg(long)]
    count: Option<u64>,
}

fn version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "2.0.0" | "2" => Ok(ProtocolVersion::V2),
        "1.0.0" | "1" => Ok(ProtocolVersion::V1),
        other => Err(format!("`{other}` is no version of the protocol: 2.0.0 or 1.0.0")),
    }
}

fn event(text: &str) -> Result<PostgresEvent, String> {
    match text.to_ascii_uppercase().as_str() {
        "*" => Ok(PostgresEvent::All),
        "INSERT" => Ok(PostgresEvent::Insert),
        "UPDATE" => Ok(PostgresEvent::Update),
        "DELETE" => Ok(PostgresEvent::Delete),
        other => Err(format!("`{other}` is no event: INSERT, UPDATE, DELETE or *")),
    }
}

fn table(text: &str) -> Result<(String, String), String> {
    let (schema, table) = text.split_once('.').unwrap_or(("public", text));
    if schema.is_empty() || table.is_empty() {
        return Err("expected schema.table".to_owned());
    }
    Ok((schema.to_owned(), table.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone (`| head`) is no error.
        Err(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(End::Output(error)) => {
            eprintln!("cannot write: {error}");
            ExitCode::FAILURE
        }
        Err(End::Final(error)) => {
            let _ = print_error(&error);
            ExitCode::FAILURE
        }
    }
}

enum End {
    Final(Error),
    Output(io::Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

async fn run(options: Options) -> Result<(), End> {
    let mut builder = Client::builder(options.url, options.key).protocol_version(options.vsn);
    if let Some(token) = options.token {
        builder = builder.token_source(AccessToken::new(token)?);
    }
    let client = builder.build()?;
    let (schema, table) = options.table;
    let topic = format!("{schema}:{table}");
    let mut request =
        if table == "*" { PostgresChanges::in_schema(schema) } else { PostgresChanges::on(schema, table) }
            .event(options.event);
    if let Some(filter) = options.filter {
        request = request.filter_text(filter);
    }
    request = request.select(options.select);

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut status = client.status();
    let (mut events, ready) = client.channel(&topic).postgres_changes::<Box<RawValue>>(request).start()?;
    tokio::pin!(ready);
    let mut is_ready = false;
    let mut is_client_there = true;
    let mut last_status = None;
    let mut left = options.count;
    while left != Some(0) {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            answer = &mut ready, if !is_ready => {
                is_ready = true;
                // The stream reports a refusal, after what came before it.
                if answer.is_ok() {
                    print(&json!({"type": "ready"}))?;
                }
            }
            // An error here means that the client is gone: the stream ends with the reason.
            changed = status.changed(), if is_client_there => {
                is_client_there = changed.is_ok();
                if is_client_there {
                    let now = status.borrow_and_update().clone();
                    let line = status_line(&now);
                    // The status also counts channels and heartbeats; its connection may be unchanged.
                    if last_status.as_ref() != Some(&line) {
                        print(&line)?;
                        last_status = Some(line);
                    }
                }
            }
            event = events.next() => match event {
                None => break,
                Some(Ok(event)) => {
                    if print_event(event)? {
                        left = left.map(|left| left - 1);
                    }
                }
                // The last item is the reason of the end.
                Some(Err(error)) => return Err(error.into()),
            },
        }
    }
    client.shutdown().await;
    Ok(())
}

/// Returns whether it was a change.
fn print_event(event: ChangeEvent<Box<RawValue>>) -> io::Result<bool> {
    match event {
        ChangeEvent::Insert(row) => print_change("insert", Some(row.raw().json()), None, &[])?,
        ChangeEvent::Update { new, old } => {
            print_change("update", Some(new.raw().json()), Some(old.json()), &[])?;
        }
        ChangeEvent::Delete { old } => print_change("delete", None, Some(old.json()), &[])?,
        ChangeEvent::Incomplete { kind, new, old, errors } => match kind {
            ChangeKind::Insert => print_change("insert", Some(new.json()), None, &errors)?,
            ChangeKind::Update => print_change("update", Some(new.json()), Some(old.json()), &errors)?,
            // Deletes, and kinds of a later version.
            _ => print_change("delete", None, Some(old.json()), &errors)?,
        },
        ChangeEvent::Resync(reason) => {
            let reason = match reason {
                ResyncReason::Reconnected => "reconnected",
                ResyncReason::Rejoined => "rejoined",
                ResyncReason::Resubscribed => "resubscribed",
                ResyncReason::TokenRenewed => "token_renewed",
                _ => "other",
            };
            print(&json!({"type": "resync", "reason": reason}))?;
            return Ok(false);
        }
        ChangeEvent::Interrupted(error) => {
            print_error(&error)?;
            return Ok(false);
        }
        ChangeEvent::Lagged(missed) => {
            print(&json!({"type": "resync", "reason": "lagged", "missed": missed}))?;
            return Ok(false);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The rows are printed as they came: every digit of every number.
fn print_change(kind: &str, new: Option<&str>, old: Option<&str>, errors: &[String]) -> io::Result<()> {
    let rows = [("old", old), ("new", new)].into_iter().filter_map(|(name, row)| Some((name, row?)));
    let rows = rows.map(|(name, row)| format!(",\"{name}\":{}", row.replace(['\n', '\r'], " ")));
    let errors = (!errors.is_empty()).then(|| format!(",\"errors\":{}", json!(errors)));
    let line: String = std::iter::once(format!("{{\"type\":\"{kind}\""))
        .chain(rows)
        .chain(errors)
        .chain(["}".to_owned()])
        .collect();
    print_line(&line)
}

fn status_line(status: &Status) -> serde_json::Value {
    let mut line =
        json!({"type": "status", "phase": status.phase.name(), "live": status.subscribed_channels > 0});
    if let Phase::Backoff { attempt, retry_at } = status.phase {
        let pause = retry_at.saturating_duration_since(tokio::time::Instant::now());
        line["attempt"] = attempt.into();
        line["next_try_ms"] = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).into();
    }
    if let (Some(error), false) = (&status.last_error, status.is_connected()) {
        line["reason"] = error.to_string().into();
    }
    line
}

fn print_error(error: &Error) -> io::Result<()> {
    let retry = error.retry() != Retry::Never;
    print(&json!({"type": "error", "code": error.code(), "message": format!("{error:#}"), "retry": retry}))
}

fn print(line: &serde_json::Value) -> io::Result<()> {
    print_line(&line.to_string())
}

fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
