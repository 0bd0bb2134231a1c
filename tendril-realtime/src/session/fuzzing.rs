//! The entry points of the fuzzers: a frame as it comes from the wire, through decoder and session.

#![cfg_attr(not(feature = "fuzzing"), expect(unreachable_pub, reason = "tests reach it inside the crate"))]

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Action, Command, Interest, Renewal, RequestId, Session, Settings, Subscriber, SubscriberId, TopicId,
};
use crate::wire::{
    self, Utf8Bytes,
    join::{Binding, JoinConfig, PostgresEvent},
};

/// Any text frame.
pub fn text_frame(text: &str) {
    feed(|session, now, out| session.on_text(Utf8Bytes::from(text), now, out).is_ok());
}

/// Any binary frame.
pub fn binary_frame(frame: &[u8]) {
    feed(|session, now, out| {
        wire::binary::decode(&Bytes::copy_from_slice(frame))
            .map(|message| session.on_message(message, now, out))
            .is_ok()
    });
}

/// Plays it to a session with a channel that receives rows, broadcasts and presence and has a join under way.
fn feed(receive: impl Fn(&mut Session, Instant, &mut Vec<Action>) -> bool) {
    let now = Instant::now();
    let mut out = Vec::new();
    let mut session = Session::new(Settings::default(), true, Renewal::BySource, now, 0);
    session.on_open(now, &mut out);
    let binding = Binding {
        event: PostgresEvent::All,
        schema: "public".to_owned(),
        table: Some("t".to_owned()),
        filter: None,
        select: Vec::new(),
    };
    let config = JoinConfig { bindings: vec![binding], ..JoinConfig::default() };
    let interests = [Interest::Changes(0), Interest::Broadcast, Interest::Presence];
    let subscribers =
        (10..).zip(interests).map(|(id, interest)| Subscriber { id: SubscriberId(id), interest }).collect();
    let open =
        Command::Open { topic: TopicId(1), name: "t".to_owned(), config, subscribers, ready: RequestId(1) };
    session.on_command(open, now, &mut out);
    if !receive(&mut session, now, &mut out) {
        return;
    }
    // Once more after the channel is joined, which the same message may have done.
    receive(&mut session, now + Duration::from_secs(1), &mut out);
    session.tick(now + Duration::from_secs(60), &mut out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_frame_makes_the_session_panic(text in r#"(\[("1"|null),("1"|null),"realtime:t","(phx_reply|phx_close|phx_error|system|broadcast|presence_state|presence_diff|postgres_changes)",(\{"status":"(ok|error)","response":(\{\}|"x"|\[\]|null|\{"reason":"unmatched topic"\}|\{"postgres_changes":\[\{"id":7\}\]\})\}|\{"ids":\[7\],"data":\{"type":"INSERT","record":\{\}\}\}|\{"extension":"postgres_changes","status":"(ok|error)","message":"x"\}|.{0,20})\])|.{0,80}"#) {
            super::text_frame(&text);
        }

        #[test]
        fn no_binary_frame_makes_the_session_panic(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            super::binary_frame(&frame);
        }
    }
}
