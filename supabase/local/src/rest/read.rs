//! `GET` and `HEAD` of a table.

use axum::response::Response;
use http::StatusCode;

use super::error::RestError;
use super::media::Media;
use super::plan::Plan;
use super::prefer::Count;
use super::request::Request;
use super::response::{Reply, content_range, page_status};
use super::schema::Schema;
use super::service::Service;
use super::sql::Sql;
use super::statement::{self, Outcome, Shape};
use super::transaction::{self, Answer, Verdict};

/// The preferences that mean something for a read.
const PREFERENCES: [&str; 4] = ["count", "tx", "handling", "timezone"];

/// Answers the request.
pub(super) async fn answer(
    service: &Service,
    schema: &Schema,
    request: &Request,
) -> Result<Response, RestError> {
    let table = schema.expect_table(&request.name)?;
    let mut plan = Plan::table(schema, table, &request.query)?;
    plan.page(service.limited(request.range));
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
    let answer = transaction::run(&service.pool, &session, &sql, estimate.as_ref(), verdict).await?;
    let reply = page(request, &answer)
        .content_location(&request.path, &request.query.canonical)
        .applied(request.prefer.applied(&PREFERENCES))
        .overridden(&answer)?;
    Ok(reply.finish(request.is_head()))
}

/// The page of rows that was read, or the error that it begins beyond the last row.
pub(super) fn page(request: &Request, answer: &Answer) -> Reply {
    let offset = i64::try_from(request.range.offset).unwrap_or(i64::MAX);
    let status = page_status(offset, answer.rows, answer.total);
    let range = content_range(offset, answer.rows, answer.total);
    if status != StatusCode::RANGE_NOT_SATISFIABLE {
        return Reply::new(status).body(request.media, answer.body.clone()).content_range(&range);
    }
    let total = answer.total.unwrap_or_default();
    let details = format!("An offset of {offset} was requested, but there are only {total} rows.");
    Reply::new(status).body(Media::Json, RestError::bad_range(&details).to_json()).content_range(&range)
}

/// The statement that lets the planner estimate the number of rows.
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
    Err(RestError::new(StatusCode::NOT_ACCEPTABLE, "PGRST116", message)
        .details(format!("The result contains {rows} rows")))
}
