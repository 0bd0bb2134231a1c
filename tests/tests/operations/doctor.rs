//! `tendril-agent doctor` names the cause of each seeded fault, and how to fix it.

use std::{fs, io::Write as _, net::TcpListener, path::Path, time::Duration};

use serde_json::json;
use supabase_local::JwtSecret;
use tendril_tests::{AgentSetup, World, fixtures, program, without_policy};
use uuid::Uuid;

use crate::keys::changed;

const HOUR: Duration = Duration::from_secs(3600);

/// The doctor's output, and whether all is well.
async fn examined(setup: &AgentSetup) -> (bool, String) {
    let mut doctor = setup.doctor();
    let code = doctor.ended().await.code();
    assert!(matches!(code, Some(0 | 2)), "{code:?}: {}", doctor.output());
    (code == Some(0), doctor.output())
}

/// Answers every request like this, for as long as the process lives.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _read = std::io::Read::read(&mut stream, &mut request);
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn a_good_setup_is_well_and_nothing_is_changed() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (well, printed) = examined(&world.agent(&cluster)).await;
    assert!(well, "{printed}");
    let is_root = rustix::process::geteuid().is_root();
    let good = if is_root { 11 } else { 12 };
    assert_eq!(printed.lines().filter(|line| line.starts_with("ok ")).count(), good, "{printed}");
    let isolation = if is_root {
        "WARN  isolation: the agent runs as root, and so does every template"
    } else {
        "ok    isolation: templates run as user "
    };
    assert!(printed.contains(isolation), "{printed}");
    assert!(printed.contains("WARN  reaper: no schedule calls reap_lost_agents()"), "{printed}");
    assert!(printed.contains("ok    cost estimates: infracost is not installed"), "{printed}");
    let (well, printed) = examined(&world.agent(&cluster).by_broadcast()).await;
    assert!(well, "{printed}");
    let (well, printed) = examined(&world.agent(&cluster).token(cluster.key().await)).await;
    assert!(well && printed.contains("ok    API key"), "{printed}");
    let infracost = fixtures("infracost-0.10").to_str().expect("a path").to_owned();
    let setup = world.agent(&cluster).env("TENDRIL_INFRACOST", infracost).env("TENDRIL_INFRACOST_KEY", "k");
    let (well, printed) = examined(&setup).await;
    assert!(well && printed.contains("ok    cost estimates: infracost 0.10.45"), "{printed}");
    let (well, printed) = examined(&world.agent(&cluster).env("TENDRIL_GIT_HOSTS", "github.com")).await;
    assert!(well && printed.lines().any(|line| line == "ok    git"), "{printed}");
    assert_eq!(cluster.status().await, "PENDING", "the doctor is no agent");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of seeds")]
async fn each_seeded_fault_is_named_with_its_remedy() {
    let world = World::start().await;
    let (cluster, revoked) = (world.cluster().await, world.cluster().await);
    let (key, revoked_key) = (cluster.key().await, revoked.key().await);
    world
        .database
        .execute("update public.clusters set revoked_at = now() where id = $1", &[&revoked.id])
        .await
        .expect("it is revoked");
    let good = world.agent(&cluster);
    let jwt = &world.project.jwt;
    let stranger = JwtSecret::new("another secret with at least thirty-two characters");
    let user = json!({"role": "authenticated", "sub": cluster.user, "cluster_id": cluster.id, "exp": 4_000_000_000_u64});
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dir = world.path("seeds");
    let (broken, empty, file) = (dir.join("broken"), dir.join("empty"), dir.join("file"));
    fs::create_dir_all(broken.join("one")).expect("templates");
    fs::create_dir_all(&empty).expect("a directory");
    fs::write(broken.join("one/main.tf"), "").expect("a template");
    fs::write(broken.join("one/template.json"), "{\"variables\": ").expect("its template.json");
    fs::write(&file, "").expect("a file");
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    let errored = dir.join("state/hello.prod");
    fs::create_dir_all(&errored).expect("a state directory");
    fs::write(errored.join("errored-x.1.tfstate"), "{}").expect("an errored state");

    let mut unreachable = good.clone();
    unreachable.cli.supabase_url = Some("http://127.0.0.1:9".to_owned());
    let website = server(
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
    );
    let mut no_project = good.clone();
    no_project.cli.supabase_url = Some(website.clone());
    let mut bare = good.clone();
    bare.cli.supabase_url = Some(server(
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 103\r\n\r\n{\"code\":\"PGRST205\",\"details\":null,\"hint\":null,\"message\":\"Could not find the table 'public.clusters'\"}   ",
    ));
    let misconfigured = server(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 43\r\n\r\n{\"code\":\"misconfigured\",\"message\":\"no key\"}",
    );
    let at = |url: &str| {
        let mut setup = good.clone().token(&key);
        setup.cli.supabase_url = Some(url.to_owned());
        setup
    };
    let mut secret = good.clone();
    secret.cli.supabase_key = Some(jwt.sign(&json!({"role": "service_role", "exp": 4_000_000_000_u64})));
    let mut no_state = good.clone();
    no_state.cli.state_dir = Some(text(&file.join("state")));
    let mut errored = good.clone();
    errored.cli.state_dir = Some(text(&dir.join("state")));
    let infracost = |name: &str| good.clone().env("TENDRIL_INFRACOST", text(&fixtures(name)));
    let seeds = vec![
        ("the project is not reachable", unreachable, "egress rules"),
        ("a website instead of a project", no_project, "no Supabase project"),
        ("no migrations", bare, "apply supabase/migrations"),
        ("a secret key", secret, "Use the publishable"),
        (
            "an expired token",
            good.clone().token(
                jwt.sign(&json!({"role": "tendril_agent", "cluster_id": cluster.id, "exp": 1_700_000_000})),
            ),
            "expired at 2023-11-14",
        ),
        ("no token", good.clone().token(""), "give the API key"),
        ("a token file that is not there", good.clone().token_file(&dir.join("none")), "cannot be read"),
        (
            "another project's token",
            good.clone().token(stranger.machine_token(&cluster.id.to_string(), HOUR)),
            "use those of this project",
        ),
        ("a user's token", good.clone().token(jwt.sign(&user)), "tendril_agent"),
        (
            "an unknown cluster",
            good.clone().token(jwt.machine_token(&Uuid::new_v4().to_string(), HOUR)),
            "of an existing cluster of this project",
        ),
        ("a revoked cluster", good.clone().token(revoked.machine_token()), "this cluster was revoked"),
        ("a key that was cut off", good.clone().token(&key[..60]), "was cut off when it was copied"),
        ("a wrong key", good.clone().token(changed(&key, 60)), "opens no cluster of the project"),
        ("a key of no cluster", good.clone().token(changed(&key, 20)), "opens no cluster of the project"),
        (
            "a revoked cluster's key",
            good.clone().token(&revoked_key),
            "this cluster was revoked, which is final",
        ),
        ("no function", at(&website), "supabase functions deploy agent-token"),
        ("a function without its secret", at(&misconfigured), "set TENDRIL_SIGNING_KEY"),
        ("a project that is away, and a key", at("http://127.0.0.1:9"), "egress rules"),
        ("no templates", good.clone().templates(&empty), "holds no template"),
        ("a broken template.json", good.clone().templates(&broken), "fix the file"),
        ("no terraform", good.clone().terraform(Path::new("/no/terraform")), "install terraform or tofu"),
        ("a state directory that cannot be", no_state, "give --state-dir a directory"),
        ("a state that waits to be stored", errored, "start the agent, which stores it"),
        (
            "an unknown backend",
            good.clone().env("TENDRIL_STATE_BACKEND", "ftp"),
            "one of local, s3, http, pg, kubernetes",
        ),
        (
            "a credential in the backend",
            good.clone()
                .env("TENDRIL_STATE_BACKEND", "s3")
                .env("TENDRIL_STATE_CONFIG", r#"{"bucket": "b", "secret_key": "x"}"#),
            "set AWS_SECRET_ACCESS_KEY",
        ),
        (
            "a backend that is not reachable",
            good.clone()
                .env("TENDRIL_STATE_BACKEND", "http")
                .env("TENDRIL_STATE_CONFIG", r#"{"address": "http://127.0.0.1:9", "retry_max": 0}"#),
            "look at TENDRIL_STATE_CONFIG",
        ),
        (
            "a health address in use",
            good.clone().env("TENDRIL_HEALTH_ADDR", taken.local_addr().expect("its address").to_string()),
            "choose another address",
        ),
        (
            "an unknown intake",
            good.clone().env("TENDRIL_INTAKE", "fax"),
            "write \"auto\", \"postgres_changes\" or \"broadcast\"",
        ),
        ("an infracost that is not there", infracost("no-infracost"), "turn estimates off with \"off\""),
        ("an infracost without a key", infracost("infracost-0.10"), "TENDRIL_INFRACOST_KEY_FILE"),
        ("an infracost of another age", infracost("infracost-3"), "install infracost 0.10 or 2.x"),
        (
            "a key file that is not there",
            infracost("infracost-2").env("TENDRIL_INFRACOST_KEY_FILE", text(&dir.join("none"))),
            "TENDRIL_INFRACOST_KEY_FILE",
        ),
        ("a day for an estimate", good.clone().env("TENDRIL_COST_TIMEOUT", "24h"), "from 1s to 90s"),
        (
            "a Git host that is none",
            good.clone().env("TENDRIL_GIT_HOSTS", "https://github.com"),
            "write hosts such as github.com",
        ),
        (
            "a Git token that is not there",
            good.clone()
                .env("TENDRIL_GIT_HOSTS", "github.com")
                .env("TENDRIL_GIT_TOKEN_FILE", text(&dir.join("none"))),
            "TENDRIL_GIT_TOKEN_FILE (--git-token-file)",
        ),
        (
            "no git",
            good.clone()
                .terraform(&program::on_path("terraform"))
                .env("TENDRIL_GIT_HOSTS", "github.com")
                .env("PATH", text(&empty)),
            "install git 2.31 or newer",
        ),
        ("no room", good.clone().env("TENDRIL_WORK_LIMIT", "a bit"), "write a size"),
    ];
    for (seed, setup, remedy) in seeds {
        let (well, printed) = examined(&setup).await;
        let wrong: Vec<&str> = printed.lines().filter(|line| line.starts_with("WRONG")).collect();
        assert!(!well && printed.contains(remedy), "{seed}: \"{remedy}\" is not in\n{printed}");
        assert_eq!(wrong.len(), 1, "{seed}: one cause, one finding:\n{printed}");
    }
}

#[tokio::test]
async fn policies_that_broadcasts_need_and_that_are_missing_are_named_by_the_doctor() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).by_broadcast();
    let name = "An agent receives broadcasts of its cluster";
    let (well, printed) =
        without_policy(&world, "realtime.messages", name, async || examined(&setup).await).await;
    assert!(!well && printed.contains("or use --intake auto or postgres_changes"), "{printed}");
    assert!(
        printed
            .contains("create policy \"An agent receives broadcasts of its cluster\" on realtime.messages"),
        "{printed}"
    );
    let by_itself = world.agent(&cluster);
    let (well, printed) =
        without_policy(&world, "realtime.messages", name, async || examined(&by_itself).await).await;
    assert!(well && printed.contains("WARN  realtime: agents cannot receive broadcasts"), "{printed}");
    assert!(printed.contains("select tendril.install_broadcasts();"), "{printed}");
    let (well, printed) = examined(&setup).await;
    assert!(well, "{printed}");
}

/// The schemas and sequences of the database.
async fn objects(world: &World) -> Vec<String> {
    let query = "select nspname::text from pg_namespace where nspname not like 'pg\\_temp%' and nspname not like 'pg\\_toast%' union select relname::text from pg_class where relkind = 'S' order by 1";
    let rows = world.database.query(query, &[]).await.expect("the schemas");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_doctor_tries_a_state_database_and_leaves_nothing_in_it() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let url = format!("{}?sslmode=disable", world.project.database_url);
    let on = |url: &str| world.agent(&cluster).env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", url);
    let before = objects(&world).await;
    let setup = on(&url);
    let (well, printed) = examined(&setup).await;
    assert!(well && printed.lines().any(|line| line == "ok    state backend"), "{printed}");
    assert_eq!(objects(&world).await, before);
    let left = |dir: &Option<String>| {
        let dir = dir.as_deref().expect("a directory");
        let names = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(left(&setup.cli.state_dir), [""; 0]);
    assert!(!left(&setup.cli.work_dir).iter().any(|name| name.starts_with("trial-")));
    // Whoever may not make a schema is told so.
    world
        .database
        .batch_execute("create role doctors_patient login password 'patient'")
        .await
        .expect("a role");
    let address = url.split_once('@').expect("a user").1;
    let (well, printed) = examined(&on(&format!("postgres://doctors_patient:patient@{address}"))).await;
    world.database.batch_execute("drop role doctors_patient").await.expect("it owns nothing");
    assert!(!well && printed.contains("permission denied for database"), "{printed}");
    assert_eq!(objects(&world).await, before);
}
