//! Calls of functions: `/rpc/name` with arguments in the query string or in the body.

use std::collections::BTreeMap;

use axum::response::Response;
use http::{Method, StatusCode};

use super::Server;
use super::error::RestError;
use super::hint::closest;
use super::payload::Payload;
use super::plan::{Plan, push_name};
use super::prefer::Count;
use super::read::one_row;
use super::request::Request;
use super::response::{Reply, content_range, page_status};
use super::schema::{Function, Name, Parameter, Returns, Schema};
use super::sql::Sql;
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
    server: &Server,
    schema: &Schema,
    request: &Request,
) -> Result<Response, RestError> {
    if !matches!(request.method, Method::GET | Method::HEAD | Method::POST) {
        let message = format!("Cannot use the {} method on RPC", request.method);
        return Err(RestError::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST101", message));
    }
    let arguments = Arguments::of(request)?;
    let function = choose(schema, request, &arguments)?;
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
    plan.page(server.limited(request.range));
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
    let answer = transaction::run(&server.pool, &session, &sql, None, verdict).await?;
    let offset = i64::try_from(request.range.offset).unwrap_or(i64::MAX);
    let status = page_status(offset, answer.rows, answer.total);
    let reply = if void {
        Reply::new(StatusCode::NO_CONTENT)
    } else {
        Reply::new(status).body(request.media, answer.body.clone())
    };
    let reply = reply
        .content_range(&content_range(offset, answer.rows, answer.total))
        .applied(request.prefer.applied(&PREFERENCES))
        .overridden(&answer)?;
    Ok(reply.finish(request.is_head()))
}

/// The overload that takes exactly these arguments.
fn choose<'a>(
    schema: &'a Schema,
    request: &Request,
    arguments: &Arguments,
) -> Result<&'a Function, RestError> {
    let names = arguments.names();
    let overloads = schema.overloads(&request.name);
    let fits = |function: &&Function| {
        let known = |name: &&str| function.parameters.iter().any(|parameter| parameter.name == *name);
        names.iter().all(known)
            && function
                .parameters
                .iter()
                .all(|parameter| parameter.optional || names.contains(&parameter.name.as_str()))
    };
    let found: Vec<&Function> = overloads.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let whole_body =
                overloads.iter().find(|function| request.method == Method::POST && takes_body(function));
            whole_body.ok_or_else(|| unknown(schema, request, &names, overloads))
        }
        several => Err(ambiguous(several)),
    }
}

/// Whether its one parameter has no name and takes the body as it is.
fn takes_body(function: &Function) -> bool {
    matches!(function.parameters.as_slice(), [Parameter { name, sql_type, .. }] if name.is_empty() && matches!(sql_type.as_str(), "json" | "jsonb"))
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
                let value = if parameter.variadic {
                    super::sql::array_literal(values)
                } else {
                    values.last().cloned().unwrap_or_default()
                };
                sql.value(value).push("::").push(&parameter.sql_type);
            });
        }
    }
    sql.push(if scalar { ") pgrst_scalar) pgrst_call" } else { ") pgrst_call" });
}

fn push_label(sql: &mut Sql, parameter: &Parameter) {
    sql.push(if parameter.variadic { "VARIADIC " } else { "" }).name(&parameter.name).push(" := ");
}

/// PGRST202, with the nearest function or list of parameters as a hint.
fn unknown(schema: &Schema, request: &Request, names: &[&str], overloads: &[Function]) -> RestError {
    let Name { schema: schema_name, name } = &request.name;
    let list = names.join(", ");
    let (message, mut details) = match names {
        [] => (" without parameters".to_owned(), " without parameters".to_owned()),
        [_] => (format!("({list})"), format!(" with parameter {list}")),
        _ => (format!("({list})"), format!(" with parameters {list}")),
    };
    if request.method == Method::POST {
        details.push_str(" or with a single unnamed json/jsonb parameter");
    }
    let signatures: Vec<String> = overloads.iter().map(signature).collect();
    let near = if overloads.is_empty() {
        let others = schema
            .functions
            .keys()
            .filter(|other| other.schema == *schema_name)
            .map(|other| other.name.as_str());
        closest(others, name, 0.75)
    } else {
        let near = closest(signatures.iter().map(String::as_str), &format!("({list})"), 0.33);
        near.map(|parameters| format!("{name}{parameters}"))
    };
    RestError::new(
        StatusCode::NOT_FOUND,
        "PGRST202",
        format!("Could not find the function {schema_name}.{name}{message} in the schema cache"),
    )
    .details(format!(
        "Searched for the function {schema_name}.{name}{details}, but no matches were found in the schema cache."
    ))
    .hint(near.map(|near| format!("Perhaps you meant to call the function {schema_name}.{near}")))
}

/// The names of the parameters, sorted, in brackets.
fn signature(function: &Function) -> String {
    let mut names: Vec<&str> = function.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    names.sort_unstable();
    format!("({})", names.join(", "))
}

/// PGRST203: several overloads take these arguments.
fn ambiguous(functions: &[&Function]) -> RestError {
    let described: Vec<String> = functions
        .iter()
        .map(|function| {
            let parameters: Vec<String> =
                function.parameters.iter().map(|p| format!("{} => {}", p.name, p.sql_type)).collect();
            format!("{}.{}({})", function.name.schema, function.name.name, parameters.join(", "))
        })
        .collect();
    let message = format!("Could not choose the best candidate function between: {}", described.join(", "));
    RestError::new(StatusCode::MULTIPLE_CHOICES, "PGRST203", message).hint(
        "Try renaming the parameters or the function itself in the database so function overloading can be resolved"
            .to_owned(),
    )
}
