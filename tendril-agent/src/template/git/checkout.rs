//! The checkout: resolves the commit, fetches it into the mirror, and puts the files of one folder into the workspace.

use std::{io, time::Duration, time::Instant};

use secrecy::ExposeSecret;
use tokio::{task::spawn_blocking, time::sleep};
use url::Url;

use crate::{
    job::{
        ErrorCode, Failure,
        source::{GitSource, is_commit},
    },
    os::files,
    redaction::Redactor,
    telemetry,
    template::{
        copy,
        definition::is_template,
        git::{
            command::{Call, Console, Missing, Remote},
            fault::Fault,
            mirror::Mirror,
        },
        workspace::Workspace,
    },
};

/// How long to wait before the same is tried again, where that may help.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// What was checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The full id of the commit.
    pub(crate) commit: String,
    /// Whether the mirror had it already.
    pub(crate) cached: bool,
}

impl Console<'_> {
    /// Puts the files of a source into the workspace. Errors: a sentence for the user; none, if a stop was requested.
    pub(crate) async fn check_out(
        &self,
        source: &GitSource,
        workspace: &Workspace,
        secrets: &Redactor,
    ) -> Result<Checkout, Option<Failure>> {
        self.settings.allow(source.repository()).map_err(|sentence| {
            Failure::new(ErrorCode::ConfigInvalid, format!("config_snapshot.source.git: {sentence}"))
        })?;
        let since = Instant::now();
        let tried = self.try_again(source, workspace, secrets).await;
        metrics::histogram!(telemetry::FETCH_SECONDS).record(since.elapsed().as_secs_f64());
        let result = match &tried {
            Ok(Checkout { cached: true, .. }) => "cached",
            Ok(_) => "fetched",
            Err(Fault::Stopped) => "stopped",
            Err(_) => "failed",
        };
        metrics::counter!(telemetry::FETCHES, "result" => result).increment(1);
        let checkout = tried.map_err(|fault| fault.explain(source))?;
        let dir = workspace.source_dir();
        let looked = blocking(move || Ok((copy::inspect(&dir), is_template(&dir)))).await;
        let (inspected, has_files) = looked.map_err(|error| Fault::DiskGuard(error).explain(source))?;
        inspected?;
        if has_files { Ok(checkout) } else { Err(Fault::NoTemplate.explain(source)) }
    }

    async fn try_again(
        &self,
        source: &GitSource,
        workspace: &Workspace,
        secrets: &Redactor,
    ) -> Result<Checkout, Fault> {
        let mut pauses = PAUSES.into_iter();
        loop {
            // It may have been replaced meanwhile.
            let token = self.settings.token_for(source.repository()).map_err(Fault::Token)?;
            secrets.hide(token.iter().map(|token| token.expose_secret().to_owned()));
            let remote = Remote { address: source.repository().clone(), token };
            match (self.try_addresses(remote, source, workspace).await, pauses.next()) {
                (Err(fault), Some(pause)) if fault.may_pass() => {
                    tracing::warn!(?fault, "a Git repository cannot be fetched from: trying again");
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.stop.wait() => return Err(Fault::Stopped),
                    }
                }
                (tried, _) => return tried,
            }
        }
    }

    /// Some hosts redirect to the same address with `.git` at its end. That is tried; no redirect is ever followed.
    async fn try_addresses(
        &self,
        mut remote: Remote,
        source: &GitSource,
        workspace: &Workspace,
    ) -> Result<Checkout, Fault> {
        let tried = self.try_address(&remote, source, workspace).await;
        match (tried, with_suffix(&remote.address)) {
            (Err(Fault::Redirected), Some(address)) => {
                remote.address = address;
                self.try_address(&remote, source, workspace).await.map_err(|fault| match fault {
                    Fault::NoRepository => Fault::Redirected,
                    other => other,
                })
            }
            (tried, _) => tried,
        }
    }

    /// A mirror that is unusable is created again, once.
    async fn try_address(
        &self,
        remote: &Remote,
        source: &GitSource,
        workspace: &Workspace,
    ) -> Result<Checkout, Fault> {
        let mirror = Mirror::of(self.root, source);
        let commit = self.resolve(remote, source, workspace).await?;
        let _lock = tokio::select! {
            lock = mirror.lock() => lock?,
            () = self.stop.wait() => return Err(Fault::Stopped),
        };
        let tidied = mirror.clone();
        let mut is_there = blocking(move || tidied.tidy()).await?;
        loop {
            let tried = self.take_from(&mirror, is_there, remote, &commit, source, workspace).await;
            match tried {
                Err(fault) if fault.is_the_mirrors() => {
                    let (broken, dir) = (mirror.clone(), workspace.source_dir());
                    blocking(move || broken.remove().and_then(|()| files::remove_dir(&dir))).await?;
                    if !is_there {
                        return Err(fault);
                    }
                    tracing::warn!(?fault, mirror = %mirror.dir().display(), "a mirror of a Git repository is created again");
                    metrics::counter!(telemetry::MIRRORS_RECREATED).increment(1);
                    is_there = false;
                }
                other => return other,
            }
        }
    }

    /// The commit that is meant; read from the server, unless the source names it.
    async fn resolve(
        &self,
        remote: &Remote,
        source: &GitSource,
        workspace: &Workspace,
    ) -> Result<String, Fault> {
        if let Some(commit) = source.commit() {
            return Ok(commit.to_owned());
        }
        let names = match source.reference() {
            None => vec!["HEAD".to_owned()],
            Some(full) if full.starts_with("refs/") => vec![full.to_owned()],
            Some(short) => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
        };
        let mut args =
            vec!["ls-remote".to_owned(), "--quiet".to_owned(), "--".to_owned(), "origin".to_owned()];
        // What an annotated tag points to is listed after its name.
        args.extend(names.iter().flat_map(|name| [name.clone(), format!("{name}^{{}}")]));
        let args = args.into_iter().map(Into::into).collect();
        let owner = workspace.data_dir();
        let call =
            Call { args, missing: Missing::IsAnError, owner: &owner, env: Vec::new(), fills: Vec::new() };
        let output = self.run(remote, call).await?;
        let listed = |wanted: &str| {
            let lines = output.lines().filter_map(|line| line.split_once('\t'));
            lines.filter(|(id, name)| *name == wanted && is_commit(id)).map(|(id, _)| id.to_owned()).next()
        };
        let mut found: Vec<String> = names
            .iter()
            .filter_map(|name| listed(&format!("{name}^{{}}")).or_else(|| listed(name)))
            .collect();
        found.dedup();
        match (found.pop(), found.is_empty(), source.reference()) {
            (Some(commit), true, _) => Ok(commit),
            (Some(_), false, _) => Err(Fault::TwoReferences),
            (None, _, Some(_)) => Err(Fault::NoReference),
            (None, _, None) => Err(Fault::Empty),
        }
    }

    /// Brings the commit into the mirror, and its folder's files into the workspace.
    async fn take_from(
        &self,
        mirror: &Mirror,
        is_there: bool,
        remote: &Remote,
        commit: &str,
        source: &GitSource,
        workspace: &Workspace,
    ) -> Result<Checkout, Fault> {
        let git_dir = format!("--git-dir={}", mirror.dir().display());
        let command = |args: &[&str]| {
            let args = std::iter::once(git_dir.as_str()).chain(args.iter().copied());
            call(args.map(str::to_owned).collect(), mirror)
        };
        if !is_there {
            let dir = mirror.dir().display().to_string();
            let args = ["init", "--quiet", "--bare", "--template=", "--", &dir];
            self.run(remote, call(args.map(str::to_owned).into(), mirror)).await?;
        }
        // A reference is written once everything is there. One whose commit is gone breaks the next command of Git.
        let reference = format!("refs/tendril/{commit}");
        let listed = command(&["for-each-ref", "--format=%(objecttype) %(refname)", "refs/tendril"]);
        let listed = self.run(remote, listed).await?;
        let cached = listed.lines().any(|line| line.ends_with(&reference));
        if !cached {
            let wanted = format!("+{commit}:{reference}");
            let fetch =
                ["fetch", "--quiet", "--no-tags", "--depth=1", "--filter=blob:none", "--no-write-fetch-head"];
            let mut fetch = command(&[&fetch[..], &["--", "origin", &wanted]].concat());
            fetch.missing = Missing::StaysAway;
            self.run(remote, fetch).await?;
        }
        if self.run(remote, command(&["cat-file", "-t", commit])).await?.trim() != "commit" {
            return Err(Fault::NoCommit);
        }
        if !source.path().is_empty() {
            let folder = command(&["ls-tree", "--full-tree", commit, "--", source.path()]);
            let entry = self.run(remote, folder).await?;
            match entry.split(' ').nth(1) {
                None => return Err(Fault::NoFolder),
                Some("tree") => {}
                Some(_) => return Err(Fault::NotAFolder),
            }
        }
        let folder = format!("{commit}:{}", source.path());
        let (tree, owner) = (workspace.source_dir(), workspace.data_dir());
        files::private_dir(&tree)?;
        let mut check_out = command(&["read-tree", "-m", "-u", &folder]);
        check_out.owner = &owner;
        check_out.missing = Missing::IsFetched;
        check_out.env = vec![
            ("GIT_WORK_TREE", tree.clone().into()),
            ("GIT_INDEX_FILE", tree.with_extension("index").into()),
        ];
        check_out.fills.push(tree);
        self.run(remote, check_out).await?;
        Ok(Checkout { commit: commit.to_owned(), cached })
    }
}

/// A command that works on the mirror.
fn call(args: Vec<String>, mirror: &Mirror) -> Call<'_> {
    let args = args.into_iter().map(Into::into).collect();
    let fills = vec![mirror.dir().to_path_buf()];
    Call { args, missing: Missing::IsAnError, owner: mirror.dir(), env: Vec::new(), fills }
}

fn with_suffix(address: &Url) -> Option<Url> {
    let path = address.path().trim_end_matches('/');
    let mut longer = address.clone();
    longer.set_path(&format!("{path}.git"));
    path.strip_suffix(".git").is_none().then_some(longer)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
#[path = "checkout_tests.rs"]
mod tests;
