//! What the stand-in answers otherwise than the recorded server, and why that does no harm.

use crate::recording::Exchange;

/// Case, exchange, how the difference begins, and why it does no harm.
pub(crate) type Excused = (&'static str, usize, &'static str, &'static str);

/// What the stand-in answers otherwise.
pub(crate) const LEDGER: &[Excused] = &[
    ("004", 1, ".message:", "the words of the server's JSON parser"),
    ("004", 2, ".message:", "the words of the decoder: the field of the wrong type is named otherwise"),
    ("022", 1, ": ", "a Job was deleted while it was watched, by a request that was not recorded"),
    ("022", 2, ": ", "as above: the deleted Job is still there"),
    ("037", 7, "status 200 against 404", "the generated name of a pod"),
    ("038", 6, "status 429 against 403", "there are no disruption budgets, and the agent evicts nothing"),
    ("038", 7, "status 201 against 403", "as above"),
    ("054", 7, "status 200 against 404", "the generated name of a pod"),
    ("054", 8, "status 200 against 404", "as above"),
    ("055", 9, "status 200 against 404", "as above"),
    ("058", 8, "status 200 against 404", "as above"),
    (
        "072",
        5,
        "status 409 against 200",
        "the Secret was changed by a PATCH before, which the agent never makes",
    ),
    ("074", 4, ".status.userInfo.extra:", "tokens have no identity"),
    (
        "076",
        5,
        "status 403 against 401",
        "the recorder's token of an account that is gone was still in the server's cache",
    ),
    ("076", 6, "status 403 against 401", "as above"),
];

/// How many answers are the real server's.
pub(crate) const ALIKE: usize = 188;

/// What an answer says depends on the moment in which it was asked.
pub(crate) const MOMENTS: &[(&str, usize)] =
    &[("034", 7), ("052", 6), ("053", 6), ("055", 8), ("058", 7), ("058", 9), ("058", 10)];

/// Requests that the agent never makes, and that the stand-in does not answer.
pub(crate) fn is_left_out(exchange: &Exchange) -> bool {
    exchange.method == "PATCH"
        || exchange.path.contains("/log?")
        || exchange.path.ends_with("/log") && exchange.user != "nobody"
        || exchange.path.contains("selfsubjectrulesreviews")
        || exchange.path.contains("readyz?verbose")
        || exchange.path.starts_with("/apis/batch/v1 ")
        || matches!(exchange.path.as_str(), "/apis/batch/v1" | "/apis/batch" | "/apis/batch/v9")
        || exchange.request_headers.get("accept").is_some_and(|accept| accept.contains("as="))
        // Live events of a whole run: `lifecycle` compares them.
        || (exchange.path.contains("watch=1") && exchange.status == 200 && !exchange.is_whole)
}

/// Sentences with the number of the newest or the oldest version in them: numbers are not compared.
pub(crate) const NUMBERS: &[(&str, usize)] = &[("020", 6), ("024", 1)];
