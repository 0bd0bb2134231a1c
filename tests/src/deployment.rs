//! A deployment's row and its log.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tendril_realtime::Rest;
use uuid::Uuid;

use crate::wait::until;

/// A queued deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// REST, as its owner.
    pub as_user: Rest,
    pub(crate) database: Arc<tokio_postgres::Client>,
}

/// A row of `deployments`, as the database's owner sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Row {
    /// QUEUED, PROCESSING, SUCCESS, FAILED, CANCELLED.
    pub status: String,
    /// Where it is, or where it ended.
    pub phase: Option<String>,
    /// How often it was claimed.
    pub attempt: i32,
    /// Who holds or held it.
    pub claim_token: Option<Uuid>,
    /// The agent's name.
    pub claimed_by: Option<String>,
    /// Outputs that are not sensitive.
    pub outputs: Option<Map<String, Value>>,
    /// Counts of the plan.
    pub plan_summary: Option<Value>,
    /// The figures of the cost estimate, or why there are none.
    pub cost: Option<Value>,
    /// OK, PARTIAL, UNAVAILABLE.
    pub cost_status: Option<String>,
    /// Commit of the Git repository that was run.
    pub template_commit: Option<String>,
    /// The program that ran it, such as `terraform 1.11.4`.
    pub terraform_version: Option<String>,
    /// Chunks of the last attempt.
    pub log_count: i64,
    /// Why it failed, for programs.
    pub error_code: Option<String>,
    /// Why it failed, for people.
    pub error_message: Option<String>,
}

impl Row {
    /// Whether it reached a final status.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "QUEUED" | "PROCESSING")
    }
}

/// A row of `deployment_logs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    /// Which attempt.
    pub attempt: i32,
    /// 1..N in the attempt.
    pub seq: i64,
    /// stdout, stderr or agent.
    pub stream: String,
    /// Whole lines.
    pub log_chunk: String,
}

/// A deployment's log, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log(pub Vec<Chunk>);

impl Deployment {
    /// The row as it is now.
    pub async fn row(&self) -> Row {
        let query = "select to_jsonb(d) from public.deployments d where id = $1";
        let row: Value = self.database.query_one(query, &[&self.id]).await.expect("the deployment").get(0);
        serde_json::from_value(row).expect("a row of deployments")
    }

    /// Waits until the row fits.
    pub async fn becomes(&self, what: &str, fits: impl Fn(&Row) -> bool) -> Row {
        until(&format!("deployment {} {what}", self.id), async || {
            let row = self.row().await;
            if fits(&row) { Ok(row) } else { Err(format!("{row:?}")) }
        })
        .await
    }

    /// Waits for the final status.
    pub async fn ended(&self) -> Row {
        self.becomes("ends", Row::has_ended).await
    }

    /// Waits until its plan is shown, and waits for approval; answers the plan's digest.
    pub async fn plan(&self) -> String {
        self.becomes("shows its plan", |row| row.phase.as_deref() == Some("APPROVAL")).await;
        let query = "select plan_sha256 from public.deployments where id = $1";
        self.database.query_one(query, &[&self.id]).await.expect("the row").get(0)
    }

    /// Its owner approves the plan with this digest.
    pub async fn approve(&self, plan: &str) {
        self.update(&json!({"approved_plan": plan})).await;
    }

    /// Its owner asks to cancel it.
    pub async fn cancel(&self) {
        self.update(&json!({"cancel_requested_at": "now"})).await;
    }

    async fn update(&self, change: &Value) {
        let request = self.as_user.from("deployments").update(change).eq("id", self.id);
        request.execute().await.unwrap_or_else(|error| panic!("{change}: {error}"));
    }

    /// The log as its owner reads it.
    pub async fn log(&self) -> Log {
        let request = self.as_user.from("deployment_logs").select("attempt,seq,stream,log_chunk");
        let chunks =
            request.eq("deployment_id", self.id).order("attempt").order("seq").limit(1000).rows().await;
        Log(chunks.expect("the log"))
    }

    /// Waits until a line is in the log.
    pub async fn says(&self, part: &str) -> Log {
        until(&format!("the log says \"{part}\""), async || {
            let log = self.log().await;
            let text = log.text();
            if text.contains(part) { Ok(log) } else { Err(text) }
        })
        .await
    }
}

/// The numbered lines of a log that is too long to carry around, counted by the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// Lines `… line 1`, `… line 2`, … of stdout that are stored.
    pub lines: u64,
    /// How many of them have a smaller number before them, or are the first: all, if they are in order and none is there
    /// twice.
    pub in_order: u64,
    /// The number of the last one.
    pub last: u64,
    /// Notes that lines are missing.
    pub markers: u64,
    /// Lines that are reported missing.
    pub missing: u64,
    /// Chunks of the log, whoever's.
    pub chunks: u64,
}

impl Deployment {
    /// Counts the numbered lines where they are.
    pub async fn numbered(&self) -> Numbered {
        let query = "with lines as (
                select seq, place, substring(line from 'line ([0-9]+)$')::bigint as number
                from public.deployment_logs,
                    string_to_table(rtrim(log_chunk, E'\\n'), E'\\n') with ordinality as t (line, place)
                where deployment_id = $1 and stream = 'stdout' and line ~ 'line [0-9]+$'
            ), ordered as (
                select number, lag(number) over (order by seq, place) as before from lines
            ), missing as (
                select substring(log_chunk from '… ([0-9]+) lines are missing')::bigint as lines
                from public.deployment_logs where deployment_id = $1 and log_chunk like '%lines are missing%'
            ) select count(*), count(*) filter (where before is null or before < number), coalesce(max(number), 0),
                (select count(*) from missing), (select coalesce(sum(lines), 0)::bigint from missing),
                (select count(*) from public.deployment_logs where deployment_id = $1)
            from ordered";
        let row = self.database.query_one(query, &[&self.id]).await.expect("counts");
        let count = |column: usize| u64::try_from(row.get::<_, i64>(column)).expect("a count");
        let [lines, in_order, last, markers, missing, chunks] = [0, 1, 2, 3, 4, 5].map(count);
        Numbered { lines, in_order, last, markers, missing, chunks }
    }
}

impl Numbered {
    /// Fails unless lines 1 to `all` are there, in order, but for those that are reported missing; returns how many are.
    pub fn assert_of(&self, all: u64) -> u64 {
        assert_eq!((self.lines + self.missing, self.in_order, self.last), (all, self.lines, all), "{self:?}");
        assert_eq!(self.markers == 0, self.missing == 0, "{self:?}");
        self.missing
    }
}

impl Log {
    /// Everything, joined.
    pub fn text(&self) -> String {
        self.0.iter().map(|chunk| chunk.log_chunk.as_str()).collect()
    }

    /// The lines of one stream.
    pub fn lines(&self, stream: &str) -> Vec<String> {
        let chunks = self.0.iter().filter(|chunk| chunk.stream == stream);
        chunks.flat_map(|chunk| chunk.log_chunk.lines().map(str::to_owned)).collect()
    }

    /// The numbers of the lines `line 1`, `line 2`, … in the order in which they stand there.
    pub fn counted(&self) -> Vec<u64> {
        let number = |line: String| line.rsplit_once("line ").and_then(|(_, number)| number.parse().ok());
        self.lines("stdout").into_iter().filter_map(number).collect()
    }

    /// Fails unless this is the whole log of a deployment that ended in its first attempt: chunks 1 to N, and whole lines.
    pub fn assert_complete(&self, row: &Row) {
        assert!(row.has_ended(), "{row:?}");
        let seqs: Vec<i64> = self.0.iter().map(|chunk| chunk.seq).collect();
        assert_eq!(seqs, (1..=row.log_count).collect::<Vec<_>>(), "chunks 1 to log_count, each once");
        assert!(row.log_count > 0, "a deployment that was claimed has a log");
        for chunk in &self.0 {
            assert_eq!(chunk.attempt, 1);
            assert!(chunk.log_chunk.ends_with('\n'), "whole lines: {chunk:?}");
        }
    }
}
