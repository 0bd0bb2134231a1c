//! `POST`, `PATCH`, `PUT` and `DELETE` of a table.

use axum::response::Response;
use http::{Method, StatusCode};

use super::error::RestError;
use super::filter::{Filter, Logic, Test};
use super::mutation::{self, Insert, Returning, Update};
use super::payload::Payload;
use super::plan::Plan;
use super::prefer::{Resolution, Return};
use super::query::Range;
use super::read::one_row;
use super::request::Request;
use super::response::{Reply, content_range};
use super::schema::{Column, Schema, Table};
use super::service::Service;
use super::sql::Sql;
use super::statement::{self, Outcome, Shape};
use super::transaction::{self, Answer, Verdict};

/// Answers the request.
pub(super) async fn answer(
    service: &Service,
    schema: &Schema,
    request: &Request,
) -> Result<Response, RestError> {
    match request.method {
        Method::POST => insert(service, schema, request).await,
        Method::PUT => put(service, schema, request).await,
        Method::PATCH => update(service, schema, request).await,
        _ => delete(service, schema, request).await,
    }
}

async fn insert(service: &Service, schema: &Schema, request: &Request) -> Result<Response, RestError> {
    let payload = payload(request)?;
    let table = schema.expect_table(&request.name)?;
    let columns = columns(table, request, &payload)?;
    let key = request.query.on_conflict.as_deref().unwrap_or(&table.primary_key);
    let resolution = request.prefer.resolution().filter(|_| !key.is_empty());
    let insert = Insert {
        table,
        columns: &columns,
        payload: &payload,
        defaults: request.prefer.defaults(),
        on_conflict: resolution.map(|resolution| (resolution, key)),
        key: &[],
    };
    let answer = Write::new(service, schema, table, request)?
        .run(|sql, returning| insert.push(sql, returning), None)
        .await?;
    let merged = resolution == Some(Resolution::Merge) && answer.inserted <= 0;
    let mut applied = vec!["missing", "return", "count", "tx", "handling", "timezone"];
    if resolution.is_some() {
        applied.push("resolution");
    }
    let location = if answer.rows == 1 { answer.location.as_slice() } else { &[] };
    let reply = Reply::new(if merged { StatusCode::OK } else { StatusCode::CREATED })
        .location(&table.name.name, location)
        .content_range(&content_range(0, 0, counted(request, &answer)))
        .applied(request.prefer.applied(&applied));
    respond(request, reply, &answer)
}

/// A `PUT` writes the one row whose primary key the filters name.
async fn put(service: &Service, schema: &Schema, request: &Request) -> Result<Response, RestError> {
    let payload = payload(request)?;
    if !request.range.is_all() {
        let message = "limit/offset querystring parameters are not allowed for PUT";
        return Err(RestError::bad_request("PGRST114", message));
    }
    let table = schema.expect_table(&request.name)?;
    let columns = columns(table, request, &payload)?;
    let key = named_key(table, request)?;
    let insert = Insert {
        table,
        columns: &columns,
        payload: &payload,
        defaults: request.prefer.defaults(),
        on_conflict: Some((Resolution::Merge, &table.primary_key)),
        key: &key,
    };
    let matches = |answer: &Answer| {
        if answer.rows == 1 {
            return Ok(());
        }
        let message = "Payload values do not match URL in primary key column(s)";
        Err(RestError::bad_request("PGRST115", message))
    };
    let write = Write::new(service, schema, table, request)?;
    let answer = write.run(|sql, returning| insert.push(sql, returning), Some(&matches)).await?;
    let status = match request.prefer.returns() {
        _ if answer.inserted > 0 => StatusCode::CREATED,
        Return::Representation => StatusCode::OK,
        _ => StatusCode::NO_CONTENT,
    };
    let applied = request.prefer.applied(&["return", "count", "tx", "handling", "timezone"]);
    respond(request, Reply::new(status).applied(applied), &answer)
}

async fn update(service: &Service, schema: &Schema, request: &Request) -> Result<Response, RestError> {
    let payload = payload(request)?;
    let table = schema.expect_table(&request.name)?;
    let columns = columns(table, request, &payload)?;
    let filters = Plan::table(schema, table, &request.query)?;
    if service.settings.safe_update && !columns.is_empty() && !filters.is_filtered() {
        return Err(RestError::unqualified("UPDATE"));
    }
    let defaults = request.prefer.defaults();
    let update = Update { table, columns: &columns, payload: &payload, defaults, filters: &filters };
    let few = |answer: &Answer| not_too_many(request, answer.rows);
    let write = Write::new(service, schema, table, request)?;
    let answer = write.run(|sql, returning| update.push(sql, returning), Some(&few)).await?;
    let applied = ["missing", "return", "count", "tx", "handling", "timezone", "max-affected"];
    let reply = Reply::new(written(request))
        .content_range(&content_range(0, answer.rows, counted(request, &answer)))
        .applied(request.prefer.applied(&applied));
    respond(request, reply, &answer)
}

async fn delete(service: &Service, schema: &Schema, request: &Request) -> Result<Response, RestError> {
    let table = schema.expect_table(&request.name)?;
    let filters = Plan::table(schema, table, &request.query)?;
    if service.settings.safe_update && !filters.is_filtered() {
        return Err(RestError::unqualified("DELETE"));
    }
    let few = |answer: &Answer| not_too_many(request, answer.rows);
    let write = Write::new(service, schema, table, request)?;
    let delete = |sql: &mut Sql, returning: &Returning| mutation::delete(sql, table, &filters, returning);
    let answer = write.run(delete, Some(&few)).await?;
    let applied = ["return", "count", "tx", "handling", "timezone", "max-affected"];
    let reply = Reply::new(written(request))
        .content_range(&content_range(0, 0, counted(request, &answer)))
        .applied(request.prefer.applied(&applied));
    respond(request, reply, &answer)
}

/// What all writes have in common: the columns that come back, the transaction, the checks before its end.
struct Write<'a> {
    service: &'a Service,
    schema: &'a Schema,
    request: &'a Request,
    plan: Plan<'a>,
    table: &'a Table,
}

impl<'a> Write<'a> {
    fn new(
        service: &'a Service,
        schema: &'a Schema,
        table: &'a Table,
        request: &'a Request,
    ) -> Result<Self, RestError> {
        let mut plan = Plan::source(schema, Some(table), &request.query)?.without_filters();
        // A page does not limit what is written, so it does not limit what is shown of it either.
        plan.page(Range::default());
        Ok(Self { service, schema, request, plan, table })
    }

    /// Runs the statement that `push` appends. `check` is made before the commit if something could fail it.
    async fn run(
        &self,
        push: impl Fn(&mut Sql, &Returning),
        check: Option<Verdict<'_>>,
    ) -> Result<Answer, RestError> {
        let (request, returns) = (self.request, self.request.prefer.returns());
        let locates = returns == Return::HeadersOnly && request.method == Method::POST;
        let returning = match returns {
            Return::Representation => Returning::for_plan(&self.plan),
            Return::HeadersOnly if locates => {
                Returning::Some(self.table.primary_key.iter().cloned().collect())
            }
            _ => Returning::Nothing,
        };
        let represents = returns == Return::Representation;
        let outcome = Outcome {
            media: represents.then_some(request.media),
            shape: Shape::Rows,
            counted: false,
            location: locates.then_some(self.table.primary_key.as_slice()),
        };
        let mut sql = statement::begin();
        push(&mut sql, &returning);
        statement::finish(&mut sql, &outcome, represents.then_some(&self.plan));
        let verdict = |answer: &Answer| {
            check.map_or(Ok(()), |check| check(answer))?;
            one_row(request.media, answer.rows)
        };
        // Only a check that can fail is worth a second round trip.
        let checks = request.method == Method::PUT
            || request.prefer.max_affected().is_some()
            || request.media.is_object();
        let verdict = checks.then_some(&verdict as Verdict<'_>);
        let session = request.session(self.schema, false);
        transaction::run(&self.service.pool, &session, &sql, None, verdict).await
    }
}

fn payload(request: &Request) -> Result<Payload, RestError> {
    Payload::read(&request.headers, &request.body, request.query.columns.is_some())
}

/// The columns that the request sets: those of `columns=`, or the keys of the body.
fn columns<'a>(table: &'a Table, request: &Request, payload: &Payload) -> Result<Vec<&'a Column>, RestError> {
    let names = request.query.columns.as_ref().unwrap_or(&payload.keys);
    let column = |name: &String| {
        table.column(name).ok_or_else(|| {
            let table = &table.name.name;
            let message = format!("Could not find the '{name}' column of '{table}' in the schema cache");
            RestError::bad_request("PGRST204", message)
        })
    };
    names.iter().map(column).collect()
}

/// The values of the primary key that the filters of a `PUT` name.
fn named_key(table: &Table, request: &Request) -> Result<Vec<(String, String)>, RestError> {
    let mut key = Vec::new();
    for (path, logic) in &request.query.filters {
        match logic {
            Logic::One(Filter {
                field,
                negated: false,
                test: Test::Compare { operator: "=", quantifier: None, value },
            }) if path.is_empty() && field.path.is_empty() => key.push((field.name.clone(), value.clone())),
            _ => return Err(not_the_key()),
        }
    }
    let complete = key.len() == table.primary_key.len()
        && !key.is_empty()
        && table.primary_key.iter().all(|name| key.iter().any(|(named, _)| named == name));
    if complete { Ok(key) } else { Err(not_the_key()) }
}

fn not_the_key() -> RestError {
    let message = "Filters must include all and only primary key columns with 'eq' operators";
    RestError::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST105", message)
}

/// Refuses more rows than the client allows (PGRST124).
pub(super) fn not_too_many(request: &Request, rows: i64) -> Result<(), RestError> {
    if request.prefer.max_affected().is_none_or(|most| rows <= most) {
        return Ok(());
    }
    Err(RestError::bad_request("PGRST124", "Query result exceeds max-affected preference constraint")
        .details(format!("The query affects {rows} rows")))
}

/// The number of rows written, if the client requests it.
fn counted(request: &Request, answer: &Answer) -> Option<i64> {
    request.prefer.count().map(|_| answer.rows)
}

fn written(request: &Request) -> StatusCode {
    if request.prefer.returns() == Return::Representation { StatusCode::OK } else { StatusCode::NO_CONTENT }
}

fn respond(request: &Request, reply: Reply, answer: &Answer) -> Result<Response, RestError> {
    let represents = request.prefer.returns() == Return::Representation;
    let reply = if represents { reply.body(request.media, answer.body.clone()) } else { reply };
    Ok(reply.overridden(answer)?.finish(false))
}
