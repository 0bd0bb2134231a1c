//! Finds the relationship that an embedded table means.

use http::StatusCode;
use serde_json::json;

use super::error::RestError;
use super::hint::closest;
use super::schema::{Link, Name, Relationship, Schema};
use super::select::Embed;

/// The one relationship from `parent` that the embed can mean.
///
/// # Errors
/// PGRST200 if there is none, PGRST201 if there are several.
pub(super) fn find<'a>(
    schema: &'a Schema,
    parent: &Name,
    embed: &Embed,
) -> Result<&'a Relationship, RestError> {
    let matches: Vec<&Relationship> = schema
        .relationships
        .iter()
        .filter(|way| way.from == *parent && way.to.schema == parent.schema && means(way, &embed.target))
        .filter(|way| embed.hint.as_ref().is_none_or(|hint| matches_hint(way, hint)))
        .collect();
    match matches.as_slice() {
        [one] => Ok(one),
        [] => Err(none(schema, parent, embed)),
        several => Err(ambiguous(parent, embed, several)),
    }
}

/// Whether the name is that of the table at the end, of the foreign key, or of its one column here.
fn means(way: &Relationship, word: &str) -> bool {
    if way.to.name == word {
        return true;
    }
    match &way.link {
        Link::ToOne { columns, .. } => {
            way.constraint == word || matches!(columns.as_slice(), [(here, _)] if here == word)
        }
        Link::ToMany { .. } => way.constraint == word,
        Link::Through { .. } => false,
    }
}

/// Whether the hint after `!` selects this relationship: by foreign key, column or junction table.
fn matches_hint(way: &Relationship, word: &str) -> bool {
    way.constraint == word
        || match &way.link {
            Link::ToOne { columns, .. } | Link::ToMany { columns } => {
                matches!(columns.as_slice(), [(here, there)] if here == word || there == word)
            }
            Link::Through { .. } => false,
        }
}

fn none(schema: &Schema, parent: &Name, embed: &Embed) -> RestError {
    let (from, to) = (&parent.name, &embed.target);
    let using = embed.hint.as_ref().map_or_else(String::new, |hint| format!(" using the hint '{hint}'"));
    let related =
        schema.relationships.iter().filter(|way| way.from == *parent).map(|way| way.to.name.as_str());
    // Both exist, or nothing is near: a suggestion would only mislead.
    let near = closest(related, to, 0.33).filter(|near| near != to);
    RestError::bad_request(
        "PGRST200",
        format!("Could not find a relationship between '{from}' and '{to}' in the schema cache"),
    )
    .details(format!(
        "Searched for a foreign key relationship between '{from}' and '{to}'{using} in the schema '{}', but no matches \
         were found.",
        parent.schema
    ))
    .hint(near.map(|near| format!("Perhaps you meant '{near}' instead of '{to}'.")))
}

fn ambiguous(parent: &Name, embed: &Embed, ways: &[&Relationship]) -> RestError {
    let (from, to) = (&parent.name, &embed.target);
    let details: Vec<serde_json::Value> = ways.iter().map(|way| description(way)).collect();
    let choices: Vec<String> =
        ways.iter().map(|way| format!("'{}!{}'", way.to.name, way.constraint)).collect();
    RestError::new(
        StatusCode::MULTIPLE_CHOICES,
        "PGRST201",
        format!("Could not embed because more than one relationship was found for '{from}' and '{to}'"),
    )
    .details(details)
    .hint(format!(
        "Try changing '{to}' to one of the following: {}. Find the desired relationship in the 'details' key.",
        choices.join(", ")
    ))
}

fn description(way: &Relationship) -> serde_json::Value {
    let sides = |columns: &[(String, String)]| {
        let (here, there): (Vec<_>, Vec<_>) =
            columns.iter().map(|(here, there)| (here.as_str(), there.as_str())).unzip();
        format!(
            "{} using {}({}) and {}({})",
            way.constraint,
            way.from.name,
            here.join(", "),
            way.to.name,
            there.join(", ")
        )
    };
    let (cardinality, relationship) = match &way.link {
        Link::ToOne { columns, unique: false } => ("many-to-one", sides(columns)),
        Link::ToOne { columns, unique: true } => ("one-to-one", sides(columns)),
        Link::ToMany { columns } => ("one-to-many", sides(columns)),
        Link::Through { junction, constraints: [near, far], .. } => {
            ("many-to-many", format!("{} using {near} and {far}", junction.name))
        }
    };
    json!({
        "cardinality": cardinality,
        "embedding": format!("{} with {}", way.from.name, way.to.name),
        "relationship": relationship,
    })
}
