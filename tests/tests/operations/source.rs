//! Templates from Git: the real git, from a real server with a login, through a real terraform.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{
    AgentSetup, Cluster, GitServer, Repository, Row, Seen, World, crash::expire_lease, until,
};

pub(crate) const TOKEN: &str = "canaryGitToken0123456789abcdefghijklmnop";

/// A template that prints its version.
pub(crate) fn template(version: &str) -> String {
    format!(
        "variable \"name\" {{\n  type = string\n}}\n
resource \"terraform_data\" \"greeting\" {{\n  input = var.name\n}}\n
output \"greeting\" {{\n  value = \"{version} ${{terraform_data.greeting.output}}\"\n}}\n"
    )
}

pub(crate) const MANIFEST: &str = r#"{"title": "Greeting", "variables": {"type": "object", "required": ["name"], "additionalProperties": false,
  "properties": {"name": {"type": "string", "maxLength": 20, "sensitive": true}}}}"#;

/// A server with one repository: a template in `network`, and much beside it.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    pub(crate) server: GitServer,
    pub(crate) repository: Repository,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let server = GitServer::start(&world.path("repositories")).await;
        server.want_token(TOKEN);
        let repository = server.repository("infra").await;
        repository.write("network/main.tf", template("one"));
        repository.write("network/template.json", MANIFEST);
        // What was not requested.
        repository.write("much/noise", noise(600_000));
        Self { world, cluster, server, repository }
    }

    pub(crate) fn agent(&self) -> AgentSetup {
        let token = self.world.path("git-token");
        if !token.exists() {
            fs::write(&token, TOKEN).expect("a token");
        }
        self.world
            .agent(&self.cluster)
            .env("TENDRIL_GIT_HOSTS", self.server.host())
            .env("TENDRIL_GIT_TOKEN_FILE", token.to_str().expect("a path"))
    }

    pub(crate) fn source(&self, reference: Option<&str>) -> Value {
        let mut source = json!({"git": self.server.url("infra"), "path": "network"});
        source["ref"] = reference.into();
        source
    }

    pub(crate) async fn run(&self, source: Value) -> Row {
        let config = json!({"source": source, "stack": "prod", "variables": {"name": "world"}});
        self.cluster.queue(config).await.ended().await
    }
}

/// Bytes that cannot be packed.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn assert_ran(row: &Row, commit: &str, version: &str) {
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.template_commit.as_deref(), Some(commit), "{row:?}");
    assert_eq!(row.outputs.as_ref().expect("outputs")["greeting"], format!("{version} [hidden]"));
}

/// How many packs with objects a server sent, and their size.
fn packs(seen: &[Seen]) -> Vec<usize> {
    seen.iter().filter_map(|seen| seen.pack).collect()
}

/// Every file below a directory.
pub(crate) fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let below = |entry: fs::DirEntry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir { files(&entry.path()) } else { vec![entry.path()] }
    };
    entries.flat_map(below).collect()
}

#[tokio::test]
async fn a_folder_is_run_at_a_branch_a_tag_or_a_commit_and_the_row_says_which() {
    let stage = Stage::set().await;
    let repository = &stage.repository;
    let first = repository.commit().await;
    repository.run(&["tag", "light"]).await;
    repository.run(&["tag", "--annotate", "--message", "x", "v1.0.0"]).await;
    repository.run(&["push", "--quiet", "--tags", "origin"]).await;
    let agent = stage.agent().start();

    let job = stage
        .cluster
        .queue(json!({"source": stage.source(None), "stack": "prod", "variables": {"name": "world"}}))
        .await;
    assert_ran(&job.ended().await, &first, "one");
    job.says(&format!("The template is of commit {first}.")).await;
    job.says(&format!("fetched from {}, folder network, at its default branch", stage.server.url("infra")))
        .await;
    let packs_of_first = packs(&stage.server.seen());
    assert_eq!(packs_of_first.len(), 2, "the folders, and the files of one: {packs_of_first:?}");
    assert!(
        packs_of_first.iter().sum::<usize>() < 20_000,
        "nothing of the noise beside it: {packs_of_first:?}"
    );

    for reference in ["main", "light", "v1.0.0", "refs/tags/v1.0.0", first.as_str()] {
        assert_ran(&stage.run(stage.source(Some(reference))).await, &first, "one");
        let seen = stage.server.seen();
        assert!(packs(&seen).is_empty(), "{reference}: the mirror has it: {seen:?}");
        assert_eq!(seen.is_empty(), reference == first, "a commit is not even looked up: {seen:?}");
    }

    repository.write("network/main.tf", template("two"));
    repository.write("much/noise", noise(500_000));
    let second = repository.commit().await;
    assert_ran(&stage.run(stage.source(Some("main"))).await, &second, "two");
    let more = packs(&stage.server.seen());
    assert!(more.len() == 2 && more.iter().sum::<usize>() < 20_000, "{more:?}");
    assert_ran(&stage.run(stage.source(Some("v1.0.0"))).await, &first, "one");
    assert!(!agent.output().contains("ERROR"), "{}", agent.output());
}

#[tokio::test]
async fn one_folder_and_stack_have_one_state_whatever_the_commit() {
    let stage = Stage::set().await;
    stage.repository.commit().await;
    let _agent = stage.agent().start();
    let row = stage.run(stage.source(None)).await;
    assert_eq!(row.plan_summary.expect("a plan")["add"], 1);
    stage.repository.write("network/main.tf", template("two"));
    stage.repository.commit().await;
    let mut other = stage.source(None);
    other["git"] = json!(stage.server.url("infra").trim_end_matches(".git"));
    let row = stage.run(other).await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.plan_summary.expect("a plan")["add"], 0, "it is there already");
    stage.repository.write("other/main.tf", template("three"));
    stage.repository.commit().await;
    let mut other = stage.source(None);
    other["path"] = json!("other");
    let row = stage.run(other).await;
    assert_eq!(row.plan_summary.expect("a plan")["add"], 1, "another folder, another state");
}

#[tokio::test]
async fn nothing_in_a_repository_can_run_or_fetch_anything_and_its_links_stay_inside() {
    let stage = Stage::set().await;
    let (repository, marker) = (&stage.repository, stage.world.path("marker"));
    let touch = format!("touch {}", marker.display());
    repository.write("network/.gitattributes", "* filter=lfs diff=evil\n*.bin filter=lfs\n");
    repository.write("network/big.bin", "not the pointer of a large file, for which there is a refusal\n");
    repository.write(
        ".gitmodules",
        format!("[submodule \"m\"]\n\tpath = network/m\n\turl = ext::sh -c '{touch}'\n"),
    );
    let gitlink = format!("160000,{},network/m", "1".repeat(40));
    symlink("main.tf", repository.tree().join("network/link.txt")).expect("a link");
    repository.run(&["add", "--all"]).await;
    repository.run(&["update-index", "--add", "--cacheinfo", &gitlink]).await;
    repository.run(&["commit", "--quiet", "--message", "traps"]).await;
    repository.run(&["push", "--quiet", "origin", "main"]).await;
    let commit = repository.run(&["rev-parse", "HEAD"]).await;
    // Nothing of the agent's own user is read either.
    let home = stage.world.path("home");
    fs::create_dir_all(&home).expect("a home");
    let config = format!(
        "[filter \"lfs\"]\n\tsmudge = {touch}\n[core]\n\thooksPath = {0}\n[url \"http://127.0.0.1:9/\"]\n\tinsteadOf = http://\n",
        home.display()
    );
    fs::write(home.join(".gitconfig"), config).expect("a configuration");
    let hook = home.join("post-index-change");
    fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).expect("a hook");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a hook");
    let home = home.to_str().expect("a path");
    let _agent = stage
        .agent()
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("GIT_CONFIG_GLOBAL", format!("{home}/.gitconfig"))
        .env("GIT_SSH_COMMAND", touch.as_str())
        .start();
    assert_ran(&stage.run(stage.source(None)).await, &commit, "one");
    assert!(!marker.exists(), "nothing of it was run");

    for (target, part) in
        [("/etc/passwd", "leads out of the template"), ("../much/noise", "leads out of the template")]
    {
        let link = repository.tree().join("network/template.json");
        fs::remove_file(&link).expect("it was there");
        symlink(target, &link).expect("a link");
        repository.commit().await;
        let row = stage.run(stage.source(None)).await;
        let printed = row.error_message.expect("a message");
        assert!(row.status == "FAILED" && printed.contains(part), "{printed}");
    }
}

#[tokio::test]
async fn jobs_that_need_one_mirror_at_the_same_time_all_get_it_and_it_is_fetched_once() {
    let stage = Stage::set().await;
    let commit = stage.repository.commit().await;
    let _agent = stage.agent().concurrency(6).start();
    let source = stage.source(None);
    let config = |stack: u32| json!({"source": source, "stack": format!("s{stack}"), "action": "plan", "variables": {"name": "world"}});
    let jobs = stage.cluster.queue_all((0..6).map(config)).await;
    for job in jobs {
        let row = job.ended().await;
        assert_eq!(
            (row.status.as_str(), row.template_commit.as_deref()),
            ("SUCCESS", Some(commit.as_str())),
            "{row:?}"
        );
    }
    assert_eq!(packs(&stage.server.seen()).len(), 2, "the folders once, and the files once");
}

#[tokio::test]
async fn an_agent_that_is_killed_in_the_middle_of_a_fetch_fetches_again_in_its_next_life() {
    let stage = Stage::set().await;
    let commit = stage.repository.commit().await;
    stage.server.stall(true);
    let setup = stage.agent();
    let first = setup.start();
    let job =
        stage.cluster.queue(json!({"source": stage.source(None), "variables": {"name": "world"}})).await;
    stage.server.stalled().await;
    first.signal(Signal::KILL);
    drop(first);
    setup.executors().signal(Signal::KILL);
    stage.server.stall(false);
    let work = setup.cli.work_dir.clone().expect("a work directory");
    let mirror = fs::read_dir(Path::new(&work).join("git")).expect("mirrors").filter_map(Result::ok);
    let mirror = mirror.map(|entry| entry.path()).find(|path| path.join("HEAD").exists()).expect("a mirror");
    // A lock without an owner, and half a pack.
    fs::write(mirror.join("shallow.lock"), "").expect("a lock");
    fs::create_dir_all(mirror.join("objects/pack")).expect("a directory");
    fs::write(mirror.join("objects/pack/tmp_pack_half"), noise(1000)).expect("half a pack");
    let _second = setup.start();
    stage.cluster.online().await;
    expire_lease(&stage.world, &job).await;
    let row = job.ended().await;
    assert_ran(&row, &commit, "one");
    assert_eq!(row.attempt, 2);
    assert!(!mirror.join("objects/pack/tmp_pack_half").exists());
    until("nothing of the first life still works on the mirror", async || {
        let of_it = format!("TF_DATA_DIR={}", mirror.display());
        let left = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok).filter(|process| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == of_it.as_bytes())
        });
        let left: Vec<_> = left.map(|process| process.file_name()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_broken_mirror_is_made_anew() {
    let stage = Stage::set().await;
    let commit = stage.repository.commit().await;
    let setup = stage.agent();
    let agent = setup.start();
    assert_ran(&stage.run(stage.source(None)).await, &commit, "one");
    let work = setup.cli.work_dir.clone().expect("a work directory");
    let git = Path::new(&work).join("git");
    let broken: Vec<_> =
        files(&git).into_iter().filter(|file| file.extension().is_some_and(|e| e == "pack")).collect();
    assert!(!broken.is_empty());
    for pack in broken {
        fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a pack");
        let length = fs::metadata(&pack).expect("a pack").len();
        fs::write(&pack, vec![7; usize::try_from(length).expect("a size")]).expect("it is broken");
    }
    assert_ran(&stage.run(stage.source(None)).await, &commit, "one");
    assert!(agent.output().contains("created again"), "{}", agent.output());
}

#[tokio::test]
async fn a_plan_that_was_approved_after_a_restart_is_of_the_commit_that_was_shown() {
    let stage = Stage::set().await;
    let first = stage.repository.commit().await;
    let setup = stage.agent();
    let mut agent = setup.start();
    let config = json!({"source": stage.source(Some("main")), "stack": "prod", "approval": true, "variables": {"name": "world"}});
    let job = stage.cluster.queue(config).await;
    let row = job.becomes("waits for approval", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    assert_eq!(row.template_commit.as_deref(), Some(first.as_str()));
    agent.signal(Signal::TERM);
    agent.ended().await;
    // Meanwhile the branch moves, and the server goes away.
    stage.repository.write("network/main.tf", template("two"));
    stage.repository.commit().await;
    stage.server.seen();
    let _second = setup.start();
    stage.cluster.online().await;
    job.approve(&job.plan().await).await;
    assert_ran(&job.ended().await, &first, "one");
    assert!(stage.server.seen().is_empty(), "nothing is fetched again");
}
