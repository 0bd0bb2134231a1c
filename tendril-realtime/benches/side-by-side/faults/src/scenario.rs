//! What goes wrong, and what is asked of a client then.

use std::{future::Future, pin::Pin, time::Duration};

use serde_json::json;
use tendril_realtime_testkit::{Answer, Event, FakeServer, HttpAnswer, Point};

use crate::scene::{CHANNEL, Scene, row};

type Verdict = Result<(), String>;
type Script = Box<dyn Fn(Scene) -> Pin<Box<dyn Future<Output = Verdict>>>>;

pub(crate) struct Scenario {
    /// What goes wrong; the client is to go on.
    pub(crate) name: &'static str,
    /// How many rows the client is to see before it ends.
    pub(crate) rows: u64,
    /// Set before the client starts.
    pub(crate) plan: fn(&FakeServer),
    pub(crate) script: Script,
}

fn scenario<F: Future<Output = Verdict> + 'static>(
    name: &'static str,
    rows: u64,
    plan: fn(&FakeServer),
    script: impl Fn(Scene) -> F + 'static,
) -> Scenario {
    Scenario { name, rows, plan, script: Box::new(move |scene| Box::pin(script(scene))) }
}

/// Faults before the channel is joined: it must be joined in the end, and get a row.
fn at_first(name: &'static str, plan: fn(&FakeServer)) -> Scenario {
    scenario(name, 1, plan, |scene| async move {
        scene.joined(1).await?;
        scene.rows(1..2);
        scene.all_rows(1).await.map(drop)
    })
}

/// Faults of a joined channel: the rows before and after must come.
fn later(name: &'static str, fault: fn(&FakeServer)) -> Scenario {
    scenario(name, 2, |_| {}, move |scene| async move {
        scene.joined(1).await?;
        scene.rows(1..2);
        fault(&scene.server);
        scene.joined(2).await?;
        scene.rows(2..3);
        scene.all_rows(2).await.map(drop)
    })
}

/// Messages that a client must pass over, without a new join.
fn noise(name: &'static str, noise: fn(&FakeServer)) -> Scenario {
    scenario(name, 2, |_| {}, move |scene| async move {
        scene.joined(1).await?;
        scene.rows(1..2);
        noise(&scene.server);
        scene.rows(2..3);
        let journal = scene.all_rows(2).await?;
        if journal.joins(CHANNEL) > 1 { Err("it joined again".to_owned()) } else { Ok(()) }
    })
}

/// Attempts within ten seconds, at most as many as pauses that double from a second allow.
async fn count(scene: &Scene, what: fn(&Event) -> bool) -> Verdict {
    const MOST: usize = 10;
    scene.until("a first attempt", |server| server.journal().count(what) > 0).await?;
    let count = scene.count_for(Duration::from_secs(10), what).await;
    if count > MOST { Err(format!("{count} attempts in 10 s")) } else { Ok(()) }
}

/// Failures without an end, of which a client cannot know that: it goes on trying.
fn forever(name: &'static str, plan: fn(&FakeServer), what: fn(&Event) -> bool) -> Scenario {
    scenario(name, 1, plan, move |mut scene| async move {
        count(&scene, what).await?;
        scene.lives()
    })
}

/// Refusals that are final: a client may end with an error, or try again from time to time.
fn refused(name: &'static str, plan: fn(&FakeServer), what: fn(&Event) -> bool) -> Scenario {
    scenario(name, 1, plan, move |scene| async move { count(&scene, what).await })
}

fn is_upgrade(event: &Event) -> bool {
    matches!(event, Event::Upgraded { .. })
}

fn is_accept(event: &Event) -> bool {
    matches!(event, Event::Accepted)
}

fn is_join(event: &Event) -> bool {
    matches!(event, Event::Join { .. })
}

fn once(server: &FakeServer, point: Point, answer: Answer) {
    let _fault = server.faults().on(point, answer).times(1);
}

fn always(server: &FakeServer, point: Point, answer: Answer) {
    let _fault = server.faults().on(point, answer);
}

fn refusal(reason: &str) -> Answer {
    Answer::Refuse(reason.to_owned())
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        // The way to the channel.
        at_first("the first connection is cut at once", |server| once(server, Point::Accept, Answer::Cut)),
        at_first("the first upgrade is never answered", |server| once(server, Point::Upgrade, Answer::Silence)),
        at_first("the first upgrade is answered with 503", |server| {
            once(server, Point::Upgrade, Answer::Http(HttpAnswer::new(503)));
        }),
        at_first("the first three upgrades are cut", |server| {
            let _fault = server.faults().on(Point::Upgrade, Answer::Cut).times(3);
        }),
        at_first("the first join is never answered", |server| once(server, Point::Join, Answer::Silence)),
        at_first("the first join is answered after 2 s", |server| {
            once(server, Point::Join, Answer::Delay(Duration::from_secs(2)));
        }),
        at_first("the first join is refused: the database is not there", |server| {
            once(server, Point::Join, refusal("Realtime was unable to connect to the project database"));
        }),
        at_first("the first join is refused: the server restarts", |server| {
            once(server, Point::Join, refusal("RealtimeRestarting: Realtime is restarting, please standby"));
        }),
        at_first("the channel crashes right after its first join", |server| {
            once(server, Point::Join, Answer::Crash);
        }),
        at_first("the connection is cut at the first join", |server| once(server, Point::Join, Answer::Cut)),
        at_first("the first join is ended by a system error", |server| {
            once(server, Point::Join, Answer::End("Node request timeout".to_owned()));
        }),
        // A joined channel.
        later("the connection is cut", FakeServer::cut_connections),
        later("the connection is closed with 1000", |server| server.close_connections(1000)),
        later("the connection is closed with 1001", |server| server.close_connections(1001)),
        later("the connection is closed with 1011", |server| server.close_connections(1011)),
        later("the connection is closed with 1012", |server| server.close_connections(1012)),
        later("the connection is closed with 4000", |server| server.close_connections(4000)),
        later("the channel crashes", |server| server.crash_channel(CHANNEL)),
        later("the channel is closed by a system error", |server| {
            server.end_channel_with(CHANNEL, "Node request timeout");
        }),
        scenario("the server restarts in 2 s", 2, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            scene.server.stop().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            scene.server.resume().await.map_err(|error| error.to_string())?;
            scene.joined(2).await?;
            scene.rows(2..3);
            scene.all_rows(2).await.map(drop)
        }),
        scenario("two connections are cut in a row", 2, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            scene.server.cut_connections();
            scene.joined(2).await?;
            scene.server.cut_connections();
            scene.joined(3).await?;
            scene.rows(2..3);
            scene.all_rows(2).await.map(drop)
        }),
        scenario("heartbeats are no longer answered", 2, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            let silence = scene.server.faults().on(Point::Heartbeat, Answer::Silence);
            scene.until_silence_is_noticed("a new connection", |server| server.journal().upgrades() > 1).await?;
            silence.lift();
            scene.joined(2).await?;
            scene.rows(2..3);
            scene.all_rows(2).await.map(drop)
        }),
        scenario("the connection stands still", 2, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            scene.server.stall_connections(true);
            scene.until_silence_is_noticed("a new connection", |server| server.journal().upgrades() > 1).await?;
            scene.joined(2).await?;
            scene.rows(2..3);
            scene.all_rows(2).await.map(drop)
        }),
        scenario("the token has expired at the second join", 2, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            once(&scene.server, Point::Join, refusal("InvalidJWTToken: Token has expired 3 seconds ago"));
            scene.server.cut_connections();
            // A key that never changes is final when it has expired, or is tried again: both are sound.
            scene.until("another join", |server| server.journal().joins(CHANNEL) >= 2).await
        }),
        // What has no end.
        forever(
            "a server that closes each connection after the join",
            |server| always(server, Point::Join, Answer::Close(1011)),
            is_upgrade,
        ),
        forever("a server that crashes each channel", |server| always(server, Point::Join, Answer::Crash), is_join),
        forever("a server that cuts each connection", |server| always(server, Point::Accept, Answer::Cut), is_accept),
        forever(
            "a server that answers each upgrade with 500",
            |server| always(server, Point::Upgrade, Answer::Http(HttpAnswer::new(500))),
            is_accept,
        ),
        refused(
            "a key that is refused with 401",
            |server| {
                always(server, Point::Upgrade, Answer::Http(HttpAnswer::new(401).json(&json!({"error": "API key is invalid"}))));
            },
            is_accept,
        ),
        refused(
            "a channel that nobody may join",
            |server| {
                always(
                    server,
                    Point::Join,
                    refusal("Unauthorized: You do not have permissions to read from this Channel topic: bench-0"),
                );
            },
            is_join,
        ),
        // What is to be passed over.
        noise("a frame that is no JSON", |server| server.send_text("{nonsense")),
        noise("a frame of another shape", |server| server.send_text(r#"{"a":[1,2]}"#)),
        noise("a binary frame of an unknown kind", |server| server.send_binary(&[0xee, 1, 2, 3])),
        noise("a binary frame that is cut short", |server| server.send_binary(&[4, 200, 1])),
        noise("an event nobody knows", |server| {
            server.to_all(CHANNEL, "something_new", &json!({"of": "tomorrow"}));
        }),
        noise("a message of a channel that nobody joined", |server| {
            server.send_text(r#"[null,null,"realtime:other","phx_close",{}]"#);
        }),
        noise("the close of an earlier join", |server| {
            server.send_text(&format!(r#"["stale","stale","realtime:{CHANNEL}","phx_close",{{}}]"#));
        }),
        noise("presence that nobody asked for", |server| {
            server.to_all(CHANNEL, "presence_state", &json!({}));
        }),
        noise("a failure of row changes that passes", |server| {
            server.fail_changes(CHANNEL, r#"{:error, "Too many database timeouts"}"#);
            server.announce_changes(CHANNEL);
        }),
        noise("a row of another type", |server| {
            server.insert("public", "deployments", json!({"id": "not a number"}));
        }),
        noise("a change without data, as of 1 MiB and more", |server| {
            server.change(&json!({
                "schema": "public", "table": "deployments", "type": "INSERT", "record": {}, "columns": [],
                "errors": ["Error 413: Payload Too Large"], "commit_timestamp": "2026-11-23T14:34:27.383Z",
            }));
        }),
        scenario("a row of 3 MiB", 3, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..2);
            scene.server.insert("public", "deployments", row(2, &"x".repeat(3 << 20)));
            scene.rows(3..4);
            scene.all_rows(3).await.map(drop)
        }),
        scenario("5,000 rows at once", 5000, |_| {}, |scene| async move {
            scene.joined(1).await?;
            scene.rows(1..5001);
            scene.all_rows(5000).await.map(drop)
        }),
        scenario("a redirect of the upgrade to another server", 1, |_| {}, |scene| async move {
            scene.joined(1).await?;
            let other = FakeServer::start().await.map_err(|error| error.to_string())?;
            let location = format!("{}/realtime/v1/websocket", other.url());
            always(&scene.server, Point::Upgrade, Answer::Http(HttpAnswer::new(307).header("location", location)));
            scene.server.cut_connections();
            tokio::time::sleep(Duration::from_secs(6)).await;
            if other.journal().accepted() > 0 { Err("the other server got the key".to_owned()) } else { Ok(()) }
        }),
    ]
}
