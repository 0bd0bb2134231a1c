//! supabase-client-realtime: a callback on the task that reads the socket. The row comes as a `Value` and is made typed here.
//! A consumer that waits cannot wait in the callback, so the stalled run has a queue between the two, as a user would.

use std::sync::{Arc, Mutex};

use bench_meter::{Meter, Next, Plan, Row};
use supabase_client_realtime::{
    PostgresChangePayload, PostgresChangesEvent, PostgresChangesFilter, RealtimeChannel, RealtimeClient,
    RealtimeConfig,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Duration, sleep, timeout},
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_environment();
    let mut config = RealtimeConfig::new(&plan.url, "key");
    config.heartbeat_interval = plan.heartbeat;
    let client = RealtimeClient::with_config(config).expect("a client");
    client.connect().await.expect("a connection");
    if plan.weighs_channels() {
        weigh(&client, &plan).await
    } else if plan.stalls() {
        stall(&client, &plan).await
    } else {
        read(&client, &plan).await
    }
}

async fn join(
    client: &RealtimeClient,
    plan: &Plan,
    number: usize,
    callback: impl Fn(PostgresChangePayload) + Send + Sync + 'static,
) -> RealtimeChannel {
    let filter = PostgresChangesFilter::new("public", "deployments");
    client
        .channel(&plan.channel(number))
        .on_postgres_changes(PostgresChangesEvent::All, filter, callback)
        .subscribe(|_, _| {})
        .await
        .expect("a subscription")
}

fn typed(change: PostgresChangePayload) -> Option<Row> {
    serde_json::from_value(change.record?).ok()
}

async fn read(client: &RealtimeClient, plan: &Plan) -> ! {
    let meter = Arc::new(Mutex::new(Meter::new(plan)));
    let done = Arc::new(Notify::new());
    let (counting, stopping) = (Arc::clone(&meter), Arc::clone(&done));
    let _channel = join(client, plan, 0, move |change| {
        let Some(row) = typed(change) else { return };
        let mut meter = counting.lock().expect("the meter");
        if meter.row(&row) == Next::Stop {
            meter.end();
            stopping.notify_one();
        }
    })
    .await;
    let _ = timeout(plan.deadline(), done.notified()).await;
    let finished = std::mem::replace(&mut *meter.lock().expect("the meter"), Meter::new(plan));
    finished.report()
}

async fn stall(client: &RealtimeClient, plan: &Plan) -> ! {
    let mut meter = Meter::new(plan);
    let (queue, mut rows) = mpsc::unbounded_channel();
    let _channel = join(client, plan, 0, move |change| drop(queue.send(change))).await;
    let _ = timeout(plan.deadline(), async {
        while let Some(change) = rows.recv().await {
            let Some(row) = typed(change) else { continue };
            if let Next::Sleep(pause) = meter.row(&row) {
                sleep(pause).await;
                return meter.woke();
            }
        }
    })
    .await;
    meter.report()
}

async fn weigh(client: &RealtimeClient, plan: &Plan) -> ! {
    let mut meter = Meter::new(plan);
    let mut channels = Vec::new();
    for number in 0..plan.channels {
        channels.push(join(client, plan, number, |_| {}).await);
        if number == 0 || number + 1 == plan.channels {
            sleep(Duration::from_millis(500)).await;
            meter.weigh();
        }
    }
    meter.report()
}
