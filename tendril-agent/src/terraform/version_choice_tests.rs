//! Directories of versions: the installed terraform under several names, and programs that lie, hang or flood.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::*;
use crate::{config::preflight, os::program::find, terraform::probe::version_of};

/// A directory of versions, and the agent's own program.
struct Fixture {
    place: tempfile::TempDir,
    dir: TerraformDir,
    default: Terraform,
}

impl Fixture {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let dir = TerraformDir::at(place.path().to_path_buf());
        let default = preflight::terraform(None, &TerraformDir::default(), None).unwrap();
        Self { place, dir, default }
    }

    /// A script that runs in the place of a program.
    fn script(&self, name: &str, script: &str) -> PathBuf {
        let path = self.place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A program that says that it is this version.
    fn version(&self, name: &str, version: &str) -> PathBuf {
        self.script(name, &format!("echo '{{\"terraform_version\": \"{version}\"}}'"))
    }

    async fn choose(&self, request: Option<&str>, required: &str) -> Result<Choice, String> {
        let request = request.map(|text| VersionRequest::parse(text).unwrap());
        let product = request.as_ref().and_then(|request| request.product).unwrap_or(self.default.product());
        let required = Constraints::parse(required).into_iter().collect();
        self.dir.choose(&self.default, product, request.as_ref(), required).await
    }

    async fn chosen(&self, request: Option<&str>, required: &str) -> String {
        self.choose(request, required).await.unwrap().program.title()
    }

    async fn problem(&self, path: &str) -> String {
        let candidates = self.dir.candidates().unwrap();
        let candidate = candidates.iter().find(|candidate| candidate.path.ends_with(path)).unwrap();
        self.dir.verify(candidate).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_run_has_the_newest_version_that_it_asks_for_and_the_agents_own_if_it_asks_for_none() {
    let fixture = Fixture::new();
    let own = fixture.default.title();
    assert_eq!(own, format!("terraform {}", fixture.default.version()));
    for (name, version) in [
        ("1.9.8/terraform", "1.9.8"),
        ("terraform_1.10.5", "1.10.5"),
        ("1.99.0/terraform", "1.99.0"),
        ("terraform_1.99.1-beta1", "1.99.1-beta1"),
        ("1.9.1/tofu", "1.9.1"),
        ("tofu_1.8.0", "1.8.0"),
    ] {
        fixture.version(name, version);
    }
    for (request, required, expected) in [
        (None, "", own.as_str()),
        (None, ">= 1.0", &own),
        (None, "< 1.10", "terraform 1.9.8"),
        (None, "~> 1.99", "terraform 1.99.0"),
        (Some("1.10.5"), "", "terraform 1.10.5"),
        (Some("~> 1.9"), "", "terraform 1.99.0"),
        (Some("~> 1.9"), "< 1.11", "terraform 1.10.5"),
        (Some(&own["terraform ".len()..]), "", &own),
        (Some(">= 1.9, < 1.10"), ">= 1.0", "terraform 1.9.8"),
        (Some("1.99.1-beta1"), "", "terraform 1.99.1-beta1"),
        (Some("1.99.1-beta1"), ">= 1.99.1", "terraform 1.99.1-beta1"),
        (Some("tofu < 2"), "", "tofu 1.9.1"),
        (Some("opentofu 1.8.0"), "", "tofu 1.8.0"),
    ] {
        assert_eq!(fixture.chosen(request, required).await, expected, "{request:?} {required}");
    }
    let chosen = fixture.choose(Some("1.9.8"), "").await.unwrap().program;
    assert_eq!(chosen.known().program, fixture.place.path().join("1.9.8/terraform").canonicalize().unwrap());
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_what_is() {
    let fixture = Fixture::new();
    fixture.version("1.9.8/terraform", "1.9.8");
    fixture.version("tofu_1.9.1", "1.9.1");
    let own = fixture.default.title();
    let sentence = fixture.choose(Some("~> 3.0"), "").await.unwrap_err();
    let has = format!("this agent has {own}, terraform 1.9.8, tofu 1.9.1: put the version into");
    assert!(sentence.starts_with("config_snapshot.terraform_version is \"~> 3.0\""), "{sentence}");
    assert!(sentence.contains(&has) && sentence.contains("--terraform-dir"), "{sentence}");
    let sentence = fixture.choose(Some("1.9.8"), ">= 1.10, < 2").await.unwrap_err();
    assert!(sentence.contains("the template has required_version \">= 1.10, < 2\""), "{sentence}");
    let sentence = fixture.choose(None, ">= 9").await.unwrap_err();
    assert!(sentence.starts_with("the template takes terraform of required_version \">= 9\""), "{sentence}");
    // Without a directory there is the agent's own program alone.
    let alone = Fixture { dir: TerraformDir::default(), ..fixture };
    let sentence = alone.choose(Some("1.9.8"), "").await.unwrap_err();
    assert!(
        sentence.contains(&format!("this agent has {own}: give it a directory of versions")),
        "{sentence}"
    );
    assert_eq!(alone.chosen(Some(">= 1.0"), "").await, own);
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_left_out_with_its_reason() {
    let fixture = Fixture::new();
    let place = fixture.place.path();
    fixture.version("2.0.9/terraform", "1.9.8");
    fixture.script("terraform_2.0.8", "exit 3");
    fixture.script("terraform_2.0.7", "echo no JSON");
    fixture.script("terraform_2.0.6", "kill -9 $$");
    fixture.script("terraform_2.0.5", "yes '{\"terraform_version\": \"2.0.5\"}' | head -c 10000000");
    fixture.script(
        "terraform_2.0.4",
        "printf '{\"terraform_version\": \"2.0.4\\\\u0000\\\\u001b[31m%0999d\"}' 1",
    );
    symlink("no/such/file", place.join("terraform_2.0.3")).unwrap();
    symlink("terraform_2.0.2", place.join("terraform_2.0.2")).unwrap();
    fs::create_dir_all(place.join("2.0.1/terraform")).unwrap();
    fs::write(place.join("terraform_2.0.0"), "#!/bin/sh\n").unwrap();
    let pipe = place.join("terraform_1.99.9");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(place.join("terraform_1.99.8"), [0x7f, b'E', b'L', b'F', 0]).unwrap();
    fs::set_permissions(place.join("terraform_1.99.8"), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.version("1.99.0/terraform", "1.99.0");

    for (path, part) in [
        ("2.0.9/terraform", "says that its version is \"1.9.8\""),
        ("terraform_2.0.8", "ended with exit status: 3"),
        ("terraform_2.0.7", "did not answer with a version"),
        ("terraform_2.0.6", "killed by a signal"),
        ("terraform_2.0.5", "did not answer with a version"),
        ("terraform_2.0.4", "says that its version is \"2.0.4\\0\\u{1b}[31m"),
        ("terraform_2.0.3", "link that leads nowhere"),
        ("terraform_2.0.2", "link that leads nowhere"),
        ("2.0.1/terraform", "no file"),
        ("terraform_2.0.0", "not executable"),
        ("terraform_1.99.9", "no file"),
        ("terraform_1.99.8", "xec format error"),
    ] {
        let problem = fixture.problem(path).await;
        assert!(problem.contains(part) && problem.len() < 200, "{path}: {problem}");
    }
    let choice = fixture.choose(Some(">= 1.99"), "").await.unwrap();
    assert_eq!(choice.program.title(), "terraform 1.99.0");
    assert_eq!(choice.left_out.len(), 12, "{:?}", choice.left_out);
    let sentence = fixture.choose(Some("2.0.9"), "").await.unwrap_err();
    assert!(sentence.contains("Not used: ") && sentence.contains("\"1.9.8\""), "{sentence}");
    assert!(!sentence.contains("terraform 2.0.9,"), "{sentence}");
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_everything_that_it_started() {
    let fixture = Fixture::new();
    let hangs =
        fixture.script("terraform_2.0.0", "trap '' INT; echo $$ > \"$0.pid\"; sleep 6666 & wait; sleep 6666");
    let begun = Instant::now();
    let problem = version_of(&hangs, Duration::from_millis(300)).await.unwrap_err();
    assert!(problem.contains("did not end within 0.3 s"), "{problem}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let pid = fs::read_to_string(fixture.place.path().join("terraform_2.0.0.pid")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn links_are_followed_and_names_that_are_no_version_are_none() {
    let fixture = Fixture::new();
    let place = fixture.place.path();
    let installed = find("terraform").unwrap();
    let version = fixture.default.version().to_owned();
    fs::create_dir(place.join(&version)).unwrap();
    symlink(&installed, place.join(&version).join("terraform")).unwrap();
    for name in [
        "latest",
        "v1.9.0",
        "1.9",
        "..1.9.0",
        "terraform_",
        "terraform_1.9",
        "terraform-1.9.0",
        "1.9.0 ",
        "01.9.0",
    ] {
        fixture.version(&format!("{name}/terraform"), "1.9.0");
    }
    fixture.version("1.9.0/terraform.bak", "1.9.0");
    let candidates = fixture.dir.candidates().unwrap();
    assert_eq!(candidates.len(), 1, "{candidates:?}");
    let known = fixture.dir.verify(&candidates[0]).await.unwrap();
    assert_eq!((known.program, known.version), (installed.canonicalize().unwrap(), version));
}

#[tokio::test]
async fn a_program_is_tried_once_and_again_when_it_was_replaced() {
    let fixture = Fixture::new();
    let counted = "echo x >> \"$0.calls\"; echo '{\"terraform_version\": \"1.99.0\"}'";
    let path = fixture.script("terraform_1.99.0", counted);
    for _ in 0..3 {
        assert_eq!(fixture.chosen(Some("1.99.0"), "").await, "terraform 1.99.0");
    }
    assert_eq!(fs::read_to_string(path.with_extension("0.calls")).unwrap(), "x\n");
    fs::remove_file(&path).unwrap();
    fixture.version("terraform_1.99.0", "1.98.0");
    let sentence = fixture.choose(Some("1.99.0"), "").await.unwrap_err();
    assert!(sentence.contains("\"1.98.0\""), "{sentence}");
}

#[tokio::test]
async fn a_later_executor_has_the_same_version_or_none() {
    let fixture = Fixture::new();
    let path = fixture.version("1.99.0/terraform", "1.99.0");
    let earlier = fixture.choose(Some("1.99.0"), "").await.unwrap().program.known();
    let again = fixture.dir.again(&fixture.default, &earlier).await.unwrap();
    assert_eq!(again.known(), earlier);
    // Another place is as good, another version is not.
    fixture.version("terraform_1.99.0", "1.99.0");
    fs::remove_file(&path).unwrap();
    assert_eq!(fixture.dir.again(&fixture.default, &earlier).await.unwrap().title(), "terraform 1.99.0");
    fs::remove_file(fixture.place.path().join("terraform_1.99.0")).unwrap();
    assert!(fixture.dir.again(&fixture.default, &earlier).await.is_none());
    let own = fixture.default.known();
    let moved = KnownTerraform { program: "/gone".into(), ..own.clone() };
    assert_eq!(fixture.dir.again(&fixture.default, &moved).await.unwrap().known(), own);
}

#[test]
fn an_agent_without_a_program_of_its_own_has_the_newest_release_of_the_directory() {
    let fixture = Fixture::new();
    for (name, version) in
        [("1.9.8/terraform", "1.9.8"), ("1.10.5/terraform", "1.10.5"), ("tofu_1.11.0", "1.11.0")]
    {
        fixture.version(name, version);
    }
    fixture.version("terraform_1.12.0-beta1", "1.12.0-beta1");
    fixture.script("terraform_1.11.0", "exit 1");
    let found = preflight::newest(&fixture.dir).unwrap().unwrap();
    assert_eq!((found.product, found.version.as_str()), (Product::Terraform, "1.10.5"));
    assert!(preflight::newest(&TerraformDir::default()).unwrap().is_none());
}

#[test]
fn a_directory_that_cannot_be_read_or_is_empty_is_a_problem_at_start() {
    let fixture = Fixture::new();
    let problem = preflight::terraform_dir(&fixture.dir).unwrap_err();
    assert!(problem.contains("holds no program") && problem.contains("1.11.4/terraform"), "{problem}");
    let missing = TerraformDir::at(fixture.place.path().join("none"));
    let problem = preflight::terraform_dir(&missing).unwrap_err();
    assert!(problem.contains("cannot be read") && problem.contains("TENDRIL_TERRAFORM_DIR"), "{problem}");
    preflight::terraform_dir(&TerraformDir::default()).unwrap();
}
