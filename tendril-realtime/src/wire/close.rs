//! What a websocket close code means. The one place that decides.

/// How a connection ended that we did not end ourselves. All of them lead to a reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseClass {
    /// The server's idle timeout (1000), a deployment or a settings change (1012): come back almost at once.
    Routine,
    /// 1001: too many joins a second, or the project is gone. Hurrying keeps the limit tripped.
    GoneAway,
    /// 1009: we sent a frame over 5 MB.
    TooBig,
    /// Anything else, among it network loss and crashes.
    Lost,
}

/// By close code; `None` for a connection that ended without a close frame.
pub(crate) fn classify(code: Option<u16>) -> CloseClass {
    match code {
        Some(1000 | 1005 | 1012) => CloseClass::Routine,
        Some(1001) => CloseClass::GoneAway,
        Some(1009) => CloseClass::TooBig,
        _ => CloseClass::Lost,
    }
}

/// The meaning in words.
pub(crate) fn describe(code: Option<u16>) -> &'static str {
    match code {
        Some(1000) => "closed by the server, as it does to a socket it received nothing from",
        Some(1001) => "the server went away from this client: too many joins, or the project is gone",
        Some(1005) => "closed by the server without a code",
        Some(1009) => "a message was larger than the server takes",
        Some(1011) => "the server failed",
        Some(1012) => "the server restarts, or the project's settings changed",
        Some(_) => "closed by the server",
        None => "the connection broke",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_with_1000_is_the_idle_timeout_and_no_reason_to_stay_away() {
        assert_eq!(classify(Some(1000)), CloseClass::Routine);
        assert_eq!(classify(Some(1001)), CloseClass::GoneAway);
        assert_eq!(classify(None), CloseClass::Lost);
    }
}
