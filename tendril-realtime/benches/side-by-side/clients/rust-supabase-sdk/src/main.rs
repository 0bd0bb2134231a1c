//! rust_supabase_sdk: a stream with an untyped row, which is made typed here. Its heartbeat interval is fixed (30 s).

use bench_meter::{Meter, Next, Plan, Row};
use rust_supabase_sdk::{
    SupabaseClient,
    realtime::{Channel, PostgresChangeKind, PostgresChangesFilter, RealtimeClient, RealtimeEvent},
};
use tokio::time::{Duration, sleep, timeout};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_environment();
    let mut meter = Meter::new(&plan);
    let client = SupabaseClient::new(plan.url.clone(), "key".to_owned(), None);
    let realtime = client.realtime().connect().await.expect("a connection");
    let mut channels = Vec::new();
    for number in 0..plan.channels {
        channels.push(join(&realtime, &plan, number).await);
        if plan.weighs_channels() && (number == 0 || number + 1 == plan.channels) {
            sleep(Duration::from_millis(500)).await;
            meter.weigh();
        }
    }
    if !plan.weighs_channels() {
        let _ = timeout(plan.deadline(), read(&mut channels[0], &mut meter)).await;
    }
    meter.report()
}

async fn join(realtime: &RealtimeClient, plan: &Plan, number: usize) -> Channel {
    let filter = PostgresChangesFilter::new(PostgresChangeKind::All).schema("public").table("deployments");
    realtime
        .channel(format!("realtime:{}", plan.channel(number)))
        .on_postgres_changes(filter)
        .subscribe()
        .await
        .expect("a subscription")
}

async fn read(channel: &mut Channel, meter: &mut Meter) {
    while let Some(event) = channel.recv().await {
        let RealtimeEvent::PostgresChange(change) = event else { continue };
        let Ok(row) = serde_json::from_value::<Row>(change.record) else { continue };
        match meter.row(&row) {
            Next::Read => {}
            Next::Sleep(pause) => {
                sleep(pause).await;
                return meter.woke();
            }
            Next::Stop => return meter.end(),
        }
    }
}
