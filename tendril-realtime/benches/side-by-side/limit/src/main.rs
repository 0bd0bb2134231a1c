//! The least that a client in Rust can do: one loop that reads frames with tokio-tungstenite and parses the typed row. It has no
//! reconnect, no heartbeat, no routing, no hand-over to another task; what a library adds to it is the library's own cost.

use bench_meter::{Meter, Next, Plan, Row};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Message;

/// `[join_ref, ref, topic, event, payload]` of a row change.
#[derive(Deserialize)]
#[expect(dead_code, reason = "an array has no gaps")]
struct Frame<'a>(Option<&'a str>, Option<&'a str>, &'a str, &'a str, Payload);

#[derive(Deserialize)]
struct Payload {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    record: Row,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_environment();
    let mut meter = Meter::new(&plan);
    let _ = tokio::time::timeout(plan.deadline(), read(&plan, &mut meter)).await;
    meter.report()
}

async fn read(plan: &Plan, meter: &mut Meter) {
    let url = format!("{}/realtime/v1/websocket?apikey=key&vsn=2.0.0", plan.url.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a connection");
    let topic = plan.channel(0);
    let join = format!(
        r#"["1","1","realtime:{topic}","phx_join",{{"config":{{"broadcast":{{"ack":false,"self":false}},"presence":{{"enabled":false,"key":""}},"postgres_changes":[{{"event":"*","schema":"public","table":"deployments"}}],"private":false}}}}]"#
    );
    socket.send(Message::text(join)).await.expect("a join");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(Frame(_, _, _, "postgres_changes", payload)) = serde_json::from_str::<Frame<'_>>(&text) else { continue };
        if meter.row(&payload.data.record) == Next::Stop {
            return meter.end();
        }
    }
}
