//! The form of an answer: the `Accept` header.

/// What an answer looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Media {
    /// The rows as a JSON array; of a function, its value.
    #[default]
    Json,
    /// One row as a JSON object; anything else is refused.
    Object,
    Csv,
    GeoJson,
    /// How the database would execute the request.
    Plan(Explain),
}

/// What an execution plan contains: see [`QueryBuilder::explain`](super::QueryBuilder::explain).
///
/// ```
/// use tendril_realtime::rest::Explain;
///
/// let with_times = Explain::default().analyze().buffers();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "these are the independent options of EXPLAIN")]
pub struct Explain {
    json: bool,
    analyze: bool,
    verbose: bool,
    settings: bool,
    buffers: bool,
    wal: bool,
}

impl Explain {
    /// As JSON instead of text.
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Executes the request and measures it. A write does write.
    pub fn analyze(mut self) -> Self {
        self.analyze = true;
        self
    }

    /// With the columns of each step.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    /// With settings that differ from the defaults.
    pub fn settings(mut self) -> Self {
        self.settings = true;
        self
    }

    /// With the use of buffers.
    pub fn buffers(mut self) -> Self {
        self.buffers = true;
        self
    }

    /// With the records written to the write-ahead log.
    pub fn wal(mut self) -> Self {
        self.wal = true;
        self
    }

    fn accept(self, of: &str) -> String {
        let options = [
            ("analyze", self.analyze),
            ("verbose", self.verbose),
            ("settings", self.settings),
            ("buffers", self.buffers),
            ("wal", self.wal),
        ];
        let options: Vec<_> = options.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
        let form = if self.json { "json" } else { "text" };
        format!("application/vnd.pgrst.plan+{form}; for=\"{of}\"; options={};", options.join("|"))
    }
}

impl Media {
    /// The header's value.
    pub(super) fn accept(&self, strip_nulls: bool) -> String {
        let stripped = if strip_nulls { ";nulls=stripped" } else { "" };
        match self {
            Self::Json if strip_nulls => "application/vnd.pgrst.array+json;nulls=stripped".to_owned(),
            Self::Json => "application/json".to_owned(),
            Self::Object => format!("application/vnd.pgrst.object+json{stripped}"),
            Self::Csv => "text/csv".to_owned(),
            Self::GeoJson => "application/geo+json".to_owned(),
            Self::Plan(explain) => explain.accept("application/json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_name() {
        assert_eq!(Media::Json.accept(false), "application/json");
        assert_eq!(Media::Json.accept(true), "application/vnd.pgrst.array+json;nulls=stripped");
        assert_eq!(Media::Object.accept(true), "application/vnd.pgrst.object+json;nulls=stripped");
        assert_eq!(
            Media::Plan(Explain::default().analyze().wal()).accept(false),
            "application/vnd.pgrst.plan+text; for=\"application/json\"; options=analyze|wal;"
        );
    }
}
