//! A session with a clock and a server that a test plays by hand.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::super::*;
use crate::{
    secret::AccessToken,
    wire::join::{Binding, JoinConfig, PostgresEvent},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A session with a clock and a server that is played by hand.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) out: Vec<Action>,
}

pub(super) fn binding() -> Binding {
    Binding {
        event: PostgresEvent::All,
        schema: "public".to_owned(),
        table: Some("jobs".to_owned()),
        filter: None,
        select: Vec::new(),
    }
}

pub(super) fn token(text: &str) -> AccessToken {
    AccessToken::new(text).unwrap()
}

impl Bench {
    pub(super) fn new(has_source: bool) -> Self {
        let now = Instant::now();
        let renewal = if has_source { Renewal::BySource } else { Renewal::Never };
        let session = Session::new(Settings::default(), has_source, renewal, now, 1_000_000);
        Self { session, now, out: Vec::new() }
    }

    pub(super) fn open(&mut self) {
        self.session.on_open(self.now, &mut self.out);
    }

    pub(super) fn channel(&mut self, number: u64, with_rows: bool) {
        let config =
            JoinConfig { bindings: with_rows.then(binding).into_iter().collect(), ..JoinConfig::default() };
        let interest = if with_rows { Interest::Changes(0) } else { Interest::Broadcast };
        self.session.on_command(
            Command::Open {
                topic: TopicId(number),
                name: format!("t{number}"),
                config,
                subscribers: vec![Subscriber { id: SubscriberId(number), interest }],
                ready: RequestId(number),
            },
            self.now,
            &mut self.out,
        );
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.tick(self.now, &mut self.out);
    }

    pub(super) fn receive(&mut self, text: &str) {
        self.session.on_text(Utf8Bytes::from(text), self.now, &mut self.out).unwrap();
    }

    /// Takes the messages sent since the last look: event, topic, ref.
    pub(super) fn sent(&mut self) -> Vec<(&'static str, String, String)> {
        let mut sent = Vec::new();
        self.out.retain(|action| match action {
            Action::Send(message) => {
                sent.push((message.event, message.topic.clone(), message.reference.clone()));
                false
            }
            _ => true,
        });
        sent
    }

    pub(super) fn accept(&mut self, topic: &str, reference: &str, rows: bool) {
        let ids = if rows { r#"[{"id":7}]"# } else { "[]" };
        self.receive(&format!(
            r#"["{reference}","{reference}","{topic}","phx_reply",{{"status":"ok","response":{{"postgres_changes":{ids}}}}}]"#
        ));
    }

    pub(super) fn announce(&mut self, topic: &str, reference: &str) {
        self.receive(&format!(
            r#"["{reference}",null,"{topic}","system",{{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL"}}]"#
        ));
    }

    pub(super) fn row(&mut self, topic: &str) {
        self.receive(&format!(
            r#"[null,null,"{topic}","postgres_changes",{{"data":{{"type":"INSERT","schema":"public","table":"jobs","record":{{"id":1}}}},"ids":[7]}}]"#
        ));
    }

    pub(super) fn emitted(&mut self) -> Vec<String> {
        let emitted = self.out.iter().filter_map(|action| match action {
            Action::Deliver(_, Delivery::Change(_)) => Some("row".to_owned()),
            Action::Deliver(_, Delivery::Resync(reason)) => Some(format!("{reason:?}")),
            Action::Deliver(_, Delivery::TransientError(error)) => {
                Some(format!("interrupted {}", error.code()))
            }
            Action::Deliver(_, Delivery::End(error)) => Some(format!("end {}", error.code())),
            Action::Answer(_, Ok(_)) => Some("ready".to_owned()),
            Action::Answer(_, Err(error)) => Some(format!("failed {}", error.code())),
            Action::FetchToken => Some("ask".to_owned()),
            Action::TokenRefused(_) => Some("refused".to_owned()),
            Action::Drop => Some("drop".to_owned()),
            _ => None,
        });
        let emitted = emitted.collect();
        self.out.clear();
        emitted
    }
}
