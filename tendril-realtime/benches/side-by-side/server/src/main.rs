//! A Realtime server as far as a benchmark needs one: it accepts joins, answers heartbeats, and sends INSERT frames that were
//! serialised before, in the shape that the real server's have.
//!
//! `bench-server EVENTS RATE CUT_EVERY`: so many events, at so many a second (0: as fast as they are taken), and after each
//! `CUT_EVERY` of them the TCP connection is cut (0: never). The events go to the first channel that is joined.
//!
//! It prints `port N` first, and then a line for each thing that happens, with the milliseconds since its start:
//! `connected`, `joined`, `heartbeat`, `cut`, `gone`, `sent` (all of them).

mod frame;
mod plan;

use std::io::Write as _;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::Role,
    },
};

use crate::{
    frame::{Event, Version},
    plan::{Plan, Turn},
};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, listen());
}

async fn listen() {
    let plan = Plan::from_arguments();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    say(&format!("port {}", listener.local_addr().expect("an address").port()));
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let plan = plan.clone();
        tokio::task::spawn_local(async move {
            if serve(tcp, &plan).await.is_none() {
                plan.note("gone");
            }
        });
    }
}

/// What the reading half asks of the writing half.
enum Order {
    Frame(Vec<u8>),
    /// Rows may flow to this channel from now on.
    Flow(Event),
}

async fn serve(tcp: TcpStream, plan: &Plan) -> Option<()> {
    tcp.set_nodelay(true).ok()?;
    let mut version = Version::V1;
    let look = |request: &Request, response: Response| {
        if request.uri().query().unwrap_or_default().contains("vsn=2.0.0") {
            version = Version::V2;
        }
        Ok(response)
    };
    let websocket = tokio_tungstenite::accept_hdr_async(tcp, look).await.ok()?;
    let first = plan.connected();
    // From here on frames are written as bytes; only reading goes through the websocket.
    let (reader, writer) = websocket.into_inner().into_split();
    let reader = tokio::io::join(reader, tokio::io::sink());
    let mut incoming = WebSocketStream::from_raw_socket(reader, Role::Server, None).await;
    let (orders, inbox) = mpsc::unbounded_channel();
    let writing = tokio::task::spawn_local(write(writer, inbox, plan.clone(), first));
    let mut flows = false;
    while let Some(Ok(message)) = incoming.next().await {
        match message {
            Message::Text(text) => {
                for order in answer(&text, version, plan, &mut flows) {
                    let _ = orders.send(order);
                }
            }
            Message::Ping(payload) => drop(orders.send(Order::Frame(frame::encode(0x8a, &payload)))),
            Message::Close(_) => break,
            _ => {}
        }
    }
    plan.note("gone");
    writing.abort();
    Some(())
}

/// Joins and heartbeats are answered, everything else is not.
fn answer(text: &str, version: Version, plan: &Plan, flows: &mut bool) -> Vec<Order> {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let part = |place: usize, name: &str| match version {
        Version::V2 => message[place].clone(),
        Version::V1 => message[name].clone(),
    };
    let (join_ref, reference) = (part(0, "join_ref"), part(1, "ref"));
    let (topic, event, payload) = (part(2, "topic"), part(3, "event"), part(4, "payload"));
    let mut orders = Vec::new();
    let mut say = |join_ref: &Value, reference: &Value, event: &str, payload: Value| {
        let text = version.message(join_ref, reference, &topic, event, &payload);
        orders.push(Order::Frame(frame::encode(0x81, text.as_bytes())));
    };
    match event.as_str() {
        Some("heartbeat") => {
            plan.note("heartbeat");
            say(&Value::Null, &reference, "phx_reply", serde_json::json!({"status": "ok", "response": {}}));
        }
        Some("phx_join") => {
            let mut bindings =
                payload["config"]["postgres_changes"].as_array().cloned().unwrap_or_default();
            for (place, binding) in bindings.iter_mut().enumerate() {
                binding["id"] = (frame::BINDING + place as u64).into();
            }
            let response = serde_json::json!({"postgres_changes": bindings});
            say(&join_ref, &reference, "phx_reply", serde_json::json!({"status": "ok", "response": response}));
            let name = topic.as_str().unwrap_or_default().trim_start_matches("realtime:");
            let system = serde_json::json!({
                "message": "Subscribed to PostgreSQL", "status": "ok", "extension": "postgres_changes", "channel": name,
            });
            say(&join_ref, &Value::Null, "system", system);
            plan.note("joined");
            // A client that joins twice does not get everything twice.
            if !std::mem::replace(flows, true) {
                orders.push(Order::Flow(Event::new(version, topic.as_str().unwrap_or_default())));
            }
        }
        _ => {}
    }
    orders
}

/// Writes answers as they come and rows as the plan wants them.
async fn write(
    mut tcp: OwnedWriteHalf,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    plan: Plan,
    first: bool,
) -> Option<()> {
    let mut event = None;
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            biased;
            order = inbox.recv() => match order? {
                Order::Frame(frame) => tcp.write_all(&frame).await.ok()?,
                Order::Flow(shape) => {
                    event = Some(shape);
                    plan.start(first).await;
                }
            },
            turn = plan.turn(), if event.is_some() => match turn {
                Turn::Send(ids) => {
                    buffer.clear();
                    let last = ids.end - 1;
                    if let Some(event) = &mut event {
                        for id in ids {
                            buffer.extend_from_slice(event.frame(id, plan.stamp()));
                        }
                    }
                    tcp.write_all(&buffer).await.ok()?;
                    plan.sent(last);
                }
                Turn::Cut => {
                    plan.cut();
                    // The socket is closed when the reading half sees its end: this ends both directions.
                    tcp.shutdown().await.ok()?;
                    return Some(());
                }
                Turn::Done => {
                    event = None;
                    plan.note("sent");
                }
            },
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
