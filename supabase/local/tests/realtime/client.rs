//! A websocket client that shows frames as they are.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use supabase_local::Stack;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// Longer than anything here takes on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// One socket.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How a socket ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed(u16),
    /// Without a close frame.
    Broken,
}

impl Client {
    /// Opens a socket, or gives the refusal.
    pub(crate) async fn open(url: &str) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        match Self::dial(url).await {
            Ok(client) => Ok(client),
            Err(Error::Http(response)) => Err(response),
            Err(error) => panic!("no HTTP answer: {error}"),
        }
    }

    /// Opens a socket, or gives the error, whatever it is.
    pub(crate) async fn dial(url: &str) -> Result<Self, Error> {
        Self::dial_with(url, &[]).await
    }

    /// Opens a socket with headers of the upgrade, `Host` among them.
    pub(crate) async fn dial_with(url: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header's name");
            request.headers_mut().insert(name, value.parse().expect("a header's value"));
        }
        let dialling = timeout(TIME_LIMIT, connect_async_with_config(request, None, true));
        dialling.await.expect("an answer to the upgrade").map(|(socket, _)| Self { socket })
    }

    /// A socket of version 2.0.0 with the anon key.
    pub(crate) async fn connect(stack: &Stack) -> Self {
        let url = websocket_url(stack, &format!("apikey={}&vsn=2.0.0", stack.anon_key()));
        Self::open(&url).await.expect("the socket opens")
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the frame is sent");
    }

    /// Sends a text that the server may cut short.
    pub(crate) async fn send_unchecked(&mut self, text: String) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).await.expect("the frame is sent");
    }

    pub(crate) async fn send_json(&mut self, frame: Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    /// The next text or binary frame.
    pub(crate) async fn receive(&mut self) -> Message {
        loop {
            let message = timeout(TIME_LIMIT, self.socket.next()).await.expect("a frame arrives in time");
            match message.expect("the socket is open").expect("the socket works") {
                message @ (Message::Text(_) | Message::Binary(_)) => return message,
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The next frame as JSON.
    pub(crate) async fn receive_json(&mut self) -> Value {
        let message = self.receive().await;
        serde_json::from_str(message.to_text().expect("a text frame")).expect("JSON")
    }

    /// How the socket ends; frames before are passed over.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            match timeout(TIME_LIMIT, self.socket.next()).await.expect("the socket ends in time") {
                Some(Ok(Message::Close(Some(frame)))) => return End::Closed(frame.code.into()),
                Some(Ok(Message::Close(None))) => return End::Closed(1005),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return End::Broken,
            }
        }
    }

    /// Joins `realtime:<name>` with bindings as the holder of a token, and waits until rows flow.
    pub(crate) async fn subscribe(&mut self, name: &str, bindings: Value, token: &str) {
        let payload = json!({"config": {"postgres_changes": bindings}, "access_token": token});
        self.send_json(json!(["1", "1", format!("realtime:{name}"), "phx_join", payload])).await;
        assert_eq!(self.receive_json().await[4]["status"], "ok");
        assert_eq!(self.receive_json().await[4]["message"], "Subscribed to PostgreSQL");
    }

    /// Sends a heartbeat and waits for its answer; whatever came before is returned.
    pub(crate) async fn fence(&mut self) -> Vec<Value> {
        self.send_json(json!([null, "fence", "phoenix", "heartbeat", {}])).await;
        let mut before = Vec::new();
        loop {
            let frame = self.receive_json().await;
            if frame[1] == "fence" {
                return before;
            }
            before.push(frame);
        }
    }
}

/// The websocket of a stack with a query.
pub(crate) fn websocket_url(stack: &Stack, query: &str) -> String {
    format!("{}/realtime/v1/websocket?{query}", stack.api_url().replacen("http", "ws", 1))
}

/// A connection of the superuser.
pub(crate) async fn admin(stack: &Stack) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&stack.admin_url(), tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}
