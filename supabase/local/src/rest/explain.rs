//! `Accept: application/vnd.pgrst.plan`: how the database would execute a request, instead of its answer.

use http::HeaderValue;

use super::media::Media;
use super::sql::Sql;

/// What a client may ask of a plan, in the order in which PostgREST repeats it.
const OPTIONS: [&str; 5] = ["analyze", "verbose", "settings", "buffers", "wal"];

/// A plan that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Explain {
    json: bool,
    options: Vec<&'static str>,
    /// The form that the request's answer would have.
    of: Media,
}

impl Explain {
    /// Reads a media range without its spaces. `None` if it is another media type, or the plan of an answer in a form that there is not.
    pub(super) fn of(range: &str) -> Option<Self> {
        let mut parts = range.split(';');
        let json = match parts.next()?.to_ascii_lowercase().as_str() {
            "application/vnd.pgrst.plan" | "application/vnd.pgrst.plan+text" => false,
            "application/vnd.pgrst.plan+json" => true,
            _ => return None,
        };
        let (mut of, mut wanted) = (Media::Json, "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "for" => of = Media::of(value)?,
                "options" => wanted = value,
                _ => {}
            }
        }
        let is_wanted = |option: &&str| wanted.split('|').any(|wanted| wanted == *option);
        Some(Self { json, options: OPTIONS.into_iter().filter(is_wanted).collect(), of })
    }

    /// The form that the request's answer would have.
    pub(super) fn media(&self) -> Media {
        self.of
    }

    /// The media type as PostgREST writes it.
    pub(super) fn media_type(&self) -> String {
        let format = if self.json { "json" } else { "text" };
        let of = self.of.media_type();
        let options = if self.options.is_empty() {
            String::new()
        } else {
            format!("; options={}", self.options.join("|"))
        };
        format!("application/vnd.pgrst.plan+{format}; for=\"{of}\"{options}")
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{}; charset=utf-8", self.media_type())).ok()
    }

    /// The statement that explains another.
    pub(super) fn statement(&self, explained: &Sql) -> Sql {
        let format = if self.json { "FORMAT JSON" } else { "FORMAT TEXT" };
        let options = self.options.iter().map(|option| option.to_ascii_uppercase());
        let options: Vec<_> = std::iter::once(format.to_owned()).chain(options).collect();
        explained.prefixed(&format!("EXPLAIN ({}) ", options.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_named_as_postgrest_names_it() {
        for (range, name) in [
            ("application/vnd.pgrst.plan", "application/vnd.pgrst.plan+text; for=\"application/json\""),
            (
                "application/vnd.pgrst.plan+json;for=\"text/csv\";options=wal|analyze;",
                "application/vnd.pgrst.plan+json; for=\"text/csv\"; options=analyze|wal",
            ),
            (
                "application/vnd.pgrst.plan+text;for=\"application/vnd.pgrst.object+json\";options=;",
                "application/vnd.pgrst.plan+text; for=\"application/vnd.pgrst.object+json\"",
            ),
        ] {
            assert_eq!(Explain::of(range).unwrap().media_type(), name);
        }
        assert_eq!(Explain::of("application/json"), None);
        assert_eq!(Explain::of("application/vnd.pgrst.plan;for=\"image/png\""), None);
    }
}
