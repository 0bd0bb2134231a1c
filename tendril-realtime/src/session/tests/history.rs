//! What must hold under any order of events.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    super::*,
    fixture::{Bench, SECOND, token},
};

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
