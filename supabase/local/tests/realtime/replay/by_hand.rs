//! What a recording shows and its client did not do: another program's rows, a failover, the server's own ticks.

use serde_json::Value;

use super::Player;

/// Recordings of rows that another program inserted: the one that an event shows is inserted when its event is due.
const INSERTED_BESIDE: [&str; 2] = ["down", "cdc"];

/// The rows of those which arrived at nobody, since the server had no connection.
const LOST: [&str; 3] = ["early0", "early1", "early2"];

/// How often the recorded server took its averages, from the first connection on.
const TICK: u64 = 5000;

impl Player<'_> {
    /// Makes the ticks that were over in the recording before something was sent.
    pub(super) fn tick(&mut self, line: &Value) {
        let at = line["t"].as_u64().unwrap();
        if line["type"] == "open" && self.next_tick.is_none() {
            self.next_tick = Some(at + TICK);
        }
        while let Some(next) = self.next_tick.filter(|next| *next <= at) {
            self.stack.faults().tick_rates();
            self.next_tick = Some(next + TICK);
        }
    }

    /// Ends the server's connections and lets it have none while rows are inserted; then waits until it follows the changes again.
    pub(super) async fn fail_over(&mut self) {
        let postgres = self.stack.postgres().expect("a server");
        let other = self.stack.admin_url().replace("/postgres", "/template1");
        assert!(other.contains(&postgres.port().to_string()), "{other}");
        let (outside, connection) = tokio_postgres::connect(&other, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let allow = |allowed: bool| format!("alter database postgres allow_connections {allowed}");
        outside.batch_execute(&allow(false)).await.expect("the SQL runs");
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
        let slots =
            "select count(*) from pg_replication_slots where slot_name not like '%messages%' and active
                     and confirmed_flush_lsn is not null";
        while self.count(end).await + self.count(slots).await > 0 {
            tokio::task::yield_now().await;
        }
        for value in LOST {
            self.insert("cdc", value).await;
        }
        outside.batch_execute(&allow(true)).await.expect("the SQL runs");
        let deadline = tokio::time::Instant::now() + self.time_limit;
        while self.count(slots).await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "replication does not come back");
            tokio::task::yield_now().await;
        }
    }

    async fn count(&self, sql: &str) -> i64 {
        self.database.query_one(sql, &[]).await.expect("the SQL runs").get(0)
    }

    /// Inserts the row of an event, if that was not recorded and not done yet.
    pub(super) async fn insert(&mut self, cluster: &str, value: &str) {
        if INSERTED_BESIDE.contains(&cluster)
            && !self.sent.contains(&format!("values('{cluster}','{value}')"))
            && self.inserted.insert(value.to_owned())
        {
            let insert = format!("insert into public.events(cluster_id,t) values('{cluster}','{value}')");
            self.database.batch_execute(&insert).await.expect("the SQL runs");
        }
    }
}
