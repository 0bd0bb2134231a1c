//! The root module of a template: which files the program reads, and which versions of it they require.
//!
//! Nothing is refused here: what cannot be understood is left to Terraform, which names file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    job::{Constraints, Product},
    template::{
        declared_variables::read,
        generated::BACKEND_FILE,
        hcl::{self, Token},
        tf_json::entries_of,
    },
};

/// The files of a template's root module, as one of the two programs reads them: OpenTofu reads `main.tofu` instead of `main.tf`.
#[derive(Debug)]
pub(crate) struct RootModule {
    files: Vec<PathBuf>,
}

impl RootModule {
    /// That of a template in this folder.
    pub(crate) fn of(dir: &Path, product: Product) -> Self {
        Self { files: files(dir, product) }
    }

    /// Whether there is nothing in it but what the agent generates. The program would plan to destroy what its state holds.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.file_name().is_some_and(|name| name == BACKEND_FILE))
    }

    /// What its files require of the program's version.
    pub(crate) fn required_versions(&self) -> Vec<Constraints> {
        let mut required = Vec::new();
        let mut overriding = Vec::new();
        for file in &self.files {
            let Ok(text) = read(file) else { continue };
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let found = if name.ends_with(".json") { of_json(&text) } else { of_text(&text) };
            if !is_override(&name) {
                required.extend(found);
            } else if !found.is_empty() {
                // The last one counts, and nothing beside it.
                overriding = found;
            }
        }
        let texts = if overriding.is_empty() { required } else { overriding };
        texts.iter().filter_map(|text| Constraints::parse(text)).collect()
    }
}

/// The files that this program reads, in its order.
fn files(dir: &Path, product: Product) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let is_read = |name: &&String| {
        let twin = |from: &str, to: &str| name.strip_suffix(from).map(|stem| format!("{stem}{to}"));
        let hidden = name.starts_with('.') || name.ends_with('~');
        if hidden {
            return false;
        }
        match (twin(".tf", ".tofu"), twin(".tf.json", ".tofu.json")) {
            (Some(twin), _) | (_, Some(twin)) => product == Product::Terraform || !names.contains(&twin),
            (None, None) => {
                let is_tofu = [".tofu", ".tofu.json"].iter().any(|ending| name.ends_with(ending));
                product == Product::OpenTofu && is_tofu
            }
        }
    };
    let mut read: Vec<PathBuf> = names.iter().filter(is_read).map(|name| dir.join(name)).collect();
    read.sort();
    read
}

fn is_override(name: &str) -> bool {
    let stem = [".tf.json", ".tofu.json", ".tf", ".tofu"].iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| stem == "override" || stem.ends_with("_override"))
}

fn of_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    hcl::arguments(text, |block, argument, value| {
        if let ([Token::Word("terraform")], "required_version", Some(Token::Text(text))) =
            (block, argument, value)
        {
            found.push(text.to_owned());
        }
    });
    found
}

fn of_json(text: &str) -> Vec<String> {
    let found = entries_of(text, "terraform").unwrap_or_default();
    let versions = found.into_iter().filter(|(name, _)| name == "required_version");
    versions.filter_map(|(_, version)| serde_json::from_str(version.get()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(files: &[(&str, &str)], product: Product) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        RootModule::of(dir.path(), product).required_versions().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_all_files_of_the_root_module_require_is_found() {
        let files = [
            (
                "a.tf",
                "# terraform { required_version = \"9\" }\nterraform {\n  required_version = \">= 1.9\"\n}\n",
            ),
            ("b.tf.json", r#"{"terraform": [{"required_version": "< 2.0.0"}, {"backend": {}}]}"#),
            (
                "c.tf",
                "locals { required_version = \"7\" }\nresource \"terraform\" \"x\" { required_version = \"8\" }",
            ),
            ("d.tf.json", "{"),
            ("notes.md", "terraform { required_version = \"6\" }"),
            (".hidden.tf", "terraform { required_version = \"5\" }"),
            ("e.tf", "terraform { required_version = var.v }"),
            ("f.tf", "terraform { required_version = \"the newest\" }"),
        ];
        assert_eq!(required(&files, Product::Terraform), [">= 1.9", "< 2.0.0"]);
    }

    #[test]
    fn an_override_file_replaces_what_the_others_require() {
        let files = [
            ("main.tf", "terraform { required_version = \">= 1.9\" }"),
            ("a_override.tf", "terraform { required_version = \">= 1.8\" }"),
            ("b_override.tf.json", r#"{"terraform": {"required_version": "~> 1.7"}}"#),
            ("c_override.tf", "locals {}"),
        ];
        assert_eq!(required(&files, Product::Terraform), ["~> 1.7"]);
    }

    #[test]
    fn a_folder_of_which_the_program_reads_nothing_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let is_empty = |product| RootModule::of(dir.path(), product).is_empty();
        for name in [BACKEND_FILE, "README.md", "main.tf.bak", "terraform.tfvars", ".main.tf", "main.tf~"] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        assert!(is_empty(Product::Terraform) && is_empty(Product::OpenTofu));
        fs::write(dir.path().join("main.tofu"), "").unwrap();
        assert!(is_empty(Product::Terraform) && !is_empty(Product::OpenTofu));
        fs::write(dir.path().join("main.tf.json"), "{}").unwrap();
        assert!(!is_empty(Product::Terraform));
    }

    #[test]
    fn opentofu_reads_its_own_files_in_the_place_of_those_of_terraform() {
        let files = [
            ("main.tf", "terraform { required_version = \">= 1.11\" }"),
            ("main.tofu", "terraform { required_version = \">= 1.8\" }"),
            ("more.tf", "terraform { required_version = \"< 2\" }"),
        ];
        assert_eq!(required(&files, Product::OpenTofu), [">= 1.8", "< 2"]);
        assert_eq!(required(&files, Product::Terraform), [">= 1.11", "< 2"]);
    }
}
