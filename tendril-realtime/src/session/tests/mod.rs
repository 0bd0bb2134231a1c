//! The session by itself: pacing, deadlines and gaps.

mod fixture;
mod history;

use self::fixture::{Bench, SECOND, token};
use super::*;
use crate::wire::{Payload, event::name, join::JoinConfig};

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
