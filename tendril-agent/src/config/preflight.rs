//! The checks on this machine before the first heartbeat: templates, directories, the terraform program.
//!
//! Each check answers with a sentence that says what to fix, so that a broken pod spec is found at start and not by the
//! first job.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path, thread};

use crate::{
    job::Product,
    os::program::find,
    template::is_template,
    terraform::{KnownTerraform, PROBE_LIMIT, Terraform, TerraformDir, Verified, version_of},
};

/// There is a directory, and at least one template in it.
pub(crate) fn templates(dir: &Path) -> Result<(), String> {
    let fix = "point --templates-dir / TENDRIL_TEMPLATES_DIR to a directory with one folder of .tf files per template";
    let shown = dir.display();
    let entries = fs::read_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("the templates directory {shown} does not exist: {fix}"),
        _ => format!("the templates directory {shown} cannot be read ({error}): {fix}"),
    })?;
    let has_template = entries.filter_map(Result::ok).any(|entry| is_template(&entry.path()));
    if has_template {
        Ok(())
    } else {
        Err(format!("the templates directory {shown} holds no template: {fix}"))
    }
}

/// The directory exists (it is made if need be) and files can be written into it.
pub(crate) fn writable(flag: &str, dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let fix = format!("give {flag} a directory that user {} may write", rustix::process::geteuid().as_raw());
    fs::DirBuilder::new()
        .recursive(true)
        // Runs with users of their own pass through.
        .mode(if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 })
        .create(dir)
        .map_err(|error| format!("{flag} {shown} cannot be created ({error}): {fix}"))?;
    let probe = tempfile::Builder::new().prefix(".probe-").tempfile_in(dir);
    probe.map_err(|error| format!("{flag} {shown} cannot be written ({error}): {fix}"))?;
    Ok(())
}

/// Finds the program and asks for its version. Where none is named and none is on PATH, it is the newest of the directory of
/// versions.
pub(crate) fn terraform(
    program: Option<&str>,
    dir: &TerraformDir,
    cli_config: Option<&Path>,
) -> Result<Terraform, String> {
    let fix = "install terraform or tofu, or name the program with --terraform / TENDRIL_TERRAFORM";
    let path = match program {
        Some(name) => Some(
            find(name)
                .ok_or_else(|| format!("\"{name}\" is not an executable program on this machine: {fix}"))?,
        ),
        None => find("terraform").or_else(|| find("tofu")),
    };
    if let Some(file) = cli_config {
        fs::File::open(file).map_err(|error| {
            format!(
                "--terraform-config / TENDRIL_TERRAFORM_CONFIG {} cannot be read ({error})",
                file.display()
            )
        })?;
    }
    let cli_config = cli_config.map(Path::to_path_buf);
    let Some(path) = path else {
        let known = newest(dir)?.ok_or_else(|| format!("neither terraform nor tofu is on PATH: {fix}"))?;
        return Ok(Terraform::new(known.program, known.product, known.version, cli_config));
    };
    let version = finished(version_of(&path, PROBE_LIMIT))
        .map_err(|why| format!("{} does not run ({why}): {fix}", path.display()))?;
    let is_tofu = path.file_name().is_some_and(|name| name.to_string_lossy().contains("tofu"));
    let product = if is_tofu { Product::OpenTofu } else { Product::Terraform };
    Ok(Terraform::new(path, product, version, cli_config))
}

/// The directory of versions can be read, and holds programs.
pub(crate) fn terraform_dir(dir: &TerraformDir) -> Result<(), String> {
    let Some(path) = dir.path() else { return Ok(()) };
    let candidates = dir.candidates().map_err(|error| dir.unreadable(&error))?;
    if candidates.is_empty() {
        return Err(format!(
            "--terraform-dir / TENDRIL_TERRAFORM_DIR {} holds no program: put them there as 1.11.4/terraform or terraform_1.11.4",
            path.display()
        ));
    }
    Ok(())
}

/// The newest release that runs; Terraform before OpenTofu.
pub(crate) fn newest(dir: &TerraformDir) -> Result<Option<KnownTerraform>, String> {
    let candidates = dir.candidates().map_err(|error| dir.unreadable(&error))?;
    finished(async {
        for product in Product::ALL {
            for candidate in candidates.iter().filter(|candidate| candidate.product == product) {
                if candidate.version.has_prerelease() {
                    continue;
                }
                match dir.verify(candidate).await {
                    Ok(Verified { program, version }) => {
                        return Ok(Some(KnownTerraform { program, product, version }));
                    }
                    Err(why) => {
                        tracing::warn!(program = %candidate.path.display(), why, "a version of Terraform is left out");
                    }
                }
            }
        }
        Ok(None)
    })
}

/// Waits for something that needs a runtime, from wherever it is called: perhaps inside of one.
fn finished<T: Send>(work: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| format!("no runtime can be started: {error}"))?.block_on(work)
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|_| Err("the check broke off".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_templates_directory_is_named() {
        let problem = templates(Path::new("/no/such/templates")).unwrap_err();
        assert!(problem.contains("/no/such/templates does not exist"), "{problem}");
        assert!(problem.contains("TENDRIL_TEMPLATES_DIR"), "{problem}");
    }

    #[test]
    fn a_templates_directory_needs_a_folder_with_terraform_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(templates(dir.path()).unwrap_err().contains("holds no template"));
        fs::write(dir.path().join("empty/main.tf"), "").unwrap();
        templates(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let problem = writable("--work-dir", &file.path().join("work")).unwrap_err();
        assert!(problem.starts_with("--work-dir"), "{problem}");
    }

    #[test]
    fn a_program_that_is_no_terraform_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terraform");
        fs::write(&path, "#!/bin/sh\nexit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let problem = terraform(path.to_str(), &TerraformDir::default(), None).unwrap_err();
        assert!(problem.contains("ended with exit status: 3"), "{problem}");
        assert!(
            terraform(Some("no-such-terraform"), &TerraformDir::default(), None)
                .unwrap_err()
                .contains("no-such-terraform")
        );
    }

    #[test]
    fn the_installed_terraform_answers_its_version() {
        let found = terraform(None, &TerraformDir::default(), None).unwrap();
        assert!(found.version().starts_with(|c: char| c.is_ascii_digit()), "{found:?}");
    }
}
