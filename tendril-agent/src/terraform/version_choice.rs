//! Which program a run has: what its deployment and its template ask for, out of what the agent has.

use std::iter;

use crate::{
    job::{Constraints, Product, Version, VersionRequest},
    terraform::{
        command::{KnownTerraform, Terraform},
        installed::{Candidate, TerraformDir, Verified},
    },
};

/// Most versions that a sentence lists.
const MOST_LISTED: usize = 20;

/// The program of a run.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) program: Terraform,
    /// Programs that would have come before it and cannot be run, each with the reason.
    pub(crate) left_out: Vec<String>,
}

impl TerraformDir {
    /// The program for a run: what the deployment asks for and the template requires of this product. `default` is the agent's
    /// own, which a run has that asks for nothing else. Errors: a sentence with what there is.
    pub(crate) async fn choose(
        &self,
        default: &Terraform,
        product: Product,
        request: Option<&VersionRequest>,
        required: Vec<Constraints>,
    ) -> Result<Choice, String> {
        let wanted = Wanted { request, required };
        let own = Version::parse(default.version());
        let own_fits = product == default.product()
            && own.as_ref().map_or_else(|| wanted.is_empty(), |own| wanted.takes(own));
        let as_it_is = |left_out| Choice { program: default.clone(), left_out };
        if own_fits && request.is_none() {
            return Ok(as_it_is(Vec::new()));
        }
        let candidates = self.candidates().map_err(|error| self.unreadable(&error))?;
        let (mut broken, mut left_out) = (Vec::new(), Vec::new());
        let fitting = candidates.iter().filter(|candidate| candidate.product == product);
        for candidate in fitting.filter(|candidate| wanted.fits(&candidate.version)) {
            if own_fits && own.as_ref() >= Some(&candidate.version) {
                break;
            }
            match self.verify(candidate).await {
                Ok(verified) => return Ok(Choice { program: with(default, product, verified), left_out }),
                Err(why) => {
                    broken.push(candidate);
                    left_out.push(format!("{}: {why}", candidate.path.display()));
                }
            }
        }
        if own_fits {
            return Ok(as_it_is(left_out));
        }
        let usable =
            candidates.iter().filter(|candidate| candidate.problem.is_none() && !broken.contains(candidate));
        let usable = usable.map(|candidate| format!("{} {}", candidate.product.name(), candidate.version));
        Err(self.refusal(&wanted.sentence(product), [default.title()].into_iter().chain(usable), &left_out))
    }

    /// The program with which an earlier executor began a run, if it is still here.
    pub(crate) async fn again(&self, default: &Terraform, earlier: &KnownTerraform) -> Option<Terraform> {
        let own = default.known();
        if (own.product, &own.version) == (earlier.product, &earlier.version) {
            return Some(default.clone());
        }
        let version = Version::parse(&earlier.version)?;
        let candidates = self.candidates().ok()?;
        let is_it =
            |candidate: &&Candidate| candidate.product == earlier.product && candidate.version == version;
        let verified = self.verify(candidates.iter().find(is_it)?).await.ok()?;
        Some(with(default, earlier.product, verified))
    }

    fn refusal(&self, wanted: &str, usable: impl Iterator<Item = String>, left_out: &[String]) -> String {
        let mut all: Vec<String> = Vec::new();
        for title in usable {
            if !all.contains(&title) {
                all.push(title);
            }
        }
        let more = all.len().saturating_sub(MOST_LISTED);
        all.truncate(MOST_LISTED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let remedy = match self.path() {
            Some(dir) => format!("put the version into {} (--terraform-dir), or ask for one that is there", dir.display()),
            None => "give it a directory of versions (--terraform-dir / TENDRIL_TERRAFORM_DIR), or ask for this one".to_owned(),
        };
        let sentence = format!("{wanted}, and this agent has {}{more}: {remedy}", all.join(", "));
        iter::once(sentence)
            .chain(left_out.iter().map(|why| format!("Not used: {why}")))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// This program, as the agent runs its own.
fn with(default: &Terraform, product: Product, Verified { program, version }: Verified) -> Terraform {
    default.with_program(KnownTerraform { program, product, version })
}

/// What a run's program must be.
struct Wanted<'a> {
    request: Option<&'a VersionRequest>,
    required: Vec<Constraints>,
}

impl Wanted<'_> {
    fn is_empty(&self) -> bool {
        self.request.is_none() && self.required.is_empty()
    }

    /// Whether the agent's own program may be it.
    fn takes(&self, version: &Version) -> bool {
        self.request.is_none_or(|request| request.constraints.fits(version))
            && self.required.iter().all(|required| required.takes(version))
    }

    /// Whether a program of the directory may be it: one from before a release only where one is asked for.
    fn fits(&self, version: &Version) -> bool {
        self.takes(version) && (self.request.is_some() || !version.has_prerelease())
    }

    fn sentence(&self, product: Product) -> String {
        let required: Vec<String> = self.required.iter().map(ToString::to_string).collect();
        let required = format!("required_version \"{}\"", required.join(", "));
        match self.request {
            None => format!("the template takes {} of {required}", product.name()),
            Some(request) if self.required.is_empty() => {
                format!("config_snapshot.terraform_version is \"{request}\"")
            }
            Some(request) => {
                format!("config_snapshot.terraform_version is \"{request}\", the template has {required}")
            }
        }
    }
}

#[cfg(test)]
#[path = "version_choice_tests.rs"]
mod tests;
