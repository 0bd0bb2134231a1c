//! W3C trace context: which trace the requests of this client belong to.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::Error;

/// The trace that a request belongs to, in the terms of [W3C Trace Context](https://www.w3.org/TR/trace-context/). Supabase's
/// gateway and Edge Functions write the trace id into their logs.
///
/// [`ClientBuilder::trace_context`](crate::ClientBuilder::trace_context) attaches it to what goes over HTTP: REST, Edge
/// Functions, the broadcast API, and the websocket's upgrade. A message on an open websocket has no headers. To let a trace go on in
/// the reader of a broadcast, put a `TraceContext` into its payload: it is written and read as the fields `traceparent`,
/// `tracestate` and `baggage`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tendril_realtime::TraceContext;
///
/// #[derive(Serialize, Deserialize)]
/// struct Move {
///     x: i32,
///     #[serde(flatten)]
///     trace: Option<TraceContext>,
/// }
///
/// let trace = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?;
/// let message = serde_json::to_value(Move { x: 1, trace: Some(trace) }).unwrap();
/// assert_eq!(message["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
/// # Ok::<(), tendril_realtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct TraceContext {
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baggage: Option<String>,
}

/// As it comes, unchecked.
#[derive(Deserialize)]
struct Fields {
    traceparent: String,
    tracestate: Option<String>,
    baggage: Option<String>,
}

impl TraceContext {
    /// Takes a `traceparent`: version, trace id, parent id and flags, in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is none.
    pub fn new(traceparent: impl Into<String>) -> Result<Self, Error> {
        let traceparent = traceparent.into();
        if !is_traceparent(&traceparent) {
            return Err(Error::invalid(
                "traceparent",
                "it is not of the form 00-<32 hexadecimal digits>-<16 hexadecimal digits>-<2 hexadecimal digits>",
            ));
        }
        Ok(Self { traceparent, tracestate: None, baggage: None })
    }

    /// Adds the tracing vendor's data about the trace.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what no header can carry.
    pub fn with_tracestate(mut self, tracestate: impl Into<String>) -> Result<Self, Error> {
        self.tracestate = Some(header_text("tracestate", tracestate.into())?);
        Ok(self)
    }

    /// Adds the application's data about the trace.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what no header can carry.
    pub fn with_baggage(mut self, baggage: impl Into<String>) -> Result<Self, Error> {
        self.baggage = Some(header_text("baggage", baggage.into())?);
        Ok(self)
    }

    /// Version, trace id, parent id and flags.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The tracing vendor's data about the trace.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The application's data about the trace.
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        let flags = self.traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }

    /// Adds its headers to a request. Of a trace that is not recorded only the ids go along, so that logs can be matched.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let more = [("tracestate", self.tracestate()), ("baggage", self.baggage())];
        let more = more.into_iter().filter(|_| self.is_sampled());
        for (name, value) in [("traceparent", Some(self.traceparent()))].into_iter().chain(more) {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

impl TryFrom<Fields> for TraceContext {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self, Error> {
        let mut context = Self::new(fields.traceparent)?;
        if let Some(tracestate) = fields.tracestate {
            context = context.with_tracestate(tracestate)?;
        }
        if let Some(baggage) = fields.baggage {
            context = context.with_baggage(baggage)?;
        }
        Ok(context)
    }
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    match parts[..] {
        // Later versions may append parts of their own; version 255 is none.
        [version, trace, parent, flags, ref rest @ ..] => {
            is_hex(version, 2)
                && version != "ff"
                && is_hex(trace, 32)
                && !is_zero(trace)
                && is_hex(parent, 16)
                && !is_zero(parent)
                && is_hex(flags, 2)
                && (rest.is_empty() || version != "00")
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        }
        _ => false,
    }
}

fn header_text(field: &'static str, text: String) -> Result<String, Error> {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(Error::invalid(field, "it contains characters that no HTTP header can carry"))
    }
}

/// Where the trace of a request comes from.
#[derive(Clone)]
pub(crate) struct TraceSource(Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>);

impl TraceSource {
    pub(crate) fn new(source: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The trace of what is sent now. A closure that panics costs the trace and nothing else.
    pub(crate) fn current(&self) -> Option<TraceContext> {
        catch_unwind(AssertUnwindSafe(|| (self.0)())).unwrap_or_default()
    }
}

impl fmt::Debug for TraceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceSource(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_no_traceparent_is_refused() {
        assert!(TraceContext::new(SAMPLED).unwrap().is_sampled());
        assert!(!TraceContext::new(SAMPLED.replace("-01", "-00")).unwrap().is_sampled());
        assert!(TraceContext::new(format!("cc{}-more", &SAMPLED[2..])).is_ok(), "a later version");
        for wrong in [
            "",
            "00",
            &SAMPLED.to_uppercase(),
            &SAMPLED.replace("0af7", "0af"),
            &SAMPLED.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &SAMPLED.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{SAMPLED}-more"),
            &format!("ff{}", &SAMPLED[2..]),
            &format!("{SAMPLED}\r\nx: y"),
        ] {
            assert!(TraceContext::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(TraceContext::new(SAMPLED).unwrap().with_baggage("a=b\r\nx: y").is_err());
    }

    #[test]
    fn of_a_trace_that_is_not_recorded_only_the_ids_go_along() {
        let headers = |flags: &str| {
            let mut headers = HeaderMap::new();
            let context = TraceContext::new(SAMPLED.replace("-01", flags)).unwrap();
            context.with_tracestate("v=1").unwrap().with_baggage("a=b").unwrap().add_to(&mut headers);
            headers.len()
        };
        assert_eq!((headers("-01"), headers("-00")), (3, 1));
    }

    #[test]
    fn it_is_read_from_a_payload_only_where_it_is_sound() {
        let read = |text: &str| serde_json::from_str::<TraceContext>(text).ok();
        assert_eq!(read(&format!(r#"{{"traceparent":"{SAMPLED}"}}"#)), TraceContext::new(SAMPLED).ok());
        assert_eq!(read(r#"{"traceparent":"x"}"#), None);
    }
}
