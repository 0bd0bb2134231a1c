//! Where a state is kept that its backend does not take, once the pod of its run is gone: Secrets, or a volume.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};

use crate::{
    launch::kubernetes::{
        election::answered,
        names::{IN_SECRET, STATE_ACCESS_VARIABLE, STATE_SECRET_VARIABLE, STATE_STORE_VARIABLE},
        plan_access::PlanAccess,
        state_parts::{self, MOST_PARTS, part_name},
    },
    os::{
        blocking,
        files::{private_file, sync_dir},
    },
};

/// Where the state of this run goes.
#[derive(Debug)]
pub(crate) enum StateStore {
    /// Into Secrets whose names begin so; the file says how they may be created, and is there once the dispatcher knows of it.
    Secrets { base: String, access: PathBuf, asked: BTreeSet<usize> },
    /// Into a directory: a volume that every run of this stack has.
    Dir(PathBuf),
}

/// What became of one try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it is there.
    Whole,
    /// Not yet: it may be tried again; the sentence says what is missing.
    NotYet(String),
    /// It cannot be.
    Never(String),
}

impl StateStore {
    /// What the environment of a run's container says; none outside of one.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        match variable(STATE_STORE_VARIABLE)?.as_str() {
            IN_SECRET => Some(Self::Secrets {
                base: variable(STATE_SECRET_VARIABLE)?,
                access: variable(STATE_ACCESS_VARIABLE)?.into(),
                asked: BTreeSet::new(),
            }),
            dir => Some(Self::Dir(dir.into())),
        }
    }

    /// Keeps a state file.
    pub(crate) async fn keep(&mut self, file: PathBuf) -> Kept {
        let read = blocking(move || Ok(state_parts::cut(&fs::read(file)?))).await;
        let parts = match read {
            Ok(parts) => parts,
            Err(error) => return Kept::NotYet(format!("the state cannot be read: {error}")),
        };
        match self {
            Self::Secrets { base, access, asked } => in_secrets(base, access.clone(), asked, parts).await,
            Self::Dir(dir) => {
                let dir = dir.clone();
                match blocking(move || in_dir(&dir, &parts)).await {
                    Ok(()) => Kept::Whole,
                    Err(error) => Kept::NotYet(format!("the volume does not take it: {error}")),
                }
            }
        }
    }

    /// What is kept; none, if nothing is. Errors: it cannot be read, or is not whole.
    pub(crate) async fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Secrets { .. } => Ok(None),
            Self::Dir(dir) => {
                let dir = dir.clone();
                blocking(move || state_parts::join(&dir)).await
            }
        }
    }

    /// Removes it: it is stored. What is mounted to be read only goes with its Secrets.
    pub(crate) async fn remove(&self) {
        let Self::Dir(dir) = self else { return };
        let dir = dir.clone();
        let removed = blocking(move || {
            for index in 0..MOST_PARTS {
                match fs::remove_file(dir.join(part_name(index))) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    removed => removed?,
                }
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::debug!(%error, "what a state was kept in is not removed here");
        }
    }
}

/// The first part is the last one: where it is, the others are too.
fn in_dir(dir: &std::path::Path, parts: &[Vec<u8>]) -> io::Result<()> {
    for (index, part) in parts.iter().enumerate().rev() {
        private_file(&dir.join(part_name(index)), part)?;
    }
    sync_dir(dir)
}

async fn in_secrets(base: &str, access: PathBuf, asked: &mut BTreeSet<usize>, parts: Vec<Vec<u8>>) -> Kept {
    if parts.len() > MOST_PARTS {
        return Kept::Never(format!(
            "the state takes {} Secrets, and at most {MOST_PARTS} are made for one: give the agent a volume for plans and states (--plan-volume-claim)",
            parts.len()
        ));
    }
    let read = blocking(move || if access.exists() { Ok(Some(PlanAccess::load(&access))) } else { Ok(None) });
    let access = match read.await {
        Ok(Some(Ok(access))) => access,
        Ok(None) => return Kept::NotYet("the dispatcher has not given the right to it yet".to_owned()),
        Ok(Some(Err(why))) => return Kept::NotYet(why),
        Err(error) => return Kept::NotYet(error.to_string()),
    };
    let Some(owner) = access.owner.clone() else {
        return Kept::Never("the right to keep it names no owner".to_owned());
    };
    let connection = match access.connect() {
        Ok(connection) => connection,
        Err(why) => return Kept::Never(why),
    };
    let secrets: Api<Secret> = Api::namespaced(connection.client, &connection.namespace);
    for (index, part) in parts.into_iter().enumerate().rev() {
        let secret = owner.secret(format!("{base}-{index}"), &part_name(index), part);
        let made = answered(secrets.create(&PostParams::default(), &secret)).await;
        let was_asked = !asked.insert(index);
        match made {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                // Of an answer that was lost; otherwise somebody else made it, and what is in it is not the state.
                if !was_asked {
                    return Kept::Never(format!("the Secret {base}-{index} is somebody else's"));
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 413 | 422) => {
                return Kept::Never(format!("the Secret is refused: {}", status.message));
            }
            Err(error) => return Kept::NotYet(format!("the Secret cannot be made: {error}")),
        }
    }
    Kept::Whole
}
