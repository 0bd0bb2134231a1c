//! The words beside the number of a status, where PostgREST's HTTP library has others than ours.

use axum::response::Response;
use http::StatusCode;
use hyper::ext::ReasonPhrase;

/// Gives the answer these words; characters that cannot stand there become spaces.
pub(super) fn say(response: &mut Response, words: &str) {
    let bytes: Vec<u8> =
        words.bytes().map(|byte| if byte < 0x20 || byte == 0x7f { b' ' } else { byte }).collect();
    if let Ok(reason) = ReasonPhrase::try_from(bytes) {
        response.extensions_mut().insert(reason);
    }
}

/// Gives the answer PostgREST's usual words, unless it has some.
pub(super) fn complete(response: &mut Response) {
    if response.extensions().get::<ReasonPhrase>().is_some() {
        return;
    }
    if let Some(words) = usual(response.status()) {
        say(response, words);
    }
}

/// The usual words where ours are others; none for a number unknown to PostgREST.
fn usual(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        203 => Some("Non-Authoritative Information"),
        413 => Some("Request Entity Too Large"),
        414 => Some("Request-URI Too Long"),
        416 => Some("Requested Range Not Satisfiable"),
        100
        | 101
        | 200..=206
        | 300..=305
        | 307
        | 308
        | 400..=418
        | 422
        | 426
        | 428
        | 429
        | 431
        | 500..=505
        | 511 => None,
        _ => Some(""),
    }
}
