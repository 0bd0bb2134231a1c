//! The outer part of each statement: PostgreSQL itself makes the body, so that numbers, order of keys and
//! separators are its own.

use super::media::Media;
use super::plan::{Plan, SOURCE};
use super::sql::{Sql, literal};

/// What the rows of a statement are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows.
    Rows,
    /// One row of a function.
    Row,
    /// One value of a function.
    Value,
    /// Values of a function.
    Values,
}

/// What to make of the rows.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    /// The form of the body; `None` if there is none.
    pub(super) media: Option<Media>,
    /// What the rows are.
    pub(super) shape: Shape,
    /// Whether there is a `pgrst_source_count` to count.
    pub(super) counted: bool,
    /// The columns of the primary key, if `Location` is wanted.
    pub(super) location: Option<&'a [String]>,
}

/// Begins the statement; its first part follows.
pub(super) fn begin() -> Sql {
    let mut sql = Sql::default();
    sql.push("WITH ").push(SOURCE).push(" AS (");
    sql
}

/// Ends the first part, and counts its rows without the page.
pub(super) fn count(sql: &mut Sql, plan: &Plan<'_>) {
    sql.push("), pgrst_source_count AS (");
    plan.select_for_count(sql);
}

/// Ends the first part and makes the answer: from what `plan` reads of it, or of all of it.
pub(super) fn finish(sql: &mut Sql, outcome: &Outcome<'_>, plan: Option<&Plan<'_>>) {
    sql.push(") SELECT ");
    sql.push(if outcome.counted {
        "(SELECT pg_catalog.count(*) FROM pgrst_source_count)"
    } else {
        "null::bigint"
    });
    sql.push(", pg_catalog.count(*), (").push(&body(outcome)).push(")::text");
    for setting in ["response.headers", "response.status"] {
        sql.push(&format!(", nullif(current_setting('{setting}', true), '')"));
    }
    sql.push(", nullif(current_setting('pgrst.inserted', true), '')::bigint, ")
        .push(&location(outcome.location));
    sql.push(" FROM (");
    match plan {
        Some(plan) => plan.select(sql, None),
        None => {
            sql.push("SELECT * FROM ").push(SOURCE);
        }
    }
    sql.push(") _postgrest_t");
}

fn body(outcome: &Outcome<'_>) -> String {
    let Some(media) = outcome.media else { return "''".into() };
    let row = match outcome.shape {
        Shape::Rows | Shape::Row => "_postgrest_t",
        Shape::Value | Shape::Values => "_postgrest_t.pgrst_scalar",
    };
    if media == Media::Csv {
        // Names come from the first row, so that no rows make no header, as with PostgREST.
        return format!(
            "coalesce((SELECT string_agg(key, ',') FROM json_object_keys(json_agg({row})->0) key), '') || E'\\n' || \
             coalesce(string_agg(substring({row}::text, 2, length({row}::text) - 2), E'\\n'), '')"
        );
    }
    if media == Media::GeoJson {
        return format!(
            "json_build_object('type', 'FeatureCollection', 'features', coalesce(json_agg(ST_AsGeoJSON({row})::json), '[]'))"
        );
    }
    let stripped =
        |json: &str| if media.is_stripped() { format!("json_strip_nulls({json})") } else { json.to_owned() };
    let many = format!("json_agg({row})");
    if media.is_object() || matches!(outcome.shape, Shape::Row | Shape::Value) {
        format!("coalesce({}, 'null')", stripped(&format!("{many}->0")))
    } else {
        format!("coalesce({}, '[]')", stripped(&many))
    }
}

/// `column=eq.value` of each column of the key.
fn location(key: Option<&[String]>) -> String {
    let Some(key) = key.filter(|key| !key.is_empty()) else { return "null::text[]".into() };
    let names: Vec<String> = key.iter().map(|name| literal(name)).collect();
    format!(
        "(SELECT array_agg(pair.key || '=' || coalesce('eq.' || pair.value, 'is.null')) FROM \
         (SELECT row_to_json(_) AS row FROM {SOURCE} AS _ LIMIT 1) first, json_each_text(first.row) AS pair \
         WHERE pair.key IN ({}))",
        names.join(", ")
    )
}
