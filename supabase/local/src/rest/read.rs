//! `GET` and `HEAD` of a table.

use axum::response::Response;

use super::error::RestError;
use super::plan::Plan;
use super::prefer::Count;
use super::request::Request;
use super::response::{Reply, content_range, page_status};
use super::schema::Schema;
use super::sql::Sql;
use super::statement::{self, Outcome, Shape};
use super::transaction::{self, Answer, Verdict};
use super::{Server, media::Media};

/// The preferences that mean something for a read.
const PREFERENCES: [&str; 4] = ["count", "tx", "handling", "timezone"];

/// Answers the request.
pub(super) async fn answer(
    server: &Server,
    schema: &Schema,
    request: &Request,
) -> Result<Response, RestError> {
    let table = schema.expect_table(&request.name)?;
    let mut plan = Plan::table(schema, table, &request.query)?;
    plan.page(server.limited(request.range));
    let counted = matches!(request.prefer.count(), Some(Count::Exact | Count::Estimated));
    let mut sql = statement::begin();
    plan.select(&mut sql, None);
    if counted {
        statement::count(&mut sql, &plan);
    }
    let outcome = Outcome {
        media: Some(request.media).filter(|_| !request.is_head()),
        shape: Shape::Rows,
        counted,
        location: None,
    };
    statement::finish(&mut sql, &outcome, None);
    let estimate = (request.prefer.count() == Some(Count::Planned)).then(|| explained(&plan));
    let single = |answer: &Answer| one_row(request.media, answer.rows);
    let verdict = request.media.is_object().then_some(&single as Verdict<'_>);
    let session = request.session(schema, true);
    let answer = transaction::run(&server.pool, &session, &sql, estimate.as_ref(), verdict).await?;
    let offset = i64::try_from(request.range.offset).unwrap_or(i64::MAX);
    let status = page_status(offset, answer.rows, answer.total);
    let (media, body) = if status.is_client_error() {
        let total = answer.total.unwrap_or_default();
        let details = format!("An offset of {offset} was requested, but there are only {total} rows.");
        (Media::Json, RestError::bad_range(&details).to_json())
    } else {
        (request.media, answer.body.clone())
    };
    let reply = Reply::new(status)
        .body(media, body)
        .content_range(&content_range(offset, answer.rows, answer.total))
        .content_location(&request.path, &request.query.canonical)
        .applied(request.prefer.applied(&PREFERENCES))
        .overridden(&answer)?;
    Ok(reply.finish(request.is_head()))
}

/// The statement that asks the planner for the number of rows.
fn explained(plan: &Plan<'_>) -> Sql {
    let mut sql = Sql::default();
    sql.push("EXPLAIN (FORMAT JSON) ");
    plan.select_for_count(&mut sql);
    sql
}

/// Refuses any number of rows but one where one object is wanted (PGRST116).
pub(super) fn one_row(media: Media, rows: i64) -> Result<(), RestError> {
    if !media.is_object() || rows == 1 {
        return Ok(());
    }
    let message = "Cannot coerce the result to a single JSON object";
    Err(RestError::new(http::StatusCode::NOT_ACCEPTABLE, "PGRST116", message)
        .details(format!("The result contains {rows} rows")))
}
