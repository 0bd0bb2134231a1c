//! A recorded text as it must be sent today.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use supabase_local::JwtSecret;

/// The text with its times moved from the recording's day to now: those in genuine tokens, signed anew, and those of
/// replays.
pub(crate) fn fresh(text: &str, recorded_at: &str) -> String {
    let secret = JwtSecret::default();
    let then = recorded_at.parse::<jiff::Timestamp>().expect("a time").as_second();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut fresh = text.to_owned();
    for word in
        text.split(['"', ' ']).map(|word| word.trim_end_matches('\\')).filter(|word| word.starts_with("eyJ"))
    {
        let Ok(claims) = secret.decode(word) else { continue };
        let mut claims: Value = serde_json::from_str(&claims.to_json()).unwrap();
        let Some(exp) = claims["exp"].as_i64().filter(|exp| (exp - then).abs() < 100_000) else { continue };
        claims["exp"] = (exp - then + now).into();
        fresh = fresh.replace(word, &secret.sign(&claims));
    }
    moved_replay(&fresh, (now - then) * 1000)
}

/// The text with `"since":<whole number>` moved by so many milliseconds.
fn moved_replay(text: &str, by: i64) -> String {
    let Some((before, after)) = text.split_once(r#""since":"#) else { return text.to_owned() };
    let end = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
    let (since, rest) = after.split_at(end);
    format!(r#"{before}"since":{}{rest}"#, since.parse::<i64>().expect("a number") + by)
}

/// The text as it was sent, if the recording shortened it: `{"x":"xxx…(3100090 chars)`. What was lost of a frame of
/// version 1.0.0 is its ref as well.
pub(crate) fn whole(text: &str, reference: u64) -> String {
    let shortened = text.strip_suffix(" chars)").and_then(|text| text.rsplit_once("…("));
    let Some((begin, length)) = shortened else { return text.to_owned() };
    let end =
        if begin.starts_with('[') { r#""}}]"#.to_owned() } else { format!(r#""}}}},"ref":"{reference}"}}"#) };
    let filling = length.parse::<usize>().expect("a length") - begin.len() - end.len();
    format!("{begin}{}{end}", "x".repeat(filling))
}
