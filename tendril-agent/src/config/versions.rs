//! `tendril-agent --version`: the agent's version, the contract's, and those of the programs that jobs would be run with.
//!
//! It calls the programs and nothing else, and never fails: what is missing is in its line.

use std::fmt;

use crate::{
    config::{args::Cli, preflight},
    control_plane::contract::CONTRACT,
    cost::infracost::Found,
    os::program::find,
    template::git::git_version,
    terraform::TerraformDir,
};

/// This agent and its programs. Shown as a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions(Vec<(&'static str, String)>);

impl Versions {
    /// Looks for the programs as a start with these settings would.
    pub fn find(cli: &Cli) -> Self {
        let named = |value: &Option<String>| value.clone().filter(|text| !text.trim().is_empty());
        let dir =
            named(&cli.terraform_dir).map(|dir| TerraformDir::at(dir.trim().into())).unwrap_or_default();
        let terraform = preflight::terraform(named(&cli.terraform).as_deref().map(str::trim), &dir, None);
        let terraform = match terraform {
            Ok(found) => (found.name(), found.version().to_owned()),
            Err(problem) => ("terraform", problem),
        };
        let infracost = match Found::detect(named(&cli.infracost).as_deref().map(str::trim)) {
            Ok(Found::Program(program)) => program.version().to_owned(),
            Ok(other) => format!("not used: {other}"),
            Err(problem) => problem,
        };
        let git = find("git").and_then(|path| git_version(&path).ok());
        Self(vec![
            ("tendril-agent", env!("CARGO_PKG_VERSION").to_owned()),
            ("contract", CONTRACT.to_string()),
            terraform,
            ("infracost", infracost),
            ("git", git.unwrap_or_else(|| "not found: templates from Git need it".to_owned())),
        ])
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, version)) in self.0.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{name} {version}")?;
        }
        Ok(())
    }
}
