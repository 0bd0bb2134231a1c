//! What the server's sentences mean: there are no machine-readable codes beside the word before the first colon.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Retry};

/// Rate-limit counters are averages of 60 s: sooner than this keeps them tripped.
pub(crate) const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(30);
/// For projects that are disabled or paused and may come back.
const DORMANT_PAUSE: Duration = Duration::from_secs(300);

/// The error for a refused join, from the `reason` of its reply.
pub(crate) fn refused_join(topic: &str, reason: &str) -> Error {
    let (code, retry) = classify_join(reason);
    let message = if reason.is_empty() { "the server gave no reason" } else { reason };
    channel_error(topic, code, message, retry)
}

/// The error for a channel that the server ends, from the `system` message before its `phx_close`.
pub(crate) fn ended_channel(topic: &str, message: &str) -> Error {
    let (code, retry) = classify_end(message);
    channel_error(topic, code, message, retry)
}

/// The error of a `system` message of extension `postgres_changes`.
pub(crate) fn failed_changes(topic: &str, message: &str) -> Error {
    let retry = if is_parameter_mistake(message) { Retry::Never } else { Retry::Backoff };
    let kind = ErrorKind::PostgresChanges { topic: topic.to_owned(), message: message.to_owned(), retry };
    match publication_hint(message) {
        Some(hint) => Error::with_source(kind, hint),
        None => Error::new(kind),
    }
}

/// What nearly always is the cause where the server refuses the parameters, with the statement that helps.
fn publication_hint(message: &str) -> Option<String> {
    let parameters =
        message.split_once("Please check Realtime is enabled for the given connect parameters: [")?.1;
    let value = |name: &str| {
        let rest = parameters.split_once(&format!("{name}: "))?.1;
        Some(rest.split([',', ']']).next()?.trim())
    };
    let (schema, table) = (value("schema")?, value("table")?);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    Some(if table == "nil" || table == "*" {
        format!(
            "is any table of {schema} published? `alter publication supabase_realtime add tables in schema {}`",
            quoted(schema)
        )
    } else {
        format!(
            "is the table published? `alter publication supabase_realtime add table {}.{}`",
            quoted(schema),
            quoted(table)
        )
    })
}

fn channel_error(topic: &str, code: &str, message: &str, retry: Retry) -> Error {
    Error::new(ErrorKind::Channel {
        topic: topic.to_owned(),
        code: code.to_owned(),
        message: message.to_owned(),
        retry,
    })
}

/// By the word before the colon; a few reasons have none.
fn classify_join(reason: &str) -> (&str, Retry) {
    let code = reason.split_once(':').map_or("", |(code, _)| code);
    let code = if code.contains(' ') { "" } else { code };
    let retry = match code {
        // Older servers, and the docs, have InvalidJWTExpiration.
        "InvalidJWTToken" | "InvalidJWTExpiration" if reason.contains("has expired") => Retry::RefreshToken,
        "InvalidJWTToken" | "MalformedJWT" | "JwtSignatureError" => Retry::Never,
        // Signing keys may be rotating.
        "JwtSignerError" => Retry::After(RATE_LIMIT_PAUSE),
        "TopicNameRequired" | "Unauthorized" | "PrivateOnly" | "ChannelRateLimitReached" => Retry::Never,
        "ConnectionRateLimitReached"
        | "ClientJoinRateLimitReached"
        | "DatabaseConnectionRateLimitReached" => Retry::After(RATE_LIMIT_PAUSE),
        "RealtimeDisabledForTenant" | "TenantNotFound" => Retry::After(DORMANT_PAUSE),
        "UnableToReplayMessages" if reason.contains("not valid") || reason.contains("not allowed") => {
            Retry::Never
        }
        _ => Retry::Backoff,
    };
    match (code, reason) {
        ("", "unmatched topic") => ("UnmatchedTopic", Retry::Backoff),
        ("", "too many channels joined") => ("ChannelRateLimitReached", Retry::Never),
        ("", "") => ("NoReason", Retry::Backoff),
        ("", _) if reason.contains("has expired") => ("InvalidJWTToken", Retry::RefreshToken),
        ("", _) => ("UnknownErrorOnChannel", retry),
        (code, _) => (code, retry),
    }
}

/// By text: see the table of `system` messages in the protocol reference.
fn classify_end(message: &str) -> (&'static str, Retry) {
    const TABLE: &[(&str, &str, Retry)] = &[
        ("has expired", "InvalidJWTToken", Retry::RefreshToken),
        ("are required in JWT", "InvalidJWTToken", Retry::Never),
        ("not a valid JWT", "MalformedJWT", Retry::Never),
        ("signature_error", "JwtSignatureError", Retry::Never),
        ("validate JWT signature", "JwtSignatureError", Retry::Never),
        ("JWT signer", "JwtSignerError", Retry::After(RATE_LIMIT_PAUSE)),
        ("permission", "Unauthorized", Retry::Never),
        ("Too many", "RateLimitReached", Retry::After(RATE_LIMIT_PAUSE)),
        ("rate limit", "RateLimitReached", Retry::After(RATE_LIMIT_PAUSE)),
        ("Track message size exceeded", "PayloadTooLarge", Retry::Never),
    ];
    TABLE
        .iter()
        .find(|(part, ..)| message.contains(part))
        .map_or(("ChannelShutdown", Retry::Backoff), |(_, code, retry)| (code, *retry))
}

/// Mistakes in the bindings are not retried by the server, and a repetition cannot help. A database that fails for a while is another
/// matter, even where it shows as an exception of the same statement.
fn is_parameter_mistake(message: &str) -> bool {
    let mistaken = [
        "Error parsing",
        "Column selection is not supported",
        "No subscription params provided",
        "Unable to subscribe to changes with given parameters",
    ];
    // SQLSTATE classes: connection, rollback, resources, operator intervention.
    let transient = ["ERROR 08", "ERROR 40", "ERROR 53", "ERROR 57"];
    let contains = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    contains(&mistaken) && !contains(&transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_join_are_classed_by_their_code() {
        for (reason, code, retry) in [
            ("InvalidJWTToken: Token has expired 100 seconds ago", "InvalidJWTToken", Retry::RefreshToken),
            ("InvalidJWTToken: Fields `role` and `exp` are required in JWT", "InvalidJWTToken", Retry::Never),
            ("MalformedJWT: The token provided is not a valid JWT", "MalformedJWT", Retry::Never),
            (
                "Unauthorized: You do not have permissions to read from this Channel topic: x",
                "Unauthorized",
                Retry::Never,
            ),
            (
                "ClientJoinRateLimitReached: Too many joins per second",
                "ClientJoinRateLimitReached",
                Retry::After(RATE_LIMIT_PAUSE),
            ),
            (
                "Realtime was unable to connect to the project database",
                "UnknownErrorOnChannel",
                Retry::Backoff,
            ),
            (
                "RealtimeRestarting: Realtime is restarting, please standby",
                "RealtimeRestarting",
                Retry::Backoff,
            ),
            ("SomethingNew: of tomorrow", "SomethingNew", Retry::Backoff),
            ("unmatched topic", "UnmatchedTopic", Retry::Backoff),
        ] {
            let error = refused_join("x", reason);
            assert_eq!((error.code(), error.retry()), (code, retry), "{reason}");
        }
    }

    #[test]
    fn the_end_of_a_channel_is_classed_by_its_text() {
        for (message, retry) in [
            ("Token has expired 0 seconds ago", Retry::RefreshToken),
            ("You no longer have permission to read from this Channel topic: x", Retry::Never),
            ("Too many messages per second", Retry::After(RATE_LIMIT_PAUSE)),
            ("Client presence rate limit exceeded", Retry::After(RATE_LIMIT_PAUSE)),
            (":signature_error", Retry::Never),
            ("Node request timeout", Retry::Backoff),
        ] {
            assert_eq!(ended_channel("x", message).retry(), retry, "{message}");
        }
    }

    #[test]
    fn a_wrong_binding_is_final_and_a_troubled_database_is_not() {
        let wrong = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [event: *, schema: public, table: nope, filters: [], select: nil]";
        let error = failed_changes("x", wrong);
        assert_eq!(error.retry(), Retry::Never);
        let statement = "alter publication supabase_realtime add table \"public\".\"nope\"";
        assert!(format!("{error:#}").contains(statement), "{error:#}");
        assert_eq!(failed_changes("x", r#"{:error, "Too many database timeouts"}"#).retry(), Retry::Backoff);
    }
}
