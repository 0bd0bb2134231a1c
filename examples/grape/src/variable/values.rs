//! What was given for a template's variables.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::Path,
};

use serde_json::{Map, Value};

use super::{number::read_json, schema::Schema};
use crate::failure::{Failure, FailureKind, Result};

/// `NAME=VALUE` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable's name.
    pub name: String,
    /// What stands behind `=`, as it is.
    pub text: String,
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// A sentence for people.
pub fn assignment(text: &str) -> Result<Assignment, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Assignment { name: name.trim().to_owned(), text: value.to_owned() })
        }
        // The text may be a secret.
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Reads a file of variables: a JSON object, as in `*.tfvars.json`; `-` is stdin.
///
/// # Errors
/// What is wrong with it.
pub fn read_file(path: &Path) -> Result<Map<String, Value>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let name = path.display();
    let text =
        text.map_err(|error| Failure::new(FailureKind::Usage, format!("{name} cannot be read: {error}.")))?;
    // Some editors begin a file with a mark.
    match read_json(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(_) => Err(Failure::new(FailureKind::InvalidVariable, format!("{name} holds no JSON object."))
            .next("Write the variables as {\"name\": value, …}.")),
        Err(why) => Err(Failure::new(FailureKind::InvalidVariable, format!("{name} cannot be read: {why}."))
            .next("Write the variables as JSON: {\"name\": value, …}. Terraform's other notation (*.tfvars) is not read.")),
    }
}

/// Joins files and assignments, later ones first, and types them by the schema. Without one, values of the command line are
/// text, as `terraform -var` passes them.
///
/// # Errors
/// [`FailureKind::InvalidVariable`] with all problems at once.
pub fn typed(
    schema: Option<&Schema>,
    files: Vec<Map<String, Value>>,
    assignments: &[Assignment],
) -> Result<Map<String, Value>> {
    let mut values = Map::new();
    let mut problems = BTreeSet::new();
    let find = |name: &str| schema.map(|schema| schema.properties.get(name));
    for (name, value) in files.into_iter().flatten() {
        match find(&name) {
            Some(Some(schema)) => {
                if let Err(problem) = schema.check(&value) {
                    problems.insert(sentence(&name, &problem));
                }
            }
            Some(None) if schema.is_some_and(Schema::is_closed) => {
                problems.insert(format!("`{name}` is not a variable of this template."));
            }
            _ => {}
        }
        values.insert(name, value);
    }
    for Assignment { name, text } in assignments {
        let value = match find(name) {
            Some(Some(schema)) => schema.read(text).map_err(|problem| sentence(name, &problem)),
            Some(None) if schema.is_some_and(Schema::is_closed) => {
                Err(format!("`{name}` is not a variable of this template."))
            }
            _ => Ok(text.as_str().into()),
        };
        match value {
            Ok(value) => {
                values.insert(name.clone(), value);
            }
            Err(problem) => {
                problems.insert(problem);
            }
        }
    }
    let required = schema.map_or(&[][..], |schema| &schema.required);
    for missing in required
        .iter()
        .filter(|name| !values.contains_key(*name) && !assignments.iter().any(|given| given.name == **name))
    {
        problems.insert(format!("`{missing}` must be given."));
    }
    if problems.is_empty() {
        return Ok(values);
    }
    let problems: Vec<_> = problems.into_iter().collect();
    let names: Vec<_> =
        schema.into_iter().flat_map(|schema| schema.properties.keys()).map(String::as_str).collect();
    Err(Failure::new(FailureKind::InvalidVariable, problems.join("\n       "))
        .next(format!("Its variables are: {}. `grape templates NAME` describes them.", names.join(", "))))
}

fn sentence(name: &str, problem: &str) -> String {
    let joint = if problem.starts_with(['[', '.']) { "" } else { " " };
    format!("`{name}`{joint}{problem}.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hello() -> Schema {
        serde_json::from_value(json!({
            "type": "object", "additionalProperties": false, "required": ["name"],
            "properties": { "name": { "type": "string" }, "lines": { "type": "integer" } },
        }))
        .unwrap()
    }

    fn given(texts: &[&str]) -> Vec<Assignment> {
        texts.iter().map(|text| assignment(text).unwrap()).collect()
    }

    #[test]
    fn the_command_line_goes_before_files() {
        let file = json!({ "name": "file", "lines": 3 }).as_object().unwrap().clone();
        let values = typed(Some(&hello()), vec![file], &given(&["name=1.10"])).unwrap();
        assert_eq!(Value::Object(values), json!({ "name": "1.10", "lines": 3 }));
    }

    #[test]
    fn every_problem_is_said_at_once() {
        let failure = typed(Some(&hello()), Vec::new(), &given(&["lines=many", "nope=1"])).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::InvalidVariable);
        let text = failure.to_string();
        for part in ["`lines` must be an integer.", "`nope` is not a variable", "`name` must be given."] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn without_a_schema_everything_on_the_command_line_is_text() {
        let values = typed(None, Vec::new(), &given(&["a=1.10", "b=true", "c=[1]"])).unwrap();
        assert_eq!(Value::Object(values), json!({ "a": "1.10", "b": "true", "c": "[1]" }));
    }
}
