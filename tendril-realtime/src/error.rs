//! The one error type of the crate: a kind, a source, and advice on whether to try again.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, with its cause and with advice: see [`Error::kind`], [`Error::retry`] and [`Error::code`].
///
/// No message of this type contains a key or a token.
///
/// ```
/// # use tendril_realtime::{Client, ErrorKind};
/// let error = Client::builder("not a url", "anon-key").build().unwrap_err();
/// assert!(matches!(error.kind(), ErrorKind::InvalidInput { field: "url", .. }));
/// ```
///
/// `{error}` is what went wrong, and [`source`](std::error::Error::source) why; `{error:#}` is both in one line.
///
/// Clones share one error: what ends a channel is the same for everyone who holds it.
#[derive(Debug, Clone)]
pub struct Error(Arc<Inner>);

/// Boxed, so that a `Result` stays as small as its success.
#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

/// The classes of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument the server would refuse or misread; nothing was sent.
    InvalidInput {
        /// The parameter's name.
        field: &'static str,
        /// What is wrong with it, and what it should be.
        reason: String,
    },
    /// The server could not be reached: DNS, TCP, TLS, or a proxy on the way.
    Connect {
        /// The step that failed, such as `tcp` or `tls`.
        step: &'static str,
    },
    /// The websocket upgrade was answered with an HTTP error.
    Handshake {
        /// HTTP status.
        status: u16,
        /// The server's own words, or the status' meaning where it gave none.
        message: String,
    },
    /// The connection ended while something still depended on it.
    ConnectionLost {
        /// Websocket close code, where there was one.
        code: Option<u16>,
        /// Why, in the words of the protocol.
        reason: String,
    },
    /// No answer in time.
    Timeout {
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// The server refused to let the channel be joined, or ended it later.
    Channel {
        /// Sub-topic, without `realtime:`.
        topic: String,
        /// The code before the colon of `reason`, such as `Unauthorized`.
        code: String,
        /// The server's sentence.
        message: String,
        /// What the class of this refusal calls for.
        retry: Retry,
    },
    /// The channel is joined, but the server could not subscribe it to row changes.
    PostgresChanges {
        /// Sub-topic, without `realtime:`.
        topic: String,
        /// The server's sentence.
        message: String,
        /// [`Retry::Never`] for wrong parameters; otherwise the server tries again by itself.
        retry: Retry,
    },
    /// A push (broadcast, track) was answered with an error.
    PushRejected {
        /// The server's words, such as `payload_size_exceeded`.
        message: String,
    },
    /// The token source could not give a token. The source's own error is in the chain: see [`Error::find_source`].
    Token {
        /// Why.
        message: String,
        /// [`Retry::Never`] where there will be no token any more: the session has ended. What needs one ends with this error.
        retry: Retry,
    },
    /// A row or a message is not of the type that was asked for. The stream continues.
    Decode {
        /// What was being read.
        what: &'static str,
        /// The reader's complaint; it names fields and positions, not values.
        message: String,
    },
    /// `PostgREST` answered with an error.
    Postgrest(PostgrestError),
    /// The client was shut down, or the channel was left.
    Closed,
}

/// An error answer of PostgREST: `{"code","details","hint","message"}` and what came with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PostgrestError {
    /// HTTP status.
    pub status: u16,
    /// SQLSTATE or `PGRST…`; empty if the answer had none (a gateway's error page).
    pub code: String,
    /// What happened.
    pub message: String,
    /// More of it, where the server sent it.
    pub details: Option<String>,
    /// What may help, where the server sent it.
    pub hint: Option<String>,
    /// The `Retry-After` header.
    pub retry_after: Option<Duration>,
}

/// Whether doing the same again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// No: something has to be changed first.
    Never,
    /// Yes, with a fresh access token.
    RefreshToken,
    /// Yes, after a growing pause.
    Backoff,
    /// Yes, but not before this time has passed.
    After(Duration),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Arc::new(Inner { kind, source: None }))
    }

    pub(crate) fn with_source(kind: ErrorKind, source: impl Into<Source>) -> Self {
        Self(Arc::new(Inner { kind, source: Some(Arc::from(source.into())) }))
    }

    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput { field, reason: reason.into() })
    }

    pub(crate) fn decode(what: &'static str, error: &serde_json::Error) -> Self {
        Self::new(ErrorKind::Decode { what, message: without_values(error) })
    }

    /// A value of the caller's that cannot be written as JSON.
    pub(crate) fn unserializable(field: &'static str, error: &serde_json::Error) -> Self {
        Self::invalid(field, format!("cannot be written as JSON: {}", without_values(error)))
    }

    /// The class of the failure.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the same again can help, and when.
    pub fn retry(&self) -> Retry {
        match &self.0.kind {
            ErrorKind::InvalidInput { .. }
            | ErrorKind::PushRejected { .. }
            | ErrorKind::Decode { .. }
            | ErrorKind::Closed => Retry::Never,
            ErrorKind::Connect { .. } | ErrorKind::ConnectionLost { .. } | ErrorKind::Timeout { .. } => {
                Retry::Backoff
            }
            ErrorKind::Handshake { status, message } => handshake_retry(*status, message),
            ErrorKind::Token { retry, .. }
            | ErrorKind::Channel { retry, .. }
            | ErrorKind::PostgresChanges { retry, .. } => *retry,
            ErrorKind::Postgrest(api) => api.retry(),
        }
    }

    /// A short machine-readable name: the server's own code where it gave one, otherwise the kind's.
    pub fn code(&self) -> &str {
        match &self.0.kind {
            ErrorKind::InvalidInput { .. } => "InvalidInput",
            ErrorKind::Connect { .. } => "ConnectFailed",
            ErrorKind::Handshake { .. } => "Handshake",
            ErrorKind::ConnectionLost { .. } => "ConnectionLost",
            ErrorKind::Timeout { .. } => "Timeout",
            ErrorKind::Channel { code, .. } => code,
            ErrorKind::PostgresChanges { .. } => "PostgresChanges",
            ErrorKind::PushRejected { .. } => "PushRejected",
            ErrorKind::Token { .. } => "TokenSource",
            ErrorKind::Decode { .. } => "Decode",
            ErrorKind::Postgrest(api) if api.code.is_empty() => "Http",
            ErrorKind::Postgrest(api) => &api.code,
            ErrorKind::Closed => "Closed",
        }
    }

    /// The first error of this type among the causes: the one that a [token source](Error::token) failed with, for one, or the
    /// [`std::io::Error`] of a connection.
    ///
    /// ```
    /// # use tendril_realtime::Error;
    /// let error = Error::token(std::io::Error::from(std::io::ErrorKind::NotFound));
    /// let cause = error.find_source::<std::io::Error>();
    /// assert_eq!(cause.map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
    /// ```
    pub fn find_source<T: StdError + 'static>(&self) -> Option<&T> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    /// The error answer of `PostgREST`, where this is one.
    pub fn postgrest(&self) -> Option<&PostgrestError> {
        match &self.0.kind {
            ErrorKind::Postgrest(api) => Some(api),
            _ => None,
        }
    }

    /// For an error whose remedy is not to be had, such as a fresh token from a source that has only one.
    pub(crate) fn into_final(self) -> Self {
        let mut kind = self.0.kind.clone();
        if let ErrorKind::Channel { retry, .. } | ErrorKind::PostgresChanges { retry, .. } = &mut kind {
            *retry = Retry::Never;
        }
        Self(Arc::new(Inner { kind, source: self.0.source.clone() }))
    }

    /// The same error, for a second listener.
    pub(crate) fn duplicate(&self) -> Self {
        self.clone()
    }
}

impl PostgrestError {
    /// By status and code: what a repetition can do. Whether a repetition is *safe* is the caller's knowledge.
    pub fn retry(&self) -> Retry {
        match (self.status, self.code.as_str()) {
            // PGRST303 is an expired or not yet valid token; PGRST301 one that will never be accepted.
            (401, "PGRST303") => Retry::RefreshToken,
            // Older servers write it as a sentence; the broadcast interface only as "Unauthorized".
            (401, code) if code.is_empty() || self.message.contains("expired") => Retry::RefreshToken,
            (408 | 429 | 502 | 503 | 504, _)
            | (500, "57014")
            | (_, "PGRST000" | "PGRST001" | "PGRST002" | "PGRST003") => match self.retry_after {
                Some(pause) if !pause.is_zero() => Retry::After(pause),
                _ => Retry::Backoff,
            },
            // Serialization failure and deadlock.
            (_, "40001" | "40P01") => Retry::Backoff,
            (520..=540, _) => Retry::Backoff,
            (500, "") => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

fn handshake_retry(status: u16, message: &str) -> Retry {
    match status {
        // Keys may be rotating.
        401 if message.contains("JWT signer") => Retry::After(Duration::from_secs(30)),
        // Counters are 60 s averages; sooner keeps them tripped.
        429 => Retry::After(Duration::from_secs(30)),
        // A paused project may come back; a gateway that just started has no routes yet.
        404 => Retry::After(Duration::from_secs(60)),
        403 if message.contains("enant") => Retry::After(Duration::from_secs(60)),
        408 | 425 => Retry::Backoff,
        // A redirect of the same address stays one.
        300..=499 => Retry::Never,
        _ => Retry::Backoff,
    }
}

/// `serde_json` quotes the offending value (``invalid type: string "…"``, ``unknown variant `…` ``); values may be secrets.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let names_a_value =
        ["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|start| text.starts_with(start));
    if names_a_value
        && let (Some(start), Some(end)) = (text.find(['"', '`']), text.rfind(", expected "))
        && start < end
    {
        return format!("{}…{}", &text[..start], &text[end..]);
    }
    // Of other types' own messages: what is in quotes, which may have quotes in it, escaped.
    let mut out = String::with_capacity(text.len());
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => {
                is_quoted = !is_quoted;
                if is_quoted {
                    out.push('…');
                }
            }
            _ if is_quoted => {}
            c => out.push(c),
        }
    }
    out
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            ErrorKind::InvalidInput { field, reason } => write!(f, "invalid {field}: {reason}"),
            ErrorKind::Connect { step } => write!(f, "cannot connect ({step})"),
            ErrorKind::Handshake { status, message } => {
                write!(f, "the server refused the connection: HTTP {status}: {message}")
            }
            ErrorKind::ConnectionLost { code: Some(code), reason } => {
                write!(f, "the connection was lost: {reason} (close code {code})")
            }
            ErrorKind::ConnectionLost { code: None, reason } => {
                write!(f, "the connection was lost: {reason}")
            }
            ErrorKind::Timeout { waiting_for } => write!(f, "timed out waiting for {waiting_for}"),
            ErrorKind::Channel { topic, message, .. } => write!(f, "channel `{topic}`: {message}"),
            ErrorKind::PostgresChanges { topic, message, .. } => {
                write!(f, "row changes of channel `{topic}`: {message}")
            }
            ErrorKind::PushRejected { message } => write!(f, "the server refused the message: {message}"),
            // The chain of causes follows, and begins with the same text.
            ErrorKind::Token { .. } if f.alternate() && self.0.source.is_some() => {
                f.write_str("no access token")
            }
            ErrorKind::Token { message, .. } => write!(f, "no access token: {message}"),
            ErrorKind::Decode { what, message } => write!(f, "cannot read {what}: {message}"),
            ErrorKind::Postgrest(api) => write!(f, "{api}"),
            ErrorKind::Closed => f.write_str("the channel or the client was closed"),
        }?;
        if f.alternate() {
            let mut cause = self.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Display for PostgrestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(details) = &self.details {
            write!(f, " ({details})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " hint: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_part_of_an_error_however_it_is_written() {
        #[derive(serde::Deserialize)]
        enum Level {
            A,
        }
        let Level::A = serde_json::from_str(r#""A""#).unwrap();
        for json in
            [r#""se\"cret\", expected `x""#, r#""`, expected secret\\\" x""#, r#"["secret"]"#, "771234"]
        {
            for error in [serde_json::from_str::<bool>(json).err(), serde_json::from_str::<Level>(json).err()]
            {
                let text = Error::decode("a row", &error.unwrap()).to_string();
                assert!(!text.contains("cret") && !text.contains("77"), "{json}: {text}");
                assert!(text.contains("line 1"), "{text}");
            }
        }
    }
}
