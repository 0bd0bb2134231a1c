//! The `Accept` header: which form a client accepts, and whether it wants the plan of its request.

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};

use super::error::RestError;
use super::explain::Explain;
use super::media::Media;

/// The first acceptable form, and what of its plan is wanted instead, if plans are given at all.
///
/// # Errors
/// PGRST107 if there is none.
pub(super) fn negotiate(
    headers: &HeaderMap,
    plan_enabled: bool,
) -> Result<(Media, Option<Explain>), RestError> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    if ranges.is_empty() {
        return Ok((Media::Json, None));
    }
    let explain = |range: &str| Explain::of(&range.replace(' ', ""));
    let form = |range: &&str| match explain(range) {
        Some(explain) => plan_enabled.then_some((explain.media(), Some(explain))),
        None => Media::of(range).map(|media| (media, None)),
    };
    ranges.iter().find_map(form).ok_or_else(|| {
        let name =
            |range: &&str| explain(range).map_or_else(|| (*range).to_owned(), |explain| explain.media_type());
        let names: Vec<_> = ranges.iter().map(name).collect();
        let message = format!("None of these media types are available: {}", names.join(", "));
        RestError::new(StatusCode::NOT_ACCEPTABLE, "PGRST107", message)
    })
}
