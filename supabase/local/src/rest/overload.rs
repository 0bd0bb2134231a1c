//! Finds the function that a call means, among those of the same name.

use http::{Method, StatusCode};

use super::error::RestError;
use super::hint::closest;
use super::request::Request;
use super::schema::{Function, Name, Parameter, Schema};

/// The overload that takes exactly these arguments.
pub(super) fn choose<'a>(
    schema: &'a Schema,
    request: &Request,
    names: &[&str],
) -> Result<&'a Function, RestError> {
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
            whole_body.ok_or_else(|| unknown(schema, request, names, overloads))
        }
        several => Err(ambiguous(several)),
    }
}

/// Whether its one parameter has no name and takes the body as it is.
pub(super) fn takes_body(function: &Function) -> bool {
    let [Parameter { name, sql_type, .. }] = function.parameters.as_slice() else { return false };
    name.is_empty() && matches!(sql_type.as_str(), "json" | "jsonb")
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
