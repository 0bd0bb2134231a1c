//! A message of Terraform that is too long to be read as a whole: its text for people is read as it comes, and what else is
//! in it (values, the state) never leaves this place.

use std::borrow::Cow;

use crate::os::text::{char_floor, whole_words};

/// What precedes the message text, after its level.
const MESSAGE_FIELD: &str = "\",\"@message\":\"";
/// How each message begins.
const START: &str = "{\"@level\":\"";
/// What replaces a message that does not begin so.
const LEFT_OUT: &str = "… (a message of Terraform of more than 1 MiB was left out)";
/// What follows the text of a message that contains more than the text.
const CUT: &str = "… (what else this message of more than 1 MiB holds was left out)";

/// How much of an error is the reason of a failure.
const LONGEST_ERROR: usize = 4 * 1024;

/// One message, in fragments.
#[derive(Debug, Default)]
pub(crate) struct LongMessage {
    place: Place,
    /// The beginning of an escape whose end is in the next fragment.
    torn: String,
    /// Whether it explains an error.
    explains: bool,
    /// The beginning of what such a one says.
    error: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Text,
    /// The text is over.
    Over,
    /// It is not understood.
    Unknown,
}

impl LongMessage {
    /// Takes the next fragment; returns its text.
    pub(crate) fn push(&mut self, fragment: &str) -> Option<String> {
        let mut text = Cow::Borrowed(fragment);
        if self.place == Place::Start {
            // The level is short.
            let head = fragment.strip_prefix(START).and_then(|rest| {
                rest.find(MESSAGE_FIELD).filter(|at| *at < 16).map(|at| &rest[at + MESSAGE_FIELD.len()..])
            });
            let Some(rest) = head else {
                self.place = Place::Unknown;
                return None;
            };
            self.explains = rest.starts_with("Error: ");
            (self.place, text) = (Place::Text, Cow::Borrowed(rest));
        }
        if self.place != Place::Text {
            return None;
        }
        if !self.torn.is_empty() {
            text = Cow::Owned(std::mem::take(&mut self.torn) + &text);
        }
        let (end, torn) = message_text(&text);
        if text.as_bytes().get(end) == Some(&b'"') && !torn {
            self.place = Place::Over;
        } else {
            text[end..].clone_into(&mut self.torn);
        }
        let text: Option<String> = serde_json::from_str(&format!("\"{}\"", &text[..end])).ok();
        if self.explains && self.error.len() < LONGEST_ERROR {
            self.error.extend(text.as_deref().map(|text| &text[..char_floor(text, LONGEST_ERROR)]));
        }
        text
    }

    /// The error that it explains, as far as its text for people says.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.error.strip_prefix("Error: ")?;
        Some(format!("{}\n{CUT}", whole_words(error, LONGEST_ERROR)))
    }

    /// The message has ended; the note that follows it.
    pub(crate) fn end(self) -> Option<&'static str> {
        match self.place {
            Place::Unknown | Place::Start => Some(LEFT_OUT),
            Place::Over if !self.explains => None,
            Place::Over | Place::Text => Some(CUT),
        }
    }
}

/// Where the message text ends in a text: at its quote, at the end, or at an escape that the end tears.
fn message_text(text: &str) -> (usize, bool) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (at, false),
            b'\\' => {
                let long = bytes.get(at + 1) == Some(&b'u');
                // A character beyond the first plane is two escapes.
                let pair = long
                    && bytes.get(at + 2..at + 4).is_some_and(|digits| {
                        matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B'])
                    });
                let length = if pair {
                    12
                } else if long {
                    6
                } else {
                    2
                };
                if at + length > bytes.len() {
                    return (at, true);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    (at, true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(line: &str, cuts: &[usize]) -> (String, Option<&'static str>) {
        let (mut message, mut text, mut from) = (LongMessage::default(), String::new(), 0);
        for cut in cuts.iter().copied().chain([line.len()]) {
            let cut =
                (cut.min(line.len())..=line.len()).find(|at| line.is_char_boundary(*at)).unwrap().max(from);
            text.extend(message.push(&line[from..cut]));
            from = cut;
        }
        (text, message.end())
    }

    #[test]
    fn what_is_beside_the_message_stays_hidden() {
        let dump = r#"{"@level":"error","@message":"Emergency state dump","state":{"a":"topsecret"}}"#;
        assert_eq!(read(dump, &[50, 60]), ("Emergency state dump".to_owned(), None));
        for other in [r#"{"@timestamp":"x","@message":"topsecret"}"#, r#"{"state":"topsecret"}"#] {
            assert_eq!(read(other, &[20]), (String::new(), Some(LEFT_OUT)));
        }
    }

    proptest! {
        #[test]
        fn a_message_in_pieces_is_read_whole(text in "[a\"\\\\\n\u{7}é😀]{0,40}", cuts in proptest::collection::vec(60..200_usize, 0..4)) {
            let line = format!(r#"{{"@level":"info","@message":{},"type":"log","x":"\\ud83d"}}"#, json!(text)).replace('é', "\\u00e9").replace('😀', "\\ud83d\\ude00");
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(read(&line, &cuts).0, text);
        }
    }
}
