use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{PresenceEvent, StreamExt as _};

use crate::{client, in_time, server, until};

#[derive(Debug, Clone, Deserialize, PartialEq)]
struct User {
    name: String,
}

#[tokio::test]
async fn presence_is_right_again_after_the_reader_was_too_slow() {
    for capacity in [1, 2, 8] {
        let server = server().await;
        let watcher = client(&server);
        let mut room = watcher.channel("room").buffer_capacity(capacity, 1 << 20);
        let mut people = room.on_presence();
        let _room = room.join().await.unwrap();
        let mut others = Vec::new();
        for number in 0..20 {
            let other = client(&server);
            let room = other.channel("room").presence_key(format!("p{number}")).join().await.unwrap();
            room.track(&json!({"n": number})).await.unwrap();
            others.push((other, room));
        }
        until("diffs came", || watcher.stats().events_delivered >= 20).await;
        let mut lagged = false;
        in_time("the whole state", async {
            while people.state().len() < 20 {
                let event = people.next().await.unwrap().unwrap();
                lagged |= matches!(event, PresenceEvent::Lagged(_));
            }
        })
        .await;
        assert!(lagged, "capacity {capacity}");
        // And it follows from there on.
        others[7].1.untrack().await.unwrap();
        in_time("the leave", async {
            while people.state().contains_key("p7") {
                people.next().await.unwrap().unwrap();
            }
        })
        .await;
        assert_eq!(people.state().len(), 19);
    }
}

#[tokio::test]
async fn what_is_tracked_is_read_as_a_type_and_what_is_not_of_it_is_told() {
    let server = server().await;
    let (watcher, one, two) = (client(&server), client(&server), client(&server));
    let mut room = watcher.channel("room");
    let mut people = room.on_presence_of::<User>();
    let _room = room.join().await.unwrap();
    let first = one.channel("room").presence_key("ada").join().await.unwrap();
    first.track(&json!({"name": "Ada"})).await.unwrap();
    let second = two.channel("room").presence_key("odd").join().await.unwrap();
    second.track(&json!({"name": 5})).await.unwrap();
    let mut odd = None;
    in_time("both", async {
        while odd.is_none() || people.state().is_empty() {
            if let PresenceEvent::Undecodable { key, .. } = people.next().await.unwrap().unwrap() {
                odd = Some(key);
            }
        }
    })
    .await;
    assert_eq!(odd.as_deref(), Some("odd"));
    assert_eq!(people.state()["ada"][0].state, User { name: "Ada".to_owned() });
    assert!(!people.state().contains_key("odd"));
}
