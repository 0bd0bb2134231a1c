//! The session by itself: pacing, deadlines, gaps, and what must hold under any order of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::*;
use crate::{
    secret::AccessToken,
    wire::{
        self, Payload,
        event::name,
        join::{Binding, JoinConfig, PostgresEvent},
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// A session with a clock and a server that is played by hand.
struct Bench {
    session: Session,
    now: Instant,
    out: Vec<Action>,
}

fn binding() -> Binding {
    Binding {
        event: PostgresEvent::All,
        schema: "public".to_owned(),
        table: Some("jobs".to_owned()),
        filter: None,
        select: Vec::new(),
    }
}

fn token(text: &str) -> AccessToken {
    AccessToken::new(text).unwrap()
}

impl Bench {
    fn new(has_source: bool) -> Self {
        let now = Instant::now();
        let renewal = if has_source { Renewal::BySource } else { Renewal::Never };
        let session = Session::new(Settings::default(), has_source, renewal, now, 1_000_000);
        Self { session, now, out: Vec::new() }
    }

    fn open(&mut self) {
        self.session.on_open(self.now, &mut self.out);
    }

    fn channel(&mut self, number: u64, with_rows: bool) {
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

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.tick(self.now, &mut self.out);
    }

    fn receive(&mut self, text: &str) {
        let message = wire::text::decode(&Utf8Bytes::from(text)).unwrap();
        self.session.on_message(message, self.now, &mut self.out);
    }

    /// Takes the messages sent since the last look: event, topic, ref.
    fn sent(&mut self) -> Vec<(&'static str, String, String)> {
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

    fn accept(&mut self, topic: &str, reference: &str, rows: bool) {
        let ids = if rows { r#"[{"id":7}]"# } else { "[]" };
        self.receive(&format!(
            r#"["{reference}","{reference}","{topic}","phx_reply",{{"status":"ok","response":{{"postgres_changes":{ids}}}}}]"#
        ));
    }

    fn announce(&mut self, topic: &str, reference: &str) {
        self.receive(&format!(
            r#"["{reference}",null,"{topic}","system",{{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL"}}]"#
        ));
    }

    fn row(&mut self, topic: &str) {
        self.receive(&format!(
            r#"[null,null,"{topic}","postgres_changes",{{"data":{{"type":"INSERT","schema":"public","table":"jobs","record":{{"id":1}}}},"ids":[7]}}]"#
        ));
    }

    fn emitted(&mut self) -> Vec<String> {
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

#[test]
fn a_row_after_a_reconnect_comes_after_the_mark_of_the_gap() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, true);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, true);
    assert_eq!(bench.emitted(), Vec::<String>::new(), "joined is not ready");
    bench.announce(&join.1, &join.2);
    bench.row(&join.1);
    assert_eq!(bench.emitted(), ["ready", "row"]);

    bench.session.on_closed(bench.now, &mut bench.out);
    bench.open();
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, true);
    // A running replication delivers before it announces (OBSERVED 13).
    bench.row(&join.1);
    bench.announce(&join.1, &join.2);
    bench.row(&join.1);
    assert_eq!(bench.emitted(), ["Reconnected", "row", "Resubscribed", "row"]);
}

#[test]
fn broadcasts_of_the_database_are_marked_again_when_they_really_flow() {
    let mut bench = Bench::new(false);
    bench.open();
    let mut config = JoinConfig { private: true, ..JoinConfig::default() };
    config.broadcast.replication_ready = true;
    bench.session.on_command(
        Command::Open {
            topic: TopicId(1),
            name: "t1".to_owned(),
            config,
            subscribers: vec![Subscriber { id: SubscriberId(1), interest: Interest::Broadcast }],
            ready: RequestId(1),
        },
        bench.now,
        &mut bench.out,
    );
    let established = |bench: &mut Bench, join: &(&str, String, String)| {
        bench.receive(&format!(
            r#"["{}",null,"{}","system",{{"extension":"system","status":"ok","message":"Replication connection established"}}]"#,
            join.2, join.1
        ));
    };
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    assert_eq!(bench.emitted(), Vec::<String>::new(), "joined is not ready");
    established(&mut bench, &join);
    assert_eq!(bench.emitted(), ["ready"]);

    bench.session.on_closed(bench.now, &mut bench.out);
    bench.open();
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    assert_eq!(bench.emitted(), ["Reconnected"]);
    // What was sent before this is lost as well.
    established(&mut bench, &join);
    assert_eq!(bench.emitted(), ["Reconnected"]);
    established(&mut bench, &join);
    assert_eq!(bench.emitted(), ["Resubscribed"], "a repeated announcement is a possible gap");
}

#[test]
fn a_repeated_announcement_is_a_possible_gap() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, true);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, true);
    bench.announce(&join.1, &join.2);
    bench.announce(&join.1, &join.2);
    assert_eq!(bench.emitted(), ["ready", "Resubscribed"]);
}

#[test]
fn an_announcement_that_never_comes_leads_to_a_new_join() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, true);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, true);
    bench.pass(31 * SECOND);
    let mut first = bench.sent();
    assert_eq!(bench.emitted(), ["interrupted Timeout"]);
    let mut events = Vec::new();
    for _ in 0..120 {
        first.extend(bench.sent());
        bench.pass(SECOND / 2);
        for (event, _, reference) in std::mem::take(&mut first) {
            if event == "phx_leave" {
                bench.receive(&format!(
                    r#"[null,"{reference}","realtime:t1","phx_reply",{{"status":"ok","response":{{}}}}]"#
                ));
            }
            events.push(event);
        }
        if events.contains(&"phx_join") {
            break;
        }
    }
    let leave = events.iter().position(|event| *event == "phx_leave");
    let join = events.iter().position(|event| *event == "phx_join");
    assert!(leave <= join && join.is_some(), "{events:?}");
}

#[test]
fn joins_are_paced_and_few_at_once() {
    let mut bench = Bench::new(false);
    for number in 1..=100 {
        bench.channel(number, false);
    }
    bench.open();
    assert_eq!(bench.sent().len(), 1, "one at once");
    bench.pass(Settings::default().join_spacing);
    assert_eq!(bench.sent().len(), 1, "the second after the spacing");
    bench.pass(SECOND);
    assert_eq!(bench.sent().len(), 0, "no third while two are unanswered");
    bench.channel(101, false);
    assert_eq!(bench.emitted(), ["end InvalidInput", "failed InvalidInput"], "the 101st is refused here");
}

/// Another handle on the channel of that number.
fn second_handle(bench: &mut Bench, handle: u64, name: &str, config: JoinConfig) {
    let subscribers = vec![Subscriber { id: SubscriberId(handle), interest: Interest::Broadcast }];
    let command = Command::Open {
        topic: TopicId(handle),
        name: name.to_owned(),
        config,
        subscribers,
        ready: RequestId(handle),
    };
    bench.session.on_command(command, bench.now, &mut bench.out);
}

#[test]
fn a_second_channel_of_the_same_name_with_other_settings_is_refused_and_the_first_lives() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, false);
    let private = JoinConfig { private: true, ..JoinConfig::default() };
    second_handle(&mut bench, 9, "t1", private);
    assert_eq!(bench.emitted(), ["end InvalidInput", "failed InvalidInput"]);
    assert_eq!(bench.session.channels().0, 1);
}

#[test]
fn a_second_handle_shares_the_channel_and_the_last_one_leaves_it() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, false);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    bench.emitted();
    second_handle(&mut bench, 9, "t1", JoinConfig::default());
    assert_eq!(bench.sent().len(), 0, "no second join");
    assert_eq!(bench.emitted(), ["ready"]);
    bench.session.on_command(Command::Leave { topic: TopicId(1) }, bench.now, &mut bench.out);
    assert_eq!(bench.sent().len(), 0, "the other one holds it");
    bench.session.on_command(Command::Leave { topic: TopicId(9) }, bench.now, &mut bench.out);
    assert_eq!(bench.sent()[0].0, "phx_leave");
    assert_eq!(bench.session.channels().0, 0);
}

#[test]
fn a_peer_that_does_not_answer_a_heartbeat_is_dead_after_ten_seconds() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.pass(25 * SECOND);
    assert_eq!(bench.sent()[0].0, "heartbeat");
    bench.pass(9 * SECOND);
    assert_eq!(bench.emitted(), Vec::<String>::new());
    bench.pass(2 * SECOND);
    assert_eq!(bench.emitted(), ["drop"]);
}

#[test]
fn a_refused_join_that_makes_the_server_deaf_is_no_death() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.pass(24 * SECOND);
    bench.channel(1, false);
    bench.channel(2, false);
    bench.pass(SECOND);
    assert!(bench.sent().iter().any(|(event, ..)| *event == "heartbeat"));
    // Two refusals one after the other: 10 s of deafness, and still no answer to the heartbeat.
    bench.pass(11 * SECOND);
    assert_eq!(bench.emitted(), Vec::<String>::new());
}

#[test]
fn an_expired_token_is_renewed_and_the_channel_joined_again() {
    let mut bench = Bench::new(true);
    bench.session.on_token(Ok((token("old"), None)), bench.now, &mut bench.out);
    bench.open();
    bench.channel(1, true);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, true);
    bench.announce(&join.1, &join.2);
    bench.emitted();
    bench.pass(10 * SECOND);
    let reference = &join.2;
    bench.receive(&format!(
        r#"["{reference}",null,"realtime:t1","system",{{"extension":"system","status":"error","message":"Token has expired 0 seconds ago"}}]"#
    ));
    bench.receive(&format!(r#"["{reference}","{reference}","realtime:t1","phx_close",{{}}]"#));
    assert_eq!(bench.emitted(), ["interrupted InvalidJWTToken", "refused", "ask"]);
    bench.session.on_token(Ok((token("new"), None)), bench.now, &mut bench.out);
    let Some(Action::Send(join)) = bench.out.iter().find(|action| matches!(action, Action::Send(_))) else {
        panic!("no join")
    };
    let Payload::Json(payload) = &join.payload else { panic!("no text") };
    assert!(payload.contains(r#""access_token":"new""#));
    let (topic, reference) = (join.topic.clone(), join.reference.clone());
    bench.out.clear();
    bench.accept(&topic, &reference, true);
    bench.announce(&topic, &reference);
    assert_eq!(bench.emitted(), ["Rejoined"]);
}

#[test]
fn a_renewed_token_is_pushed_once_to_each_channel_that_has_the_old_one() {
    let mut bench = Bench::new(true);
    bench.session.on_token(Ok((token("a"), Some(600 * SECOND))), bench.now, &mut bench.out);
    bench.open();
    bench.channel(1, false);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    bench.emitted();
    bench.session.on_token(Ok((token("a"), Some(600 * SECOND))), bench.now, &mut bench.out);
    assert!(bench.sent().is_empty(), "the same token is not pushed");
    bench.session.on_token(Ok((token("b"), Some(600 * SECOND))), bench.now, &mut bench.out);
    let sent = bench.sent();
    assert_eq!((sent.len(), sent[0].0), (1, "access_token"));
}

#[test]
fn a_message_waits_for_the_join_and_no_longer_than_its_time() {
    let mut bench = Bench::new(false);
    bench.channel(1, false);
    let push = |request| Command::Push {
        topic: TopicId(1),
        request: Some(RequestId(request)),
        event: name::BROADCAST,
        payload: Payload::Json("{}".to_owned()),
        timeout: 10 * SECOND,
    };
    bench.session.on_command(push(50), bench.now, &mut bench.out);
    bench.pass(11 * SECOND);
    assert_eq!(bench.emitted(), ["failed Timeout"]);
    bench.session.on_command(push(51), bench.now, &mut bench.out);
    bench.open();
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    assert_eq!(bench.sent()[0].0, "broadcast");
    // Sent and unanswered when the connection goes: the sender learns it.
    bench.emitted();
    bench.session.on_closed(bench.now, &mut bench.out);
    assert_eq!(bench.emitted(), ["failed ConnectionLost"]);
}

#[test]
fn a_channel_the_server_forgot_is_joined_again() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, false);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    let push = Command::Push {
        topic: TopicId(1),
        request: Some(RequestId(50)),
        event: name::BROADCAST,
        payload: Payload::Json("{}".to_owned()),
        timeout: 10 * SECOND,
    };
    bench.session.on_command(push, bench.now, &mut bench.out);
    let reference = bench.sent().remove(0).2;
    bench.emitted();
    bench.receive(&format!(
        r#"[null,"{reference}","realtime:t1","phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
    ));
    assert_eq!(bench.emitted(), ["interrupted UnmatchedTopic", "failed PushRejected"]);
    bench.pass(2 * SECOND);
    assert_eq!(bench.sent()[0].0, "phx_join");
}

#[test]
fn leaving_and_coming_back_to_a_topic_is_done_one_after_the_other() {
    let mut bench = Bench::new(false);
    bench.open();
    bench.channel(1, false);
    let join = bench.sent().remove(0);
    bench.accept(&join.1, &join.2, false);
    bench.session.on_command(Command::Leave { topic: TopicId(1) }, bench.now, &mut bench.out);
    let leave = bench.sent().remove(0);
    assert_eq!(leave.0, "phx_leave");
    let config = JoinConfig::default();
    let (name, subscribers) = ("t1".to_owned(), Vec::new());
    let command = Command::Open { topic: TopicId(2), name, config, subscribers, ready: RequestId(2) };
    bench.session.on_command(command, bench.now, &mut bench.out);
    bench.pass(SECOND);
    assert!(bench.sent().is_empty(), "not while the server still holds the old one");
    bench.receive(&format!(
        r#"[null,"{}","realtime:t1","phx_reply",{{"status":"ok","response":{{}}}}]"#,
        leave.2
    ));
    assert_eq!(bench.sent()[0].0, "phx_join");
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Leave(u64),
    Connect,
    Disconnect,
    Pass(u64),
    /// The server answers the oldest unanswered join: accepted or refused for this reason.
    AnswerJoin(Option<&'static str>),
    Announce(u64),
    Row(u64),
    /// A message of an incarnation that is over.
    StaleClose(u64),
    Crash(u64),
    Token(u8),
    Garbage,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = 1..6_u64;
    let step = prop_oneof![
        3 => topic.clone().prop_map(Step::Open),
        1 => topic.clone().prop_map(Step::Leave),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        4 => (0..40_000_u64).prop_map(Step::Pass),
        6 => Just(Step::AnswerJoin(None)),
        1 => prop_oneof![
            Just("Unauthorized: no"),
            Just("InvalidJWTToken: Token has expired 1 seconds ago"),
            Just("ClientJoinRateLimitReached: Too many joins per second"),
            Just("SomethingNew: x"),
        ].prop_map(|reason| Step::AnswerJoin(Some(reason))),
        4 => topic.clone().prop_map(Step::Announce),
        5 => topic.clone().prop_map(Step::Row),
        1 => topic.clone().prop_map(Step::StaleClose),
        1 => topic.prop_map(Step::Crash),
        1 => (0..3_u8).prop_map(Step::Token),
        1 => Just(Step::Garbage),
    ];
    prop::collection::vec(step, 1..120)
}

/// What an observer of the wire and of the streams knows.
#[derive(Default)]
struct Observer {
    connected: bool,
    /// Joins without an answer, in their order: topic and ref.
    unanswered: Vec<(String, String)>,
    /// The last join ref of each topic on this connection.
    current: BTreeMap<String, String>,
    /// Joins sent on this connection that neither failed nor ended.
    alive: BTreeSet<String>,
    /// Streams that received a row or their readiness, and had an interruption since.
    interrupted: BTreeSet<u64>,
    ever_live: BTreeSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_joins_are_single_gaps_are_marked_and_nothing_waits_for_ever(steps in steps()) {
        let mut bench = Bench::new(true);
        let mut seen = Observer::default();
        let mut opened = BTreeSet::new();
        for step in steps {
            let topic = |number: u64| format!("realtime:t{number}");
            match step {
                Step::Open(number) => if opened.insert(number) { bench.channel(number, true); },
                Step::Leave(number) => if opened.remove(&number) {
                    seen.alive.remove(&topic(number));
                    seen.current.remove(&topic(number));
                    seen.interrupted.remove(&number);
                    seen.ever_live.remove(&number);
                    bench.session.on_command(Command::Leave { topic: TopicId(number) }, bench.now, &mut bench.out);
                },
                Step::Connect => if !seen.connected {
                    seen.connected = true;
                    bench.session.on_token(Ok((token("t"), Some(3600 * SECOND))), bench.now, &mut bench.out);
                    bench.open();
                },
                Step::Disconnect => if seen.connected {
                    seen.connected = false;
                    seen.unanswered.clear();
                    seen.current.clear();
                    seen.alive.clear();
                    seen.interrupted.extend(seen.ever_live.iter());
                    bench.session.on_closed(bench.now, &mut bench.out);
                },
                Step::Pass(ms) => bench.pass(Duration::from_millis(ms)),
                Step::AnswerJoin(refusal) => if seen.connected && !seen.unanswered.is_empty() {
                    let (topic, reference) = seen.unanswered.remove(0);
                    match refusal {
                        None => bench.accept(&topic, &reference, true),
                        Some(reason) => {
                            if seen.current.get(&topic) == Some(&reference) { seen.alive.remove(&topic); }
                            bench.receive(&format!(
                                r#"["{reference}","{reference}","{topic}","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
                            ));
                        }
                    }
                },
                Step::Announce(number) => if let (true, Some(reference)) = (seen.connected, seen.current.get(&topic(number)).cloned()) {
                    bench.announce(&topic(number), &reference);
                },
                Step::Row(number) => if seen.connected { bench.row(&topic(number)); },
                Step::StaleClose(number) => if seen.connected {
                    bench.receive(&format!(r#"["stale","stale","{}","phx_close",{{}}]"#, topic(number)));
                },
                Step::Crash(number) => if let (true, Some(reference)) = (seen.connected, seen.current.get(&topic(number)).cloned()) {
                    if seen.ever_live.contains(&number) { seen.interrupted.insert(number); }
                    seen.alive.remove(&topic(number));
                    bench.receive(&format!(r#"["{reference}","{reference}","{}","phx_error",{{}}]"#, topic(number)));
                },
                Step::Token(text) => {
                    bench.session.on_token(Ok((token(&format!("t{text}")), Some(3600 * SECOND))), bench.now, &mut bench.out);
                }
                Step::Garbage => if seen.connected { bench.session.on_sign_of_life(bench.now); },
            }
            // An answer to the session may make it act again.
            let mut actions = std::collections::VecDeque::from(std::mem::take(&mut bench.out));
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Send(message) => {
                        prop_assert!(seen.connected, "nothing is sent without a connection");
                        match message.event {
                            "phx_join" => {
                                prop_assert!(seen.alive.insert(message.topic.clone()), "{} joined twice", message.topic);
                                seen.current.insert(message.topic.clone(), message.reference.clone());
                                seen.unanswered.push((message.topic, message.reference));
                            }
                            "phx_leave" => {
                                seen.alive.remove(&message.topic);
                                let number = message.topic.trim_start_matches("realtime:t").parse().unwrap();
                                // Given up by the session itself: an interruption.
                                if seen.ever_live.contains(&number) { seen.interrupted.insert(number); }
                            }
                            _ => {}
                        }
                    }
                    Action::Deliver(SubscriberId(number), Delivery::Change(_)) => {
                        prop_assert!(!seen.interrupted.contains(&number), "a row after a gap without its mark");
                    }
                    Action::Deliver(SubscriberId(number), Delivery::Resync(_)) => { seen.interrupted.remove(&number); }
                    Action::Deliver(SubscriberId(number), Delivery::End(_)) => {
                        opened.remove(&number);
                        seen.alive.remove(&topic(number));
                        seen.ever_live.remove(&number);
                        seen.interrupted.remove(&number);
                    }
                    Action::Answer(RequestId(number), Ok(_)) => { seen.ever_live.insert(number); }
                    Action::FetchToken => {
                        bench.session.on_token(Ok((token("t"), Some(3600 * SECOND))), bench.now, &mut bench.out);
                    }
                    Action::Drop => {
                        seen.connected = false;
                        seen.unanswered.clear();
                        seen.current.clear();
                        seen.alive.clear();
                        seen.interrupted.extend(seen.ever_live.iter());
                        bench.session.on_closed(bench.now, &mut bench.out);
                    }
                    _ => {}
                }
                actions.extend(bench.out.drain(..));
            }
            prop_assert!(bench.session.pending.len() <= 64, "what waits is bounded");
            if seen.connected {
                prop_assert!(bench.session.wake().is_some(), "an open connection always has a next tick");
            }
        }
    }
}
