//! The checks on this machine before the first heartbeat: templates, directories, the terraform program.
//!
//! Each check answers with a sentence that says what to fix, so that a broken pod spec is found at start and not by the
//! first job.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    os::program::find,
    template::is_template,
    terraform::{Product, Terraform},
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
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("{flag} {shown} cannot be created ({error}): {fix}"))?;
    let probe = tempfile::Builder::new().prefix(".probe-").tempfile_in(dir);
    probe.map_err(|error| format!("{flag} {shown} cannot be written ({error}): {fix}"))?;
    Ok(())
}

/// Finds the program and asks for its version.
pub(crate) fn terraform(program: Option<&str>, cli_config: Option<&Path>) -> Result<Terraform, String> {
    let fix = "install terraform or tofu, or name the program with --terraform / TENDRIL_TERRAFORM";
    let path = match program {
        Some(name) => find(name)
            .ok_or_else(|| format!("\"{name}\" is not an executable program on this machine: {fix}"))?,
        None => find("terraform")
            .or_else(|| find("tofu"))
            .ok_or_else(|| format!("neither terraform nor tofu is on PATH: {fix}"))?,
    };
    if let Some(file) = cli_config {
        fs::File::open(file).map_err(|error| {
            format!(
                "--terraform-config / TENDRIL_TERRAFORM_CONFIG {} cannot be read ({error})",
                file.display()
            )
        })?;
    }
    let (product, version) =
        version_of(&path).map_err(|why| format!("{} does not run ({why}): {fix}", path.display()))?;
    Ok(Terraform::new(path, product, version, cli_config.map(Path::to_path_buf)))
}

/// The part of `version -json` that is read. Both products name the field after terraform.
#[derive(Deserialize)]
struct Version {
    terraform_version: String,
}

fn version_of(path: &Path) -> Result<(Product, String), String> {
    let output = Command::new(path)
        .args(["version", "-json"])
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", "/nonexistent")
        .env("CHECKPOINT_DISABLE", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("\"version -json\" ended with {}", output.status));
    }
    let version: Version = serde_json::from_slice(&output.stdout)
        .map_err(|_| "\"version -json\" did not answer with a version".to_owned())?;
    let is_tofu = path.file_name().is_some_and(|name| name.to_string_lossy().contains("tofu"));
    Ok((if is_tofu { Product::OpenTofu } else { Product::Terraform }, version.terraform_version))
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
        let problem = terraform(path.to_str(), None).unwrap_err();
        assert!(problem.contains("ended with exit status: 3"), "{problem}");
        assert!(terraform(Some("no-such-terraform"), None).unwrap_err().contains("no-such-terraform"));
    }

    #[test]
    fn the_installed_terraform_answers_its_version() {
        let found = terraform(None, None).unwrap();
        assert!(found.version().starts_with(|c: char| c.is_ascii_digit()), "{found:?}");
    }
}
