use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::job::ErrorCode;
use crate::template::copy::{MOST_BYTES, inspect};
use crate::terraform::state::StateBackend;
use crate::terraform::state::{ErroredState, State};

struct Fixture {
    dir: tempfile::TempDir,
    workspace: Workspace,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("templates/hello/modules/m")).unwrap();
    fs::write(dir.path().join("templates/hello/main.tf"), "# main").unwrap();
    fs::write(dir.path().join("templates/hello/modules/m/m.tf"), "# m").unwrap();
    let job = Job {
        id: Uuid::nil(),
        attempt: 1,
        claim_token: Uuid::nil(),
        config: crate::job::ConfigSnapshot::default(),
        state_key: None,
    };
    let workspace = Workspace::create(&dir.path().join("work"), &job).unwrap();
    Fixture { dir, workspace }
}

impl Fixture {
    fn template(&self) -> PathBuf {
        self.dir.path().join("templates/hello")
    }

    fn lay_out(&self) -> Result<(), Failure> {
        let variables = serde_json::from_str(r#"{"name": "x"}"#).unwrap();
        self.workspace.lay_out(&self.template(), &variables)?;
        self.state().lay_out(&self.workspace.module_dir()).unwrap();
        Ok(())
    }

    fn state(&self) -> State {
        StateBackend::local().of(&self.dir.path().join("state"), "prod")
    }

    fn errored(&self) -> PathBuf {
        let file = self.workspace.module_dir().join(ERRORED_STATE);
        fs::write(&file, "{}").unwrap();
        file
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_workspace_is_private_and_complete() {
    let fixture = fixture();
    fixture.lay_out().unwrap();
    let module = fixture.workspace.module_dir();
    assert_eq!(mode(&fixture.workspace.root), 0o700);
    assert_eq!(mode(&module.join(VARIABLES_FILE)), 0o600);
    assert_eq!(fs::read_to_string(module.join("modules/m/m.tf")).unwrap(), "# m");
    let file = module.join("zz_tendril_override.tf.json");
    let backend: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let path = backend["terraform"]["backend"]["local"]["path"].as_str().unwrap();
    assert!(path.ends_with("state/prod/terraform.tfstate"), "{path}");
}

#[test]
fn a_file_of_terraforms_language_is_copied_whatever_else_is_in_its_name() {
    let fixture = fixture();
    let names =
        ["remote.tfstate.tf", "remote.tfstate.tf.json", "x.tfstate.tftpl", "modules/my.tfstates/a.tf"];
    let left = [
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "terraform.tfstate.d/x",
        "errored.tfstate",
        "a.tfstate.1.backup",
    ];
    for name in names.iter().chain(&left) {
        let path = fixture.template().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }
    fixture.lay_out().unwrap();
    let is_there = |name: &&str| fixture.workspace.module_dir().join(name).exists();
    assert_eq!(names.iter().filter(|name| !is_there(name)).count(), 0);
    assert_eq!(left.iter().filter(|name| is_there(name)).count(), 0);
}

#[test]
fn a_link_out_of_the_template_is_refused() {
    for target in ["/etc/passwd", "../../secret", "../.."] {
        let fixture = fixture();
        fs::write(fixture.dir.path().join("secret"), "s").unwrap();
        symlink(target, fixture.template().join("link")).unwrap();
        let failure = fixture.lay_out().unwrap_err();
        assert_eq!(failure.code, ErrorCode::ConfigInvalid);
        assert!(failure.message.contains("file link is a link that leads out"), "{}", failure.message);
    }
}

#[test]
fn a_link_to_its_own_folder_does_not_copy_for_ever() {
    let fixture = fixture();
    symlink("..", fixture.template().join("modules/up")).unwrap();
    assert!(fixture.lay_out().is_err());
}

#[test]
fn a_few_links_that_stand_for_more_than_a_disk_holds_are_refused() {
    let chain = fixture();
    for level in 0..40 {
        let folder = chain.template().join(format!("d{level}"));
        fs::create_dir(&folder).unwrap();
        for link in ["a", "b"] {
            symlink(format!("../d{}", level + 1), folder.join(link)).unwrap();
        }
    }
    fs::create_dir(chain.template().join("d40")).unwrap();
    let ring = fixture();
    for (folder, other) in [("x", "y"), ("y", "x")] {
        fs::create_dir(ring.template().join(folder)).unwrap();
        for link in ["a", "b"] {
            symlink(format!("../{other}"), ring.template().join(folder).join(link)).unwrap();
        }
    }
    for failure in [inspect(&chain.template()).unwrap_err(), ring.lay_out().unwrap_err()] {
        assert_eq!(failure.code, ErrorCode::ConfigInvalid);
        assert!(failure.message.contains("ask its owner"), "{}", failure.message);
    }
    assert!(fs::read_dir(ring.workspace.module_dir()).unwrap().next().is_none());
    let large = fixture();
    fs::File::create(large.template().join("hole")).unwrap().set_len(MOST_BYTES + 1).unwrap();
    let failure = large.lay_out().unwrap_err();
    assert!(failure.message.contains("more than 1024 MiB"), "{}", failure.message);
}

#[test]
fn a_mounted_config_map_is_copied_once() {
    let fixture = fixture();
    let template = fixture.template();
    fs::create_dir(template.join("..2026")).unwrap();
    fs::write(template.join("..2026/extra.tf"), "# extra").unwrap();
    symlink("..2026", template.join("..data")).unwrap();
    symlink("..data/extra.tf", template.join("extra.tf")).unwrap();
    fixture.lay_out().unwrap();
    let module = fixture.workspace.module_dir();
    assert_eq!(fs::read_to_string(module.join("extra.tf")).unwrap(), "# extra");
    assert!(!module.join("..data").exists());
}

#[test]
fn state_that_could_not_be_written_is_rescued() {
    let fixture = fixture();
    fixture.lay_out().unwrap();
    fixture.errored();
    let ErroredState::Saved(place) = fixture.state().clear_run(&fixture.workspace) else {
        panic!("not saved")
    };
    assert_eq!((fs::read_to_string(&place).unwrap().as_str(), mode(&place)), ("{}", 0o600));
    assert!(!fixture.workspace.module_dir().exists());
    let root = fixture.workspace.root.clone();
    fixture.workspace.remove().unwrap();
    assert!(!root.exists());
}

#[test]
fn the_only_copy_of_a_state_is_never_removed() {
    let fixture = fixture();
    fixture.lay_out().unwrap();
    let errored = fixture.errored();
    // Nothing can be made below a file.
    fs::remove_dir_all(fixture.state().dir()).unwrap();
    fs::write(fixture.state().dir(), "").unwrap();
    let ErroredState::Unmovable(place, _) = fixture.state().clear_run(&fixture.workspace) else {
        panic!("not stuck")
    };
    assert_eq!(place, errored);
    let problem = fixture.workspace.clone().remove().unwrap_err().to_string();
    assert!(problem.contains(errored.to_str().unwrap()), "{problem}");
    assert_eq!(fs::read_to_string(&errored).unwrap(), "{}");
    // Once there is a place for it, all goes its usual way.
    fs::remove_file(fixture.state().dir()).unwrap();
    assert!(matches!(fixture.state().clear_run(&fixture.workspace), ErroredState::Saved(_)));
    fixture.workspace.remove().unwrap();
}

#[test]
fn folders_that_a_program_made_unwritable_are_removed_and_what_is_kept_is_said() {
    let fixture = fixture();
    fixture.lay_out().unwrap();
    fixture.errored();
    let locked = fixture.workspace.home_dir().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("file"), "").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    assert!(matches!(fixture.state().clear_run(&fixture.workspace), ErroredState::Saved(_)));
    assert!(!locked.exists());
}

#[test]
fn a_template_with_a_file_that_would_win_over_the_agents_own_is_refused() {
    for (name, refused) in [
        ("override.tf", false),
        ("a_override.tf.json", false),
        ("zzz.tf", false),
        ("zzz_override.tf", true),
        ("zz_tendril_override.tofu", true),
        ("~_override.tf.json", true),
    ] {
        let fixture = fixture();
        fs::write(fixture.template().join(name), "{}").unwrap();
        let laid_out = fixture.lay_out();
        assert_eq!(laid_out.is_err(), refused, "{name}");
        if let Err(failure) = laid_out {
            assert_eq!(failure.code, ErrorCode::ConfigInvalid);
            assert!(
                failure.message.contains(name) && failure.message.contains("backend"),
                "{}",
                failure.message
            );
        }
    }
}

#[test]
fn a_pointer_of_git_lfs_is_refused_wherever_it_is() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for (place, pointer) in [
        ("big.bin", pointer.to_owned()),
        ("modules/m/big.bin", pointer.to_owned()),
        // As editors and old versions leave it.
        ("a.bin", pointer.replace('\n', "\r\n")),
        ("b.bin", format!("\u{feff}\n{pointer}")),
        ("c.bin", "version https://git-lfs.github.com/spec/v1".to_owned()),
        ("d.bin", "version https://hawser.github.com/spec/v1\noid sha256:4d7a\nsize 1\n".to_owned()),
        ("e.bin", "version http://git-media.io/v/2\noid sha256:4d7a\nsize 1\n".to_owned()),
    ] {
        let fixture = fixture();
        fs::write(fixture.template().join(place), pointer).unwrap();
        for failure in [fixture.lay_out().unwrap_err(), inspect(&fixture.template()).unwrap_err()] {
            assert_eq!(failure.code, ErrorCode::SourceInvalid);
            assert!(
                failure.message.contains(place) && failure.message.contains("Git LFS"),
                "{}",
                failure.message
            );
        }
    }
}

#[test]
fn a_template_of_endless_folders_is_refused() {
    let fixture = fixture();
    fs::create_dir_all(fixture.template().join("d/".repeat(300))).unwrap();
    let failure = fixture.lay_out().unwrap_err();
    assert!(failure.message.contains("deeper than 64 levels"), "{}", failure.message);
}

#[test]
fn what_cannot_be_removed_is_set_aside_and_tried_again_later() {
    let fixture = fixture();
    fixture.lay_out().unwrap();
    let held = fixture.workspace.module_dir().join("held");
    fs::create_dir(&held).unwrap();
    let mount =
        |args: &[&str], at: &Path| std::process::Command::new(args[0]).args(&args[1..]).arg(at).status();
    if !mount(&["mount", "-t", "tmpfs", "none"], &held).is_ok_and(|status| status.success()) {
        eprintln!("mounts are not allowed here: not tried");
        return;
    }
    let work = fixture.dir.path().join("work");
    fixture.workspace.remove().unwrap();
    let left: Vec<_> = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [SET_ASIDE]);
    let aside = fs::read_dir(work.join(SET_ASIDE)).unwrap().next().unwrap().unwrap().path();
    remove_set_aside(&work);
    assert!(aside.exists());
    assert!(mount(&["umount"], &aside.join("run/module/held")).unwrap().success());
    remove_set_aside(&work);
    assert!(!work.join(SET_ASIDE).exists());
}
