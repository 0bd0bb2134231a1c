//! What was planned is what is applied: the digests of the saved plan and of everything it was made from.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    job::{Changes, ErrorCode, Failure},
    os::{files::private_file, tree_digest::TreeDigest, untrusted},
    template::Workspace,
};

/// SHA-256 digests, in hexadecimal digits, taken right after the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanDigest {
    /// Of the saved plan: what a person approves.
    pub(crate) plan: String,
    /// Of the module it was made from: the template's files as they were copied, the variables, the backend, the lock file.
    module: String,
    /// Of the template in the agent's templates directory, or as it came from Git.
    template: String,
    /// What the plan would change: shown with its digest.
    #[serde(default)]
    pub(crate) changes: Option<Changes>,
}

impl PlanDigest {
    /// Of the plan that was just saved. Errors: the disk.
    pub(crate) fn of(workspace: &Workspace, template_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            plan: plan(workspace)?,
            module: TreeDigest::of(&workspace.module_dir())?,
            template: tree(template_dir)?,
            changes: None,
        })
    }

    /// Saves it, so that an approval survives a restart of the agent.
    pub(crate) fn save(&self, workspace: &Workspace) -> io::Result<()> {
        private_file(&workspace.plan_digest_file(), &serde_json::to_vec(self)?)
    }

    /// What a previous run stored.
    pub(crate) fn load(workspace: &Workspace) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(workspace.plan_digest_file())?)?)
    }

    /// Refuses to go on if anything is not as it was.
    pub(crate) fn check(&self, workspace: &Workspace, template_dir: &Path) -> Result<(), Failure> {
        let changed = |what: &str| {
            Err(Failure::new(
                ErrorCode::PlanChanged,
                format!(
                    "{what} changed after the plan {} was made, so nothing was applied: queue the deployment again",
                    self.plan
                ),
            ))
        };
        let fault = |error: io::Error| Failure::internal("the saved plan cannot be checked", &error);
        let now = match Self::of(workspace, template_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return changed("the workspace"),
            now => now.map_err(fault)?,
        };
        if now.plan != self.plan {
            return changed("the saved plan");
        }
        if now.module != self.module {
            return changed("the template's files or variables in the workspace");
        }
        if now.template != self.template {
            return changed("the template");
        }
        Ok(())
    }
}

/// Largest plan that is read, in bytes.
const LARGEST_PLAN: u64 = 1024 * 1024 * 1024;

/// The digest of the saved plan, which belongs to whoever ran Terraform.
fn plan(workspace: &Workspace) -> io::Result<String> {
    let file = untrusted::open_file(&workspace.plan_file(), workspace.owner()?)?;
    if file.metadata()?.len() > LARGEST_PLAN {
        return Err(io::Error::other("it is larger than 1 GiB"));
    }
    let mut whole = Sha256::new();
    io::copy(&mut file.take(LARGEST_PLAN), &mut whole)?;
    Ok(format!("{:x}", whole.finalize()))
}

/// The digest of every file below a directory of the agent's, with its place. Links inside are followed.
fn tree(dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    collect(dir, Path::new(""), 0, &mut files)?;
    files.sort();
    let mut whole = Sha256::new();
    for place in files {
        let mut file = fs::File::open(dir.join(&place))?;
        whole.update(format!("{} {}\n", place.display(), file.metadata()?.len()));
        io::copy(&mut file, &mut whole)?;
    }
    Ok(format!("{:x}", whole.finalize()))
}

/// How deep folders may lie; deeper ones are loops of links.
const DEEPEST: u32 = 32;

fn collect(dir: &Path, below: &Path, depth: u32, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir.join(below))? {
        let place = below.join(entry?.file_name());
        let kind = fs::metadata(dir.join(&place))?.file_type();
        if kind.is_dir() && depth < DEEPEST {
            collect(dir, &place, depth + 1, files)?;
        } else if kind.is_file() {
            files.push(place);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_after_the_plan_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(dir.path().join("w"));
        let template = dir.path().join("template");
        for made in [workspace.module_dir(), workspace.data_dir(), template.join("modules/m")] {
            fs::create_dir_all(made).unwrap();
        }
        let files = [
            (workspace.plan_file(), "the saved plan"),
            (workspace.module_dir().join("main.tf"), "files or variables"),
            (template.join("modules/m/main.tf"), "the template changed"),
        ];
        for (file, _) in &files {
            fs::write(file, "as planned").unwrap();
        }
        PlanDigest::of(&workspace, &template).unwrap().save(&workspace).unwrap();
        let digest = PlanDigest::load(&workspace).unwrap();
        assert_eq!(digest.plan.len(), 64);
        digest.check(&workspace, &template).unwrap();
        for (file, part) in &files {
            fs::write(file, "otherwise").unwrap();
            let failure = digest.check(&workspace, &template).unwrap_err();
            assert_eq!(failure.code, ErrorCode::PlanChanged);
            assert!(failure.message.contains(part), "{}", failure.message);
            fs::write(file, "as planned").unwrap();
        }
        fs::write(workspace.module_dir().join("more.tf"), "").unwrap();
        assert!(digest.check(&workspace, &template).is_err());
        fs::remove_file(workspace.module_dir().join("more.tf")).unwrap();
        fs::remove_file(workspace.plan_file()).unwrap();
        assert_eq!(digest.check(&workspace, &template).unwrap_err().code, ErrorCode::PlanChanged);
    }
}
