//! Whether jobs arrive as they come.

use serde_json::Value;
use tendril_realtime::{Client, Error, PostgresChanges, col};
use tokio::time::timeout;

use super::{control_plane::TIMEOUT, finding::Finding};
use crate::{
    config::settings::Config,
    dispatch::intake::{self, INSTALL_BROADCASTS, Intake, NO_BROADCASTS},
};

/// Whether jobs arrive as they come, by the way that the agent would use.
pub(super) async fn realtime(client: &Client, config: &Config) -> Finding {
    let check = "realtime";
    let publication = "see that deployments is in publication supabase_realtime";
    if config.intake == Intake::PostgresChanges {
        return Finding::new(check, arrives(row_changes(client, config), publication).await);
    }
    let is_refused = |error: &Error| error.code() == "Unauthorized";
    match timeout(2 * TIMEOUT, broadcasts(client, config)).await {
        Ok(Err(error)) if is_refused(&error) && config.intake == Intake::Broadcast => {
            Finding::new(check, Err(format!("{NO_BROADCASTS} ({error:#}). {INSTALL}\n{INSTALL_BROADCASTS}")))
        }
        Ok(Err(error)) if is_refused(&error) => {
            let mut found = Finding::new(check, arrives(row_changes(client, config), publication).await);
            found.warning = Some(format!(
                "agents cannot receive broadcasts in this database ({error:#}): jobs are found by row changes, which come later and cost more. {INSTALL}\n{INSTALL_BROADCASTS}"
            ));
            found
        }
        Ok(joined) => Finding::new(
            check,
            arrives(std::future::ready(joined), "look at the project's Realtime settings").await,
        ),
        Err(_) => Finding::new(check, Err(NO_ANSWER.to_owned())),
    }
}

const INSTALL: &str = "The first heartbeat of an agent installs them where the database lets it. Where it does not, run in the SQL editor:";

const NO_ANSWER: &str = "live changes do not come: the websocket gave no answer in 20 s. A proxy may hold it back: let wss through. Until then the agent polls";

async fn arrives(joined: impl Future<Output = Result<(), Error>>, remedy: &str) -> Result<(), String> {
    match timeout(2 * TIMEOUT, joined).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "live changes do not come ({error:#}): let websockets (wss) to the project through proxies and firewalls, and {remedy}. Until then the agent polls"
        )),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

async fn row_changes(client: &Client, config: &Config) -> Result<(), Error> {
    let own = col("cluster_id").eq(config.cluster_id);
    let changes = PostgresChanges::on("public", "deployments").filter(own);
    client.channel("doctor").postgres_changes::<Value>(changes).subscribe().await.map(drop)
}

/// The channel that the agent would join. The same grant covers the request for broadcasts, which `doctor` does not send because it writes a row.
async fn broadcasts(client: &Client, config: &Config) -> Result<(), Error> {
    let (topic, event) = intake::broadcasts(config.cluster_id);
    let mut channel = client.channel(&topic).private(true);
    let _messages = channel.on_broadcast(event);
    channel.join().await.map(drop)
}
