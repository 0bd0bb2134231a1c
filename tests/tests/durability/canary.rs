//! Secrets in every form and at every border, and then a search for them in everything that the server has and ever received.

use std::{fmt::Write as _, fs};

use serde_json::json;
use tendril_tests::{Wiretap, World, fixtures};
use tokio::time::Duration;

/// A variable marked sensitive: quotes, angles, blanks, and what URLs and JSON escape.
const PASSWORD: &str = "Canary <pass>&\"word\"/1+2=\u{e9}";
/// A variable of several lines.
const CERTIFICATE: &str =
    "-----BEGIN CANARY-----\nQ2FuYXJ5TGluZU9uZUFBQUFB\nQ2FuYXJ5TGluZVR3b0JCQkJC\n-----END CANARY-----\n";
/// An environment variable that terraform is given.
const AWS: &str = "canaryAwsSecret0123456789abcdefghijklmnop";
/// The key of the price list, which infracost is given and terraform is not.
const PRICES: &str = "canaryInfracostKey0123456789";
/// The password of a proxy, whose variable is not named like a secret.
const PROXY: &str = "canaryProxyPassw0rd";
/// A variable that was let in by its name.
const CORPORATE: &str = "canaryCorporateLogin42";
/// What an emergency state dump holds, and no redactor was given.
const STATE: &str = "canary-of-the-state";

/// What must be found nowhere: parts that no mask could leave standing.
fn canaries(tokens: [&str; 2]) -> Vec<String> {
    let mut all: Vec<String> = [
        "Canary <pass>",
        "Canary%20%3Cpass",
        "Canary+%3Cpass",
        "Canary%20%3cpass",
        "Canary \\u003cpass",
        "&\\\"word",
        "&\"word",
        "Q2FuYXJ5TGluZU9uZUFBQUFB",
        "Q2FuYXJ5TGluZVR3b0JCQkJC",
        "BEGIN CANARY",
        AWS,
        PRICES,
        PROXY,
        CORPORATE,
        STATE,
        // base64 of the password, of `user:password` and of AWS, at the three places
        "Q2FuYXJ5IDxwYXNzPi",
        "NhbmFyeSA8cGFzcz4m",
        "DYW5hcnkgPHBhc3M+Jg",
        "Y2FuYXJ5QXdzU2VjcmV0",
        "NhbmFyeUF3c1NlY3JldD",
        "jYW5hcnlBd3NTZWNyZXQw",
    ]
    .map(str::to_owned)
    .into();
    all.extend(tokens.map(str::to_owned));
    all
}

/// Everything that the server stores of this cluster's jobs, but what the user gave it.
async fn everything(world: &World) -> String {
    let mut all = String::new();
    for query in [
        "select (to_jsonb(d) - 'config_snapshot')::text from public.deployments d",
        "select to_jsonb(c)::text from public.clusters c",
        "select log_chunk from public.deployment_logs order by deployment_id, attempt, seq",
    ] {
        for row in world.database.query(query, &[]).await.expect("rows") {
            let _infallible = writeln!(all, "{}", row.get::<_, String>(0));
        }
    }
    all
}

/// A quoted argument of a shell that contains exactly this.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A script that prints the secrets in many forms; the second token once the file `go` is there.
fn script(world: &World, tokens: [&str; 2], fails: bool) -> String {
    let mut script = String::new();
    for secret in [PASSWORD, CERTIFICATE, AWS, PROXY, CORPORATE, tokens[0]] {
        let middle = (secret.len() / 2..=secret.len()).find(|at| secret.is_char_boundary(*at)).unwrap_or(0);
        let (first, second) = secret.split_at(middle);
        let message = format!("a message with {secret}");
        for text in [
            secret.to_owned(),
            format!("inside {secret} a line"),
            json!({"as": secret}).to_string(),
            json!({"twice": json!({"as": secret}).to_string()}).to_string(),
            json!({"@level": "info", "@message": message, "type": "log"}).to_string(),
            // Colours in the middle, and where chunks end.
            format!("{first}\u{1b}[31m{second}"),
            format!("{}{secret}", "x".repeat(16 * 1024 - secret.len() / 2)),
        ] {
            let _infallible = writeln!(script, "printf '%s\\n' {}", quoted(&text));
        }
        let _infallible = writeln!(
            script,
            "printf '%s' {0}; sleep 0.1; printf '%s\\n' {1}
            printf '%s' {2} | base64 -w 0; echo
            printf '%s' {2} | base64
            printf 'user:%s' {2} | base64 -w 0; echo
            printf 'us:%s' {2} | base64 -w 0; echo
            head -c {3} /dev/zero | tr '\\000' x; printf '%s\\n' {2}",
            quoted(first),
            quoted(second),
            quoted(secret),
            // Where long lines are cut.
            1024 * 1024 - secret.len() / 2,
        );
    }
    let mut rest = String::new();
    for form in [
        "Canary%20%3Cpass%3E%26%22word%22%2F1%2B2%3D%C3%A9",
        "Canary+%3Cpass%3E%26%22word%22%2F1%2B2%3D%C3%A9",
        "Canary%20%3cpass%3e%26%22word%22%2f1%2b2%3d%c3%a9",
    ] {
        let _infallible = writeln!(rest, "echo 'https://example.com/?p={form}'");
    }
    let dump = json!({"@level": "error", "@message": "Emergency state dump", "type": "log", "state": {"resources": [STATE]}}).to_string();
    if fails {
        // A run that has to print its state is no success.
        let _infallible = writeln!(rest, "printf '%s\\n' {}", quoted(&dump));
    }
    let _infallible = writeln!(
        rest,
        "touch {0}; while [ ! -e {1} ]; do sleep 0.1; done\nprintf '%s\\n' {2}",
        quoted(&world.path("ready").display().to_string()),
        quoted(&world.path("go").display().to_string()),
        quoted(tokens[1])
    );
    if fails {
        let diagnostic = json!({"@level": "error", "@message": "Error: bad", "type": "diagnostic", "diagnostic": {
            "severity": "error", "summary": format!("no login with {PASSWORD}"), "detail": format!("{AWS} and {}", tokens[1]),
        }});
        let torn = &dump[..dump.len() - 3];
        let _infallible = writeln!(
            rest,
            "printf '%s\\n' {}\nprintf '%s' {}\nexit 1",
            quoted(&diagnostic.to_string()),
            quoted(torn)
        );
    }
    script + &rest
}

/// An estimate that contains secrets: in names, in types, in errors, and all of it on stderr too.
fn estimate(token: &str) -> String {
    let resource =
        |name: String| json!({"name": name, "resourceType": format!("a {AWS}"), "monthlyCost": "1"});
    let names = [PASSWORD, CERTIFICATE, AWS, PRICES, token];
    let at_the_cut = |secret: &str| format!("{}{secret}", "x".repeat(200 - secret.len() / 2));
    let resources: Vec<_> = names
        .iter()
        .flat_map(|secret| [resource(format!("aws_instance.a[{secret:?}]")), resource(at_the_cut(secret))])
        .collect();
    let errors: Vec<_> =
        names.iter().map(|secret| json!({"code": 201, "message": format!("no module {secret}")})).collect();
    let projects = json!([{"metadata": {"errors": errors}, "breakdown": {"resources": resources}}]);
    json!({"version": "0.2", "currency": "USD", "totalMonthlyCost": "10", "projects": projects}).to_string()
}

async fn print_every_secret(fails: bool) {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let tokens = [3600, 7200].map(|seconds| cluster.machine_token_for(Duration::from_secs(seconds)));
    let tokens = [tokens[0].as_str(), tokens[1].as_str()];
    let (file, path) = (world.path("token"), world.path("script"));
    fs::write(&file, tokens[0]).expect("a token");
    fs::write(&path, script(&world, tokens, fails)).expect("a script");
    let outputs = json!({
        "open": {"sensitive": false, "type": "string", "value": format!("{PASSWORD} {AWS}")},
        "keys": {"sensitive": false, "type": "object", "value": {AWS: [CERTIFICATE, 1, tokens[1]]}},
        "closed": {"sensitive": true, "type": "string", "value": STATE},
        "nested": {"sensitive": true, "type": "object", "value": {"logins": [{"word": format!("{STATE}-inside")}]}},
        "echo": {"sensitive": false, "type": "string", "value": format!("says {STATE}")},
    });
    fs::write(path.with_extension("outputs"), outputs.to_string()).expect("outputs");
    fs::write(path.with_extension("estimate"), estimate(tokens[0])).expect("an estimate");
    let wiretap = Wiretap::before(&world.project.url).await;
    let agent = world
        .agent(&cluster)
        .url(&wiretap.url)
        .terraform(&fixtures("terraform-babbler"))
        .token_file(&file)
        .env("AWS_SECRET_ACCESS_KEY", AWS)
        .env("TENDRIL_INFRACOST", fixtures("infracost-0.10").to_str().expect("a path"))
        .env("TENDRIL_INFRACOST_KEY", PRICES)
        .env("HTTPS_PROXY", format!("http://somebody:{PROXY}@127.0.0.1:9"))
        .env("CORPORATE_LOGIN", CORPORATE)
        .env("TENDRIL_TERRAFORM_ENV", "CORPORATE_*")
        .start();
    let variables = json!({
        "script": path, "password": PASSWORD, "certificate": CERTIFICATE, "infracost": path.with_extension("estimate"),
    });
    let deployment = cluster.queue(json!({"template": "vault", "variables": variables})).await;
    tendril_tests::until("the first half is printed", async || {
        if world.path("ready").exists() { Ok(()) } else { Err(format!("{:?}", deployment.row().await)) }
    })
    .await;
    fs::write(world.path("new"), tokens[1]).expect("a token");
    fs::rename(world.path("new"), &file).expect("the token is replaced");
    agent.says("the token file has changed").await;
    fs::write(world.path("go"), "").expect("a file");

    let row = deployment.ended().await;
    assert_eq!(row.status, if fails { "FAILED" } else { "SUCCESS" }, "{row:?}");
    assert_eq!(row.cost_status.as_deref(), Some("PARTIAL"), "{row:?}");
    let cost = row.cost.expect("a cost").to_string();
    assert!(cost.matches("[hidden]").count() > 5, "{cost}");
    let all = everything(&world).await;
    assert!(all.matches("[hidden]").count() > 50, "it was printed, and hidden: {all}");
    if fails {
        assert!(all.contains("Emergency state dump"), "that there was a dump is no secret");
        assert!(row.error_message.expect("a message").contains("no login with [hidden]"));
    } else {
        let outputs = row.outputs.expect("outputs");
        assert_eq!(outputs["open"], "[hidden] [hidden]");
        assert!(!outputs.contains_key("closed"));
    }
    // The token that it logs in with is shown to the server alone, in its own place.
    let mut received = wiretap.everything();
    assert!(received.contains("[hidden]") && received.contains("/rest/v1/deployment_logs"));
    for token in tokens {
        received = received.replace(&format!("Bearer {token}"), "Bearer");
    }
    for canary in canaries(tokens) {
        for (what, text) in [
            ("the server", all.as_str()),
            ("what was sent", &received),
            ("the agent's own log", &agent.output()),
        ] {
            if let Some(at) = text.find(&canary) {
                let from = (at.saturating_sub(80)..=at).find(|at| text.is_char_boundary(*at)).unwrap_or(at);
                let to = (at + canary.len()..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(at);
                panic!("{what} has {canary}: …{}", &text[from..to]);
            }
        }
    }
}

#[tokio::test]
async fn no_secret_is_found_in_anything_that_the_server_received() {
    print_every_secret(false).await;
}

#[tokio::test]
async fn what_only_the_templates_own_files_call_sensitive_is_hidden() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let path = world.path("script");
    fs::write(&path, format!("echo {}", quoted(PASSWORD))).expect("a script");
    let templates = world.path("templates/bare");
    fs::create_dir_all(&templates).expect("a folder");
    let variables = "variable \"script\" {}\nvariable \"word\" {\n  sensitive = true\n}\n";
    fs::write(templates.join("main.tf"), variables).expect("a template");
    let _agent = world
        .agent(&cluster)
        .terraform(&fixtures("terraform-babbler"))
        .templates(&world.path("templates"))
        .start();
    let variables = json!({"script": path, "word": PASSWORD});
    let deployment = cluster.queue(json!({"template": "bare", "variables": variables})).await;
    assert_eq!(deployment.ended().await.status, "SUCCESS");
    let text = deployment.log().await.text();
    assert!(text.contains("[hidden]") && !text.contains("Canary"), "{text}");
}

#[tokio::test]
async fn no_secret_is_found_after_a_failure_that_quotes_them() {
    print_every_secret(true).await;
}
