//! One connection: HTTP requests until one is an upgrade, then messages.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, time::sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

use crate::{
    channel::{Joined, percent_decoded},
    fault::{Answer, Point},
    frame::{self, Inbound, Outbound, Version},
    http::{self, HttpAnswer, HttpRequest},
    journal::Event,
    shared::{Shared, system},
};

/// From the rest of the server to a connection.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Message),
    SendLater(Duration, Message),
    Close(u16),
    Cut,
    Stall(bool),
}

/// Serves a TCP connection until it ends.
pub(crate) async fn serve(
    stream: TcpStream,
    id: u64,
    mut commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
) {
    let opened = tokio::select! {
        opened = open(stream, id, &shared) => opened,
        () = cut(&mut commands) => None,
    };
    if let Some((socket, version, ends)) = opened {
        shared.upgraded(id, version);
        if let Some(code) = ends {
            shared.command(id, Command::Close(code));
        }
        exchange(socket, id, commands, &shared).await;
    }
    shared.ended(id);
}

/// Resolves when the connection is to end.
async fn cut(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, Command::Cut | Command::Close(_)) {
            return;
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

/// Answers HTTP requests until one of them makes a websocket of the connection.
async fn open(
    mut stream: TcpStream,
    id: u64,
    shared: &Arc<Shared>,
) -> Option<(Socket, Version, Option<u16>)> {
    match shared.faults.strike(|point| *point == Point::Accept) {
        None => {}
        Some(Answer::Delay(pause)) => sleep(pause).await,
        Some(Answer::Silence) => pending().await,
        Some(_) => return None,
    }
    let mut held = Vec::new();
    loop {
        let request = http::read(&mut stream, &mut held).await.ok()??;
        if request.is_upgrade() {
            return upgrade(stream, held, &request, id, shared).await;
        }
        shared.note(id, Event::Http(request.clone()));
        let struck = shared.faults.strike(
            |point| matches!(point, Point::Http(prefix) if request.target.starts_with(prefix.as_str())),
        );
        match struck {
            None => {}
            Some(Answer::Http(answer)) => {
                http::write(&mut stream, &answer).await.ok()?;
                continue;
            }
            Some(Answer::Delay(pause)) => sleep(pause).await,
            Some(Answer::Silence) => pending().await,
            Some(_) => return None,
        }
        let answer = answer(&request, shared);
        http::write(&mut stream, &answer).await.ok()?;
    }
}

async fn upgrade(
    mut stream: TcpStream,
    held: Vec<u8>,
    request: &HttpRequest,
    id: u64,
    shared: &Arc<Shared>,
) -> Option<(Socket, Version, Option<u16>)> {
    let mut ends = None;
    match shared.faults.strike(|point| *point == Point::Upgrade) {
        None => {}
        Some(Answer::Http(answer)) => {
            http::write(&mut stream, &answer.header("connection", "close")).await.ok()?;
            let _ = stream.shutdown().await;
            return None;
        }
        Some(Answer::Delay(pause)) => sleep(pause).await,
        Some(Answer::Silence) => pending().await,
        Some(Answer::Close(code)) => ends = Some(code),
        Some(_) => return None,
    }
    let version = match request.query("vsn") {
        None | Some("1.0.0") => Version::V1,
        Some("2.0.0") => Version::V2,
        Some(_) => {
            http::write(&mut stream, &HttpAnswer::new(403)).await.ok()?;
            return None;
        }
    };
    let key = derive_accept_key(request.header("sec-websocket-key")?.as_bytes());
    let date = httpdate::fmt_http_date(shared.now());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {key}\r\ndate: {date}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    shared.note(id, Event::Upgraded { target: request.target.clone(), headers: request.headers.clone() });
    let socket = WebSocketStream::from_partially_read(stream, held, Role::Server, None).await;
    Some((socket, version, ends))
}

/// The HTTP side: broadcasts, and whatever the test answers.
fn answer(request: &HttpRequest, shared: &Shared) -> HttpAnswer {
    if let Some(rest) = request.path().strip_prefix("/realtime/v1/api/broadcast") {
        return broadcast_over_http(rest, request, shared);
    }
    match shared.handler() {
        Some(handler) => handler(request),
        None => HttpAnswer::new(404).json(&json!({"message": "the test kit has no answer to this"})),
    }
}

fn broadcast_over_http(rest: &str, request: &HttpRequest, shared: &Shared) -> HttpAnswer {
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return HttpAnswer::new(400).json(&json!({"message": "the body is no JSON"}));
    };
    let send = |topic: &str, event: &str, payload: &Value, private: bool| {
        let message = json!({"type": "broadcast", "event": event, "payload": payload});
        for joined in shared.joined(topic).iter().filter(|joined| joined.private == private) {
            shared.event(joined.connection, &Outbound::new(&joined.topic, "broadcast", message.clone()));
        }
    };
    let segments: Vec<String> = rest.split('/').skip(1).map(percent_decoded).collect();
    match segments.as_slice() {
        [] => {
            for message in body["messages"].as_array().into_iter().flatten() {
                let text = |key: &str| message[key].as_str().unwrap_or_default();
                let private = message["private"].as_bool().unwrap_or_default();
                send(text("topic"), text("event"), &message["payload"], private);
            }
            HttpAnswer::new(202)
        }
        [topic, events, event] if events == "events" => {
            send(topic, event, &body, request.query("private") == Some("true"));
            HttpAnswer::new(202)
        }
        _ => HttpAnswer::new(404),
    }
}

/// Reads messages and writes what is due, until the connection ends.
async fn exchange(
    mut socket: Socket,
    id: u64,
    mut commands: mpsc::UnboundedReceiver<Command>,
    shared: &Arc<Shared>,
) {
    let mut held = VecDeque::new();
    let mut stalled = false;
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None | Some(Command::Cut) => return,
                Some(Command::Stall(wanted)) => {
                    stalled = wanted;
                    for message in held.drain(..) {
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Command::Send(message)) if stalled => held.push_back(message),
                Some(Command::Send(message)) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                Some(Command::SendLater(pause, message)) => {
                    let shared = Arc::clone(shared);
                    tokio::spawn(async move {
                        sleep(pause).await;
                        shared.command(id, Command::Send(message));
                    });
                }
                Some(Command::Close(code)) => {
                    let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await;
                    // The other side's answer ends it.
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
            },
            message = socket.next(), if !stalled => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(message)) => {
                    if let Some(inbound) = frame::decode(&message) {
                        handle(inbound, id, shared);
                    }
                }
            },
        }
    }
}

fn handle(inbound: Inbound, id: u64, shared: &Arc<Shared>) {
    match (inbound.topic.as_str(), inbound.event.as_str()) {
        ("phoenix", "heartbeat") => heartbeat(&inbound, id, shared),
        (_, "phx_join") => {
            shared.note(id, Event::Join { topic: inbound.topic.clone(), payload: inbound.payload.clone() });
            join(inbound, id, shared);
        }
        (_, "phx_leave") => leave(&inbound, id, shared),
        (_, "access_token") => {
            let token = inbound.payload["access_token"].as_str().unwrap_or_default().to_owned();
            shared.note(id, Event::Token { topic: inbound.topic, token });
        }
        _ => push(&inbound, id, shared),
    }
}

fn reply(inbound: &Inbound, status: &str, response: impl Into<Value>) -> Outbound {
    let response: Value = response.into();
    Outbound::new(&inbound.topic, "phx_reply", json!({"status": status, "response": response}))
        .of(inbound.join_ref.as_deref())
        .answering(inbound.reference.as_deref())
}

fn heartbeat(inbound: &Inbound, id: u64, shared: &Arc<Shared>) {
    shared.note(id, Event::Heartbeat);
    let answer = reply(inbound, "ok", json!({}));
    match shared.faults.strike(|point| *point == Point::Heartbeat) {
        Some(Answer::Silence) => {}
        Some(Answer::Delay(pause)) => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                sleep(pause).await;
                shared.send(id, &answer);
            });
        }
        Some(Answer::Cut) => shared.command(id, Command::Cut),
        Some(Answer::Close(code)) => {
            shared.send(id, &answer);
            shared.command(id, Command::Close(code));
        }
        _ => shared.send(id, &answer),
    }
}

fn join(inbound: Inbound, id: u64, shared: &Arc<Shared>) {
    let sub_topic = inbound.topic.strip_prefix("realtime:").unwrap_or_default().to_owned();
    let struck = shared.faults.strike(|point| match point {
        Point::Join => true,
        Point::JoinOf(topic) => *topic == sub_topic,
        _ => false,
    });
    match struck {
        Some(Answer::Silence) => {}
        Some(Answer::Refuse(reason)) => shared.send(id, &reply(&inbound, "error", json!({"reason": reason}))),
        Some(Answer::Cut) => shared.command(id, Command::Cut),
        Some(Answer::Delay(pause)) => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                sleep(pause).await;
                announce(&accepted(&inbound, id, &shared), &shared);
            });
        }
        Some(Answer::NeverSubscribed) => drop(accepted(&inbound, id, shared)),
        Some(Answer::SubscribeError(message)) => {
            let joined = accepted(&inbound, id, shared);
            changes_failed(&joined, &message, shared);
        }
        Some(Answer::Crash) => shared.end(&accepted_and_announced(&inbound, id, shared), "phx_error", None),
        Some(Answer::End(message)) => {
            shared.end(&accepted_and_announced(&inbound, id, shared), "phx_close", Some(&message));
        }
        Some(Answer::Close(code)) => {
            accepted_and_announced(&inbound, id, shared);
            shared.command(id, Command::Close(code));
        }
        None | Some(Answer::Http(_) | Answer::Duplicate) => {
            drop(accepted_and_announced(&inbound, id, shared));
        }
    }
}

fn accepted_and_announced(inbound: &Inbound, id: u64, shared: &Shared) -> Joined {
    let joined = accepted(inbound, id, shared);
    announce(&joined, shared);
    joined
}

/// The reply, and the end of an older channel of that name.
fn accepted(inbound: &Inbound, id: u64, shared: &Shared) -> Joined {
    let (joined, old) = shared.join(id, &inbound.topic, inbound.join_ref.as_deref(), &inbound.payload);
    shared.send(id, &reply(inbound, "ok", json!({"postgres_changes": joined.echo()})));
    if let Some(old) = old {
        let join_ref = old.join_ref.as_deref();
        shared.send(id, &Outbound::new(&old.topic, "phx_close", json!({})).of(join_ref).answering(join_ref));
    }
    if joined.presence_enabled {
        let state = shared.presence_state(&joined.topic);
        shared
            .send(id, &Outbound::new(&joined.topic, "presence_state", state).of(joined.join_ref.as_deref()));
    }
    if inbound.payload["config"]["broadcast"]["replication_ready"] == true {
        let message = "Replication connection established";
        let payload = system(joined.sub_topic(), "system", "ok", message);
        shared.send(id, &Outbound::new(&joined.topic, "system", payload).of(joined.join_ref.as_deref()));
    }
    joined
}

/// Row changes flow, or do not.
fn announce(joined: &Joined, shared: &Shared) {
    if joined.bindings.is_empty() {
        return;
    }
    if let Some(refusal) = joined.refusal() {
        let message = format!("Unable to subscribe to changes with given parameters: {refusal}");
        changes_failed(joined, &message, shared);
        return;
    }
    let payload = system(joined.sub_topic(), "postgres_changes", "ok", "Subscribed to PostgreSQL");
    let message = Outbound::new(&joined.topic, "system", payload).of(joined.join_ref.as_deref());
    shared.send(joined.connection, &message);
}

fn changes_failed(joined: &Joined, message: &str, shared: &Shared) {
    let payload = system(joined.sub_topic(), "postgres_changes", "error", message);
    let message = Outbound::new(&joined.topic, "system", payload).of(joined.join_ref.as_deref());
    shared.send(joined.connection, &message);
}

fn leave(inbound: &Inbound, id: u64, shared: &Arc<Shared>) {
    shared.note(id, Event::Leave { topic: inbound.topic.clone() });
    match shared.faults.strike(|point| *point == Point::Leave) {
        Some(Answer::Silence) => return,
        Some(Answer::Cut) => return shared.command(id, Command::Cut),
        _ => {}
    }
    shared.remove(id, &inbound.topic);
    shared.send(id, &reply(inbound, "ok", json!({})));
    let join_ref = inbound.join_ref.as_deref();
    shared.send(id, &Outbound::new(&inbound.topic, "phx_close", json!({})).of(join_ref).answering(join_ref));
}

/// Broadcasts and presence.
fn push(inbound: &Inbound, id: u64, shared: &Arc<Shared>) {
    shared.note(
        id,
        Event::Push {
            topic: inbound.topic.clone(),
            event: inbound.event.clone(),
            payload: inbound.payload.clone(),
        },
    );
    let Some(joined) = shared.channel(id, &inbound.topic) else {
        shared.send(id, &reply(inbound, "error", json!({"reason": "unmatched topic"})).of(None));
        return;
    };
    match shared.faults.strike(|point| *point == Point::Push) {
        None => {}
        Some(Answer::Silence) => return,
        Some(Answer::Cut) => return shared.command(id, Command::Cut),
        Some(Answer::Refuse(reason)) => {
            return shared.send(id, &reply(inbound, "error", json!({"reason": reason})));
        }
        Some(Answer::Crash) => return shared.end(&joined, "phx_error", None),
        Some(_) => {}
    }
    if inbound.event == "presence" {
        let state = (inbound.payload["event"] == "track").then(|| inbound.payload["payload"].clone());
        shared.track(&joined, state);
        shared.send(id, &reply(inbound, "ok", json!({})));
        return;
    }
    for other in shared.joined(joined.sub_topic()) {
        let is_own = other.connection == id;
        if other.private != joined.private || (is_own && !joined.receive_own) {
            continue;
        }
        if let Some(bytes) = &inbound.bytes {
            let event = inbound.payload["event"].as_str().unwrap_or_default();
            shared.event_message(
                other.connection,
                &frame::binary_broadcast(&other.topic, event, "", false, bytes),
            );
        } else {
            let message = Outbound::new(&other.topic, &inbound.event, inbound.payload.clone());
            shared.event(other.connection, &message);
        }
    }
    if joined.ack {
        shared.send(id, &reply(inbound, "ok", json!({})));
    }
}
