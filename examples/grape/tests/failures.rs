//! Bad input: each its own sentence, its next step, its exit code.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::{fs, net::TcpListener};

use serde_json::Value;

use self::world::{EMAIL, PASSWORD, World, finish, text};

/// A command must fail so: exit code, a part of its sentence, a part of its next step.
fn must_fail(world: &World, arguments: &[&str], code: i32, sentence: &str, next: &str) {
    let (got, err) = world.fails(arguments);
    assert_eq!(got, code, "{arguments:?}: {err}");
    assert!(err.contains(sentence), "{arguments:?}: no `{sentence}` in {err}");
    assert!(err.contains(next), "{arguments:?}: no `{next}` in {err}");
}

#[test]
fn signing_in_says_what_was_wrong() {
    let world = World::new();
    let login = |arguments: &[&str], password: &str| {
        let output =
            world.run_with(&[&["login", "--password-stdin"], arguments].concat(), password.as_bytes());
        (output.status.code().unwrap(), text(&output))
    };
    let (code, out) = login(&["--email", EMAIL], "wrong horse");
    assert!(code == 3 && out.contains("password is wrong") && !out.contains("wrong horse"), "{out}");
    let (code, out) = login(&["--email", EMAIL], "");
    assert!(code == 2 && out.contains("no password on stdin"), "{out}");
    let (code, out) = login(&["--email", EMAIL, "--key", "sb_secret_12345"], PASSWORD);
    assert!(code == 2 && out.contains("secret key"), "{out}");
    let (code, out) = login(&["--email", EMAIL, "--key", "sb_publishable_other"], PASSWORD);
    assert!(code == 3 && out.contains("refuses the key"), "{out}");
    let (code, out) = login(&["--email", EMAIL, "--url", "abcd.supabase.co"], PASSWORD);
    assert!(code == 2 && out.contains("https://abcd.supabase.co"), "{out}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, out) = login(&["--email", EMAIL, "--url", &format!("http://{free}")], PASSWORD);
    assert!(code == 4 && out.contains("cannot be reached"), "{out}");
    let (code, out) = login(&[], PASSWORD);
    assert!(code == 2 && out.contains("--email"), "{out}");
    must_fail(&world, &["clusters"], 3, "Nobody is signed in", "grape login");
}

#[test]
fn every_mistake_has_its_sentence_and_its_exit_code() {
    let world = World::signed_in();
    must_fail(&world, &["deploy", "hello"], 5, "no cluster yet", "grape up");
    world.cluster("a");
    must_fail(&world, &["plan", "hello"], 2, "not the id of a deployment", "first digits");
    must_fail(&world, &["plan", "0123abcd"], 5, "no deployment `0123abcd`", "grape deployments");
    must_fail(&world, &["deploy", "hello", "--cluster", "b"], 5, "no cluster `b`", "You have: a");
    must_fail(&world, &["cluster", "create", "a"], 6, "already", "grape cluster rotate a");
    must_fail(&world, &["templates", "--templates-dir", "/nowhere"], 2, "cannot be read", "--templates-dir");
    must_fail(
        &world,
        &["deploy", "nope", "--templates-dir", "templates"],
        5,
        "no template `nope`",
        "There are:",
    );
    let wrong =
        ["deploy", "hello", "--templates-dir", "templates", "--var", "lines=secret-word", "--var", "name=x"];
    must_fail(&world, &wrong, 7, "`lines` must be an integer", "variables are");
    assert!(!world.fails(&wrong).1.contains("secret-word"));
    let file = world.home.path().join("v.tfvars");
    fs::write(&file, "name = \"x\"\n").unwrap();
    let tfvars = ["deploy", "hello", "--var-file", file.to_str().unwrap()];
    must_fail(&world, &tfvars, 7, "it is no JSON", "*.tfvars");
    must_fail(&world, &["deploy", "hello", "--var-file", "/nowhere"], 2, "cannot be read", "");
    must_fail(&world, &["open", "0123abcd"], 5, "no deployment", "");
    world.cluster("b");
    must_fail(&world, &["deploy", "hello"], 2, "several clusters", "a, b");
    must_fail(
        &world,
        &["deploy", "hello", "--cluster", "a", "--destroy"],
        2,
        "no terminal to ask on",
        "--yes",
    );
    let hostile = world.json(&["cluster", "create", "c\u{1b}[2Jd"]);
    let (_, err) = world.fails(&["cluster", "show", "nope"]);
    assert!(!err.contains('\u{1b}') && err.contains("c\\u{1b}[2Jd"), "{err}");
    assert!(!text(&world.run(&["clusters"])).contains('\u{1b}'));
    world.json(&["cluster", "revoke", hostile["cluster"]["id"].as_str().unwrap(), "--forever", "--yes"]);
    must_fail(&world, &["frobnicate"], 2, "unrecognized subcommand", "");

    let queued = world.json(&["deploy", "hello", "--cluster", "a", "--detach", "--var", "name=x"]);
    let id = queued["id"].as_str().unwrap();
    must_fail(&world, &["approve", id, "--yes"], 6, "created without --approval", "");
    must_fail(&world, &["plan", id], 5, "no plan yet", "grape wait");
    must_fail(&world, &["open", id], 2, "Where the portal is, is not known", "--portal");
    must_fail(&world, &["wait", id, "--timeout", "1s"], 23, "has not ended within", "continues");
    world.json(&["cancel", id]);
    must_fail(&world, &["cancel", id], 6, "ended already: CANCELLED", "");
    assert_eq!(world.run(&["wait", id]).status.code(), Some(21));

    // A project that does not answer.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut away = world.grape(&["clusters"]);
    away.env("SUPABASE_URL", format!("http://{free}"))
        .env("GRAPE_TOKEN", world.stack().mint_user(&world.user.to_string()));
    let output = away.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));

    // For programs, the same as JSON.
    let output = world.run(&["plan", "0123abcd", "-o", "json"]);
    let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (failure["error"]["kind"].as_str(), failure["error"]["exit_code"].as_u64()),
        (Some("NotFound"), Some(5))
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn nobody_sees_or_touches_what_is_anothers() {
    let world = World::signed_in();
    world.cluster("a");
    let id =
        world.json(&["deploy", "hello", "--detach", "--var", "name=x"])["id"].as_str().unwrap().to_owned();
    world.auth("signup", &serde_json::json!({ "email": "eve@example.com", "password": PASSWORD }));
    let eve = world.run_with(
        &["login", "--profile", "eve", "--email", "eve@example.com", "--password-stdin"],
        PASSWORD.as_bytes(),
    );
    assert!(eve.status.success(), "{}", text(&eve));
    for command in ["plan", "cancel", "logs", "wait", "approve", "reject"] {
        must_fail(&world, &[command, &id], 5, "no deployment", "");
    }
    must_fail(&world, &["cluster", "show", "a"], 5, "no cluster", "");
}

#[test]
fn completions_and_manual_pages_are_made_without_a_project() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = world.run(&["completions", shell]);
        assert!(output.status.success() && text(&output).contains("deploy"), "{shell}");
    }
    let page = text(&world.run(&["man"]));
    assert!(page.contains(".TH") && page.contains("the plan waits for approval"), "{page}");
    let dir = world.home.path().join("man");
    assert!(world.run(&["man", "--dir", dir.to_str().unwrap()]).status.success());
    assert!(dir.join("grape.1").is_file() && dir.join("grape-deploy.1").is_file());
    // A reader that has gone is no failure.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "\"$0\" completions bash | head -n 1"]).arg(env!("CARGO_BIN_EXE_grape"));
    let piped = finish(command, b"");
    assert!(piped.stderr.is_empty(), "{}", text(&piped));
}
