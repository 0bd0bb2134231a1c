//! Calls of functions: `/rpc/name` with arguments in the query string or in the body.

use std::collections::BTreeMap;

use axum::response::Response;
use http::{Method, StatusCode};

use super::error::RestError;
use super::overload::{choose, takes_body};
use super::payload::Payload;
use super::plan::{Plan, push_name};
use super::prefer::Count;
use super::read::{one_row, page};
use super::request::Request;
use super::response::{Reply, content_range};
use super::schema::{Function, Parameter, Returns, Schema};
use super::service::Service;
use super::sql::{Sql, array_literal};
use super::statement::{self, Outcome, Shape};
use super::transaction::{self, Answer, Verdict};
use super::write::not_too_many;

/// The preferences that mean something for a call.
const PREFERENCES: [&str; 5] = ["count", "tx", "handling", "timezone", "max-affected"];

/// How the arguments were sent.
enum Arguments {
    /// In the query string, as texts.
    Named(BTreeMap<String, Vec<String>>),
    /// As an object in the body.
    Body(Payload),
}

impl Arguments {
    fn of(request: &Request) -> Result<Self, RestError> {
        if request.method != Method::POST {
            let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in &request.query.arguments {
                named.entry(name.clone()).or_default().push(value.clone());
            }
            return Ok(Self::Named(named));
        }
        let body = if request.body.is_empty() { b"{}" } else { &request.body[..] };
        Payload::read(&request.headers, body, false).map(Self::Body)
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Named(named) => named.keys().map(String::as_str).collect(),
            Self::Body(payload) => payload.keys.iter().map(String::as_str).collect(),
        }
    }
}

/// Answers the request.
pub(super) async fn answer(
    service: &Service,
    schema: &Schema,
    request: &Request,
) -> Result<Response, RestError> {
    if !matches!(request.method, Method::GET | Method::HEAD | Method::POST) {
        let message = format!("Cannot use the {} method on RPC", request.method);
        return Err(RestError::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST101", message));
    }
    let arguments = Arguments::of(request)?;
    let function = choose(schema, request, &arguments.names())?;
    let shape = match (function.returns, function.set) {
        (Returns::Composite, true) => Shape::Rows,
        (Returns::Composite, false) => Shape::Row,
        (_, true) => Shape::Values,
        (_, false) => Shape::Value,
    };
    if request.prefer.max_affected().is_some() && !function.set {
        let message =
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict";
        return Err(RestError::bad_request("PGRST128", message));
    }
    let scalar = matches!(shape, Shape::Value | Shape::Values);
    let table = function.table.as_ref().and_then(|name| schema.table(name));
    let mut plan = Plan::source(schema, table, &request.query)?;
    plan.page(service.limited(request.range));
    let counted = matches!(request.prefer.count(), Some(Count::Exact | Count::Estimated));
    let void = function.returns == Returns::Void;
    let outcome = Outcome {
        media: Some(request.media).filter(|_| !void && !request.is_head()),
        shape,
        counted,
        location: None,
    };
    let mut sql = statement::begin();
    call(&mut sql, function, &arguments, scalar);
    if counted {
        statement::count(&mut sql, &plan);
    }
    statement::finish(&mut sql, &outcome, (!scalar).then_some(&plan));
    let check = |answer: &Answer| {
        not_too_many(request, answer.rows)?;
        one_row(request.media, answer.rows)
    };
    let checks = request.media.is_object() || request.prefer.max_affected().is_some();
    let verdict = checks.then_some(&check as Verdict<'_>);
    let read_only = request.method != Method::POST || !function.volatile;
    let session = request.session(schema, read_only);
    let answer = transaction::run(&service.pool, &session, &sql, None, verdict).await?;
    let reply = if void {
        Reply::new(StatusCode::NO_CONTENT).content_range(&content_range(0, answer.rows, None))
    } else {
        page(request, &answer)
    };
    let reply = reply.applied(request.prefer.applied(&PREFERENCES)).overridden(&answer)?;
    Ok(reply.finish(request.is_head()))
}

/// Appends the call.
fn call(sql: &mut Sql, function: &Function, arguments: &Arguments, scalar: bool) {
    sql.push(if scalar { "SELECT pgrst_call.pgrst_scalar FROM " } else { "SELECT pgrst_call.* FROM " });
    let given: Vec<&Parameter> = {
        let names = arguments.names();
        function.parameters.iter().filter(|parameter| names.contains(&parameter.name.as_str())).collect()
    };
    if let Arguments::Body(payload) = arguments
        && !given.is_empty()
    {
        sql.push("(SELECT ")
            .value(&payload.json)
            .push("::json AS json_data) pgrst_payload, LATERAL (SELECT * FROM ");
        sql.push(if payload.is_object { "json_to_record" } else { "json_to_recordset" });
        sql.push("(pgrst_payload.json_data) AS _(");
        sql.join(&given, ", ", |sql, parameter| {
            sql.name(&parameter.name).push(" ").push(&parameter.sql_type);
        });
        sql.push(") LIMIT 1) pgrst_body, LATERAL ");
    }
    sql.push(if scalar { "(SELECT " } else { "" });
    push_name(sql, &function.name);
    sql.push("(");
    match arguments {
        Arguments::Body(payload) if takes_body(function) => {
            sql.value(&payload.json).push("::").push(&function.parameters[0].sql_type);
        }
        Arguments::Body(_) => {
            sql.join(&given, ", ", |sql, parameter| {
                push_label(sql, parameter);
                sql.push("pgrst_body.").name(&parameter.name);
            });
        }
        Arguments::Named(named) => {
            sql.join(&given, ", ", |sql, parameter| {
                push_label(sql, parameter);
                let values = named.get(&parameter.name).map_or(&[][..], Vec::as_slice);
                if parameter.variadic {
                    sql.whole_value(array_literal(values))
                } else {
                    sql.value(values.last().map(String::as_str).unwrap_or_default())
                };
                sql.push("::").push(&parameter.sql_type);
            });
        }
    }
    sql.push(if scalar { ") pgrst_scalar) pgrst_call" } else { ") pgrst_call" });
}

fn push_label(sql: &mut Sql, parameter: &Parameter) {
    sql.push(if parameter.variadic { "VARIADIC " } else { "" }).name(&parameter.name).push(" := ");
}
