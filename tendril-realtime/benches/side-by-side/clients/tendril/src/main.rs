//! tendril-realtime: typed rows from a stream.

use bench_meter::{Meter, Next, Plan, Row};
use futures_util::StreamExt as _;
use tendril_realtime::{ChangeEvent, ChangeStream, PostgresChanges, Client};
use tokio::time::{Duration, sleep, timeout};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_environment();
    let mut meter = Meter::new(&plan);
    let client =
        Client::builder(&plan.url, "key").heartbeat_interval(plan.heartbeat).build().expect("a client");
    let mut streams = Vec::new();
    for number in 0..plan.channels {
        streams.push(join(&client, &plan, number).await);
        if plan.weighs_channels() && (number == 0 || number + 1 == plan.channels) {
            sleep(Duration::from_millis(500)).await;
            meter.weigh();
        }
    }
    if !plan.weighs_channels() {
        let _ = timeout(plan.deadline(), read(&mut streams[0], &mut meter)).await;
    }
    meter.report()
}

async fn join(client: &Client, plan: &Plan, number: usize) -> ChangeStream<Row> {
    let changes = PostgresChanges::on("public", "deployments");
    client.channel(&plan.channel(number)).postgres_changes(changes).subscribe().await.expect("a subscription")
}

async fn read(stream: &mut ChangeStream<Row>, meter: &mut Meter) {
    while let Some(event) = stream.next().await {
        match event {
            Ok(ChangeEvent::Insert(row)) => match meter.row(&row) {
                Next::Read => {}
                Next::Sleep(pause) => {
                    sleep(pause).await;
                    meter.woke();
                    // What lies in the mailbox is read on the way out: it says how much was dropped.
                    drain(stream, meter).await;
                    return;
                }
                Next::Stop => return meter.end(),
            },
            Ok(ChangeEvent::Lagged(count)) => meter.lagged(count),
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}

async fn drain(stream: &mut ChangeStream<Row>, meter: &mut Meter) {
    while let Ok(Some(event)) = timeout(Duration::from_millis(20), stream.next()).await {
        match event {
            Ok(ChangeEvent::Lagged(count)) => return meter.lagged(count),
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}
