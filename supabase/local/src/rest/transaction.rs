//! One request in the database: a transaction as the request's role, in one round trip where that is
//! possible.

use deadpool_postgres::{Object, Pool};
use postgres_types::{FromSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::error::RestError;
use super::explain::Explain;
use super::sql::Sql;

/// Who runs the transaction, and what it can read about the request with `current_setting`.
#[derive(Debug)]
pub(super) struct Session {
    /// Whether nothing may be written.
    pub(super) read_only: bool,
    /// Whether the role is another than the anonymous one.
    pub(super) identified: bool,
    /// Settings for the length of the transaction, in order; `role` among them.
    pub(super) settings: Vec<(String, String)>,
    /// Whether the transaction is undone at the end.
    pub(super) rollback: bool,
    /// What of the statement's plan is wanted instead of its answer.
    pub(super) explain: Option<Explain>,
}

/// What a statement built by [`super::statement`] gives.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Rows there are without the page, if they were counted.
    pub(super) total: Option<i64>,
    /// Rows of the page, or rows written.
    pub(super) rows: i64,
    /// The body.
    pub(super) body: String,
    /// Headers that a function has set.
    pub(super) headers: Option<String>,
    /// A status that a function has set.
    pub(super) status: Option<String>,
    /// Rows that an upsert added.
    pub(super) inserted: i64,
    /// `column=eq.value` of the primary key of a new row.
    pub(super) location: Vec<String>,
    /// The plan, and what of it was wanted; then there is nothing else.
    pub(super) plan: Option<(Explain, String)>,
}

/// Checks an answer before the transaction is committed; an error rolls it back.
pub(super) type Verdict<'a> = &'a (dyn Fn(&Answer) -> Result<(), RestError> + Sync);

/// Runs the statement. Without a verdict everything is sent at once and answered in one round trip.
/// `estimate` is a statement whose planned number of rows becomes the total.
pub(super) async fn run(
    pool: &Pool,
    session: &Session,
    sql: &Sql,
    estimate: Option<&Sql>,
    verdict: Option<Verdict<'_>>,
) -> Result<Answer, RestError> {
    if let Some(explain) = &session.explain {
        return explained(pool, session, sql, explain).await;
    }
    let client = pool.get().await.map_err(|error| RestError::from_pool(&error))?;
    let guard = Guard(Some(client));
    let Some(client) = guard.0.as_deref() else { return Err(RestError::no_schema()) };
    let failed = |error: Error| RestError::from_postgres(&error, session.identified);
    let early = estimate.is_none() && verdict.is_none();
    let end = if session.rollback { "rollback" } else { "commit" };
    let first = if session.read_only { "begin read only" } else { "begin" };
    let setup = session.setup();
    // Polled in this order, so they are sent in this order, without waiting for each other's answers. When
    // one fails, PostgreSQL refuses the rest, and the commit becomes a rollback.
    let (begun, set_up, rows, ended) = tokio::join!(
        biased;
        client.batch_execute(first),
        query(client, &setup),
        query(client, sql),
        async { if early { client.batch_execute(end).await } else { Ok(()) } },
    );
    let answer = async {
        begun.map_err(failed)?;
        set_up.map_err(failed)?;
        let mut answer = Answer::of(&rows.map_err(failed)?).map_err(failed)?;
        if early {
            ended.map_err(failed)?;
            return Ok(answer);
        }
        if let Some(estimate) = estimate {
            answer.total = Some(planned_rows(&query(client, estimate).await.map_err(failed)?));
        }
        verdict.map_or(Ok(()), |verdict| verdict(&answer))?;
        client.batch_execute(end).await.map_err(failed)?;
        Ok(answer)
    }
    .await;
    if answer.is_err() && !early {
        client.batch_execute("rollback").await.map_err(failed)?;
    }
    guard.keep();
    answer
}

/// The plan of the statement, in a transaction that ends as the statement's would.
async fn explained(
    pool: &Pool,
    session: &Session,
    sql: &Sql,
    explain: &Explain,
) -> Result<Answer, RestError> {
    let client = pool.get().await.map_err(|error| RestError::from_pool(&error))?;
    let guard = Guard(Some(client));
    let Some(client) = guard.0.as_deref() else { return Err(RestError::no_schema()) };
    let failed = |error: Error| RestError::from_postgres(&error, session.identified);
    client
        .batch_execute(if session.read_only { "begin read only" } else { "begin" })
        .await
        .map_err(failed)?;
    let plan = async {
        query(client, &session.setup()).await?;
        query(client, &explain.statement(sql)).await
    }
    .await;
    let end = if plan.is_err() || session.rollback { "rollback" } else { "commit" };
    client.batch_execute(end).await.map_err(failed)?;
    let rows = plan.map_err(failed)?;
    guard.keep();
    // As text a plan has a row for each line, as JSON it is one row.
    let mut text = String::new();
    for row in &rows {
        text.push_str(&row.try_get::<_, PlanText>(0).map_err(failed)?.0);
        text.push('\n');
    }
    Ok(Answer { plan: Some((explain.clone(), text)), ..Answer::default() })
}

/// A line of a plan, or all of it as JSON, as the database writes it.
struct PlanText(String);

impl<'a> FromSql<'a> for PlanText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::TEXT | Type::JSON)
    }
}

async fn query(client: &Client, sql: &Sql) -> Result<Vec<Row>, Error> {
    client.query_typed(sql.text(), &sql.typed_values()).await
}

impl Session {
    /// One statement that makes all settings.
    fn setup(&self) -> Sql {
        let mut sql = Sql::default();
        sql.push("SELECT ").join(&self.settings, ", ", |sql, (name, value)| {
            sql.push("set_config(").value(name).push(", ").value(value).push(", true)");
        });
        sql
    }
}

impl Answer {
    fn of(rows: &[Row]) -> Result<Self, Error> {
        let Some(row) = rows.first() else { return Ok(Self::default()) };
        Ok(Self {
            total: row.try_get(0)?,
            rows: row.try_get(1)?,
            body: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
            headers: row.try_get(3)?,
            status: row.try_get(4)?,
            inserted: row.try_get::<_, Option<i64>>(5)?.unwrap_or_default(),
            location: row.try_get::<_, Option<Vec<String>>>(6)?.unwrap_or_default(),
            plan: None,
        })
    }
}

/// The planner's number of rows, from the answer of `explain (format json)`.
fn planned_rows(rows: &[Row]) -> i64 {
    let plan = rows.first().and_then(|row| row.try_get::<_, serde_json::Value>(0).ok());
    plan.and_then(|plan| plan[0]["Plan"]["Plan Rows"].as_i64()).unwrap_or_default()
}

/// A connection taken from the pool. If the request is dropped in the middle of its transaction, so is the
/// connection: the next request must not find itself inside of somebody else's transaction.
struct Guard(Option<Object>);

impl Guard {
    /// Gives the connection back to the pool.
    fn keep(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
