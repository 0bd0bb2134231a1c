//! Sessions: stored privately, renewed under a lock, ended with an error.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio_postgres::NoTls;

use self::world::{EMAIL, PASSWORD, World, text};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Writes a session whose access token ends in so many seconds, with a refresh token that is good.
fn expiring(world: &World, seconds: u64) {
    let granted = world.auth("token?grant_type=password", &json!({ "email": EMAIL, "password": PASSWORD }));
    let token = world.stack().mint(&json!({
        "sub": world.user, "role": "authenticated", "aud": "authenticated", "email": EMAIL, "iat": now(), "exp": now() + seconds,
    }));
    let session = json!({
        "access_token": token, "refresh_token": granted["refresh_token"], "received_at": now(), "expires_at": now() + seconds,
        "user": { "id": world.user, "email": EMAIL },
    });
    fs::write(world.config().join("sessions/default.json"), session.to_string()).unwrap();
}

fn query(world: &World, sql: &str) -> i64 {
    world.runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&world.stack().admin_url(), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let count = client.query_one(sql, &[]).await.unwrap().get(0);
        drop(client);
        connection.await.unwrap().unwrap();
        count
    })
}

#[test]
fn a_session_that_ends_in_mid_follow_is_renewed_without_a_gap() {
    let world = World::signed_in();
    let (cluster, _) = world.cluster("vineyard");
    let _agent = world.agent(cluster);
    let vars = world.home.path().join("vars.json");
    fs::write(&vars, json!({ "name": "ada", "lines": 400 }).to_string()).unwrap();
    // The token's life is over before the run is.
    expiring(&world, 4);
    let before = query(&world, "select count(*) from auth.refresh_tokens where revoked");
    let mut deploy = world
        .grape(&["deploy", "hello", "-o", "json", "--var-file", vars.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<Value> = BufReader::new(deploy.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert!(deploy.wait().unwrap().success());
    let numbers: Vec<u32> = lines
        .iter()
        .filter_map(|line| {
            line["line"].as_str()?.split_once("line ")?.1.split_once(" of 400")?.0.parse().ok()
        })
        .collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    assert_eq!(lines.last().unwrap()["deployment"]["status"], "SUCCESS");
    let after = query(&world, "select count(*) from auth.refresh_tokens where revoked");
    assert_eq!(after - before, 1, "renewed once");
}

#[test]
fn many_processes_at_once_renew_a_session_once_and_none_loses_it() {
    let world = World::signed_in();
    expiring(&world, 0);
    let before = query(&world, "select count(*) from auth.refresh_tokens where revoked");
    let children: Vec<_> = (0..8)
        .map(|_| {
            world
                .grape(&["clusters", "-o", "json"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let after = query(&world, "select count(*) from auth.refresh_tokens where revoked");
    assert_eq!(after - before, 1, "a refresh token is good once");
}

#[test]
fn a_session_is_private_and_ends_on_the_server_too() {
    let world = World::signed_in();
    let file = world.config().join("sessions/default.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let out = text(&world.run(&["logout"]));
    assert!(out.contains("Signed out"), "{out}");
    assert!(!file.exists());
    assert_eq!(query(&world, "select count(*) from auth.sessions"), 1, "the session of the sign-up alone");
    let (code, err) = world.fails(&["clusters"]);
    assert!(code == 3 && err.contains("grape login"), "{err}");
}

#[test]
fn a_session_that_was_ended_elsewhere_says_so() {
    let world = World::signed_in();
    expiring(&world, 0);
    query(&world, "with gone as (delete from auth.refresh_tokens returning 1) select count(*) from gone");
    let (code, err) = world.fails(&["clusters"]);
    assert!(code == 3 && err.contains("The session has ended") && err.contains("grape login"), "{err}");
}

#[test]
fn a_session_that_cannot_be_renewed_for_want_of_a_network_is_not_called_ended() {
    let world = World::signed_in();
    expiring(&world, 0);
    // The project's address is of the profile.
    let file = world.config().join("profiles.json");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let profiles =
        fs::read_to_string(&file).unwrap().replace(&world.stack().api_url(), &format!("http://{free}"));
    fs::write(&file, profiles).unwrap();
    let (code, err) = world.fails(&["clusters"]);
    assert!(code == 4 && err.contains("cannot be reached"), "{code} {err}");
    assert!(world.config().join("sessions/default.json").exists());
}

#[test]
fn a_token_from_the_environment_needs_no_session() {
    let world = World::new();
    let mut command = world.grape(&["whoami", "-o", "json"]);
    command.env("GRAPE_TOKEN", world.stack().mint_user(&world.user.to_string()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let who: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&who["source"], &who["user"]["email"]), (&json!("GRAPE_TOKEN"), &json!(EMAIL)));
    assert!(!world.config().join("sessions").exists(), "nothing is stored");

    let expired =
        world.stack().mint(&json!({ "sub": world.user, "role": "authenticated", "exp": now() - 10 }));
    let output = world.grape(&["clusters"]).env("GRAPE_TOKEN", expired).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
}

#[test]
fn profiles_keep_projects_apart() {
    let world = World::signed_in();
    let second = world
        .run_with(&["login", "--profile", "work", "--email", EMAIL, "--password-stdin"], PASSWORD.as_bytes());
    assert!(second.status.success(), "{}", text(&second));
    let names = |value: Value| -> Vec<(String, bool)> {
        let row = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["current"].as_bool().unwrap());
        value.as_array().unwrap().iter().map(row).collect()
    };
    assert_eq!(names(world.json(&["profiles"])), [("default".to_owned(), false), ("work".to_owned(), true)]);
    world.json(&["profiles", "use", "default"]);
    world.json(&["profiles", "remove", "work"]);
    assert_eq!(names(world.json(&["profiles"])), [("default".to_owned(), true)]);
    assert_eq!(world.fails(&["clusters", "--profile", "work"]).0, 5);
    assert_eq!(world.fails(&["profiles", "use", "nope"]).0, 5);
}
