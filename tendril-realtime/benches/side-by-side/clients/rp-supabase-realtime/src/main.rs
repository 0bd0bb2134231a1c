//! rp-supabase-realtime: `typed_changes` over the connection that can carry several channels (`RealtimeConnection` opens one
//! websocket for each, and wants a sign-in first).

use std::{collections::HashMap, pin::pin};

use bench_meter::{Meter, Next, Plan, Row};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use rp_supabase_realtime::{
    ConnectionOptions, ConnectionStatus,
    error::SupabaseRealtimeError,
    futures::channel::mpsc,
    message::{ProtocolMessage, postgres_changes::PostgresChange},
    realtime::{RealtimeBaseConnection, typed_changes},
    url::Url,
};
use tokio::time::{Duration, sleep, timeout};

type Change = Result<PostgresChange<Row>, SupabaseRealtimeError>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_environment();
    let mut meter = Meter::new(&plan);
    let url = Url::parse(&format!("{}/realtime/v1/websocket?apikey=key&vsn=1.0.0", plan.url)).expect("a URL");
    let options = ConnectionOptions { heartbeat_interval: plan.heartbeat, ..ConnectionOptions::default() };
    let (mut orders, inbox) = mpsc::channel(128);
    let stream = RealtimeBaseConnection::new(url)
        .with_options(options)
        .connect::<mpsc::Receiver<Result<ProtocolMessage, SupabaseRealtimeError>>>(inbox)
        .await
        .expect("a connection");
    let mut status = stream.status();
    let mut changes = pin!(typed_changes::<Row>(stream));
    for number in 0..plan.channels {
        orders.send(Ok(join(&plan, number))).await.expect("a join");
        if plan.weighs_channels() && (number == 0 || number + 1 == plan.channels) {
            // Replies have to be taken, or the driver stands still.
            let _ = timeout(Duration::from_millis(500), changes.next()).await;
            status.wait_for(|status| *status == ConnectionStatus::Ready).await.expect("ready");
            meter.weigh();
        }
    }
    if !plan.weighs_channels() {
        let _ = timeout(plan.deadline(), read(changes, &mut meter)).await;
    }
    meter.report()
}

fn join(plan: &Plan, number: usize) -> ProtocolMessage {
    let message: HashMap<&str, serde_json::Value> = HashMap::from([
        ("topic", format!("realtime:{}", plan.channel(number)).into()),
        ("event", "phx_join".into()),
        (
            "payload",
            serde_json::json!({"config": {
                "private": false,
                "broadcast": {"self": false, "ack": false},
                "presence": {"enabled": false, "key": ""},
                "postgres_changes": [{"event": "*", "schema": "public", "table": "deployments"}],
            }}),
        ),
    ]);
    serde_json::from_value(serde_json::json!(message)).expect("a message")
}

async fn read(mut changes: impl Stream<Item = Change> + Unpin, meter: &mut Meter) {
    while let Some(change) = changes.next().await {
        match change {
            Ok(PostgresChange::Insert { record, .. }) => match meter.row(&record) {
                Next::Read => {}
                Next::Sleep(pause) => {
                    sleep(pause).await;
                    return meter.woke();
                }
                Next::Stop => return meter.end(),
            },
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}
