//! The agent's own log, and its metrics recorder.

use std::io::{self, IsTerminal, Write};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};
use uuid::Uuid;

use crate::{redaction::Redactor, telemetry};

/// Form of the agent's own log on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event.
    Human,
    /// One JSON object per event.
    Json,
}

/// How the log is written.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
    /// On every line of the JSON form.
    pub(crate) cluster_id: Uuid,
    /// What no line shows.
    pub(crate) secrets: Redactor,
}

/// Installs the process's subscriber, which hides the agent's secrets. A filter that cannot be read falls back to `info`; a
/// second call changes nothing.
pub(crate) fn install(settings: &LogSettings) {
    // The Kubernetes client logs every failed request as an error; its caller reports what it means. Named in the filter, it
    // is logged.
    let quiet = if cfg!(feature = "kubernetes") { "kube_client=off," } else { "" };
    let filter = format!("{quiet}{}", settings.filter).parse::<Targets>();
    let filter = filter.unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let head = match settings.format {
        LogFormat::Human => String::new(),
        LogFormat::Json => format!("{{\"cluster\":\"{}\",", settings.cluster_id),
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Stderr { head, secrets: settings.secrets.clone() });
    // Only a test harness can have installed one before, and that one stays.
    let _installed = match settings.format {
        LogFormat::Human => builder.with_target(false).finish().with(filter).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter).try_init(),
    };
}

/// Where the log goes. Each line is written at once.
struct Stderr {
    /// What each line begins with, in the place of its own `{`. A span would not be on the lines of tasks that others spawn.
    head: String,
    secrets: Redactor,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = self.secrets.redact(&text);
        let mut stderr = io::stderr().lock();
        match text.strip_prefix('{') {
            Some(rest) if !self.head.is_empty() => write!(stderr, "{}{rest}", self.head)?,
            _ => stderr.write_all(text.as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Installs the process's recorder. `None` when there is one already.
pub(crate) fn install_metrics() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    telemetry::describe();
    Some(handle)
}
