//! The directory of shared providers where runs have users of their own. Real terraform, and a provider from a mirror on disk.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::run_users::{RUNS_SCRIPT, Stage};

#[tokio::test]
async fn what_one_run_downloads_is_roots_and_another_run_uses_it_unless_its_lock_file_knows_another() {
    let Some(stage) = Stage::set().await else { return };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mirror = stage.dir.path().join("mirror");
    let place = mirror.join("registry.acme.example/acme/x");
    let cache = stage.dir.path().join("work/plugins");
    let program = stage.program("terraform-provider-x_v1.0.0", "#!/bin/sh\nexit 1\n");
    fs::create_dir_all(&place).expect("a mirror");
    let archive = place.join(format!("terraform-provider-x_1.0.0_linux_{arch}.zip"));
    let zipped = Command::new("python3").args(["-m", "zipfile", "-c"]).arg(&archive).arg(&program).status();
    assert!(zipped.expect("python3").success());
    let open = Command::new("chmod").arg("-R").arg("a+rX").arg(&mirror).status();
    assert!(open.expect("chmod").success());
    let config = stage.dir.path().join("terraform.rc");
    fs::write(
        &config,
        format!("provider_installation {{\n  filesystem_mirror {{ path = \"{}\" }}\n}}\n", mirror.display()),
    )
    .expect("a configuration");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("permissions");
    let main = format!(
        "terraform {{\n  required_providers {{\n    x = {{ source = \"registry.acme.example/acme/x\" }}\n  }}\n}}\n{RUNS_SCRIPT}"
    );
    for name in ["one", "two", "locked", "unlocked"] {
        stage.template(name, &main, "");
    }
    // Checksums of the archive alone, as a lock file has them that was made on another platform: no unpacked provider can be
    // compared with them.
    let sum = Command::new("sha256sum").arg(&archive).output().expect("sha256sum").stdout;
    let sum = String::from_utf8(sum).expect("a checksum");
    let lock = format!(
        "provider \"registry.acme.example/acme/x\" {{\n  version = \"1.0.0\"\n  hashes = [\"zh:{}\"]\n}}\n",
        sum.split(' ').next().expect("a checksum")
    );
    let other = lock.replace("acme/x", "acme/other");
    fs::write(stage.world.path("templates/locked/.terraform.lock.hcl"), lock).expect("a lock file");
    fs::write(stage.world.path("templates/unlocked/.terraform.lock.hcl"), other).expect("a lock file");
    let _agent = stage.setup.clone().env("TENDRIL_TERRAFORM_CONFIG", config.display().to_string()).start();
    for name in ["one", "two", "one", "locked", "locked"] {
        let job = stage.queue(name).await;
        let row = job.ended().await;
        // It speaks no protocol of providers: each run comes as far as to start it.
        let message = row.error_message.clone().unwrap_or_default();
        let owner = if name == "locked" { stage.first_user() } else { 0 };
        assert!(message.contains(&format!("Owner: {owner} ")), "{name}: {row:?}");
        if name == "locked" {
            job.says("init is run again without the cache").await;
        }
    }
    // A provider that nobody has reviewed is not started.
    let row = stage.queue("unlocked").await.ended().await;
    let message = row.error_message.clone().unwrap_or_default();
    assert!(message.contains("names no version of registry.acme.example/acme/x"), "{row:?}");
    let foreign = Command::new("find").arg(&cache).args(["!", "-uid", "0"]).output().expect("find");
    assert_eq!(String::from_utf8_lossy(&foreign.stdout), "");
    let cached =
        Command::new("find").arg(&cache).args(["-name", "terraform-provider-x*"]).output().expect("find");
    assert!(!cached.stdout.is_empty());
}
