//! The providers that a template's `.terraform.lock.hcl` names.
//!
//! Terraform adds checksums to the file: those of an unpacked provider where the file has those of its archive, as a file that was made
//! on another kind of machine has. It needs them to start the provider, so the run's copy of the file may change. That a provider is
//! added which the file does not name is no such change: nobody has reviewed that provider.

use std::{collections::BTreeSet, io};

use crate::{os::untrusted, template::Workspace};

/// Name of the file in a module's directory.
pub(super) const FILE: &str = ".terraform.lock.hcl";
/// A larger file is no lock file.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// The addresses of the providers in a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DependencyLock(BTreeSet<String>);

impl DependencyLock {
    /// That of a run's module. None, if there is none, or if Terraform is to say what is wrong with it.
    pub(super) fn read(workspace: &Workspace) -> Option<Self> {
        let owner = workspace.owner().ok()?;
        let file = workspace.module_dir().join(FILE);
        let read = untrusted::read_file(&file, owner, MOST_BYTES);
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::debug!(%error, "the dependency lock file is not read");
                return None;
            }
        };
        Some(Self::of(&String::from_utf8_lossy(&text)))
    }

    fn of(text: &str) -> Self {
        let address = |line: &str| {
            let rest = line.trim_start().strip_prefix("provider")?.trim_start().strip_prefix('"')?;
            rest.split_once('"').map(|(address, _)| address.to_owned())
        };
        Self(text.lines().filter_map(address).collect())
    }

    /// The providers that this one names and an earlier one does not.
    pub(super) fn added_to<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0.difference(&earlier.0).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "# This file is maintained automatically by \"terraform init\".
provider \"registry.terraform.io/hashicorp/aws\" {
  version     = \"6.1.0\"
  constraints = \"~> 6.0\"
  hashes = [
    \"zh:00\",
  ]
}

# provider \"registry.terraform.io/hashicorp/null\" {
provider \"registry.terraform.io/hashicorp/random\" { version = \"3.7.2\" }
";

    #[test]
    fn providers_are_read_by_their_addresses() {
        let lock = DependencyLock::of(LOCK);
        let known = ["registry.terraform.io/hashicorp/aws", "registry.terraform.io/hashicorp/random"];
        assert_eq!(lock.0.iter().collect::<Vec<_>>(), known);
        assert_eq!(DependencyLock::of("").added_to(&lock).count(), 0);
        assert_eq!(lock.added_to(&DependencyLock::of("")).collect::<Vec<_>>(), known);
    }
}
