//! The project that commands talk to.

use std::env;

use serde::de::DeserializeOwned;
use tendril_realtime::{AccessToken, Client, Error, Rest, rest::QueryBuilder};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, FailureKind, Result},
    session::{
        auth::{Auth, checked_key, project_url},
        profile::{ConfigDir, Profile},
        store::SessionStore,
        tokens::SessionTokens,
    },
};

/// How many rows are read at once.
const PAGE: u64 = 500;

/// The contract that this program was written for.
const CONTRACT: i64 = 3;

/// Who the caller is.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The session of a profile.
    Session(SessionTokens),
    /// A token from the environment.
    Environment(Zeroizing<String>),
}

/// A project, as one of its users.
#[derive(Debug)]
pub struct Project {
    /// The client with the caller's tokens.
    pub client: Client,
    /// URL and key.
    pub profile: Profile,
    /// Name of the profile.
    pub name: String,
    /// Who the caller is.
    pub identity: Identity,
    contract: OnceCell<i64>,
}

impl Project {
    /// The project of a profile, as who is signed in there; or, with `GRAPE_TOKEN`, as that token's user, of the project in
    /// `SUPABASE_URL` and `SUPABASE_PUBLISHABLE_KEY` where these are set.
    ///
    /// # Errors
    /// [`FailureKind::NotSignedIn`] with what to do.
    pub fn open(dir: &ConfigDir, requested: Option<&str>) -> Result<Self> {
        let profiles = dir.profiles()?;
        let name = profiles.name(requested);
        let known = profiles.profiles.get(&name).cloned();
        if let Some(token) = variable("GRAPE_TOKEN") {
            return Self::from_environment(name, known, token.into());
        }
        let Some(profile) = known else {
            return Err(match requested {
                Some(_) => Failure::new(FailureKind::NotFound, format!("There is no profile `{name}`."))
                    .next(format!("`grape profiles` lists them; `grape login --profile {name}` makes it.")),
                None => Failure::new(FailureKind::NotSignedIn, "Nobody is signed in.")
                    .next("Sign in: `grape login`. In a script: GRAPE_TOKEN, SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY."),
            });
        };
        let tokens = SessionTokens::open(Auth::new(&profile)?, SessionStore::new(dir, &name))?;
        let client = Client::builder(&profile.url, &profile.key).token_source(tokens.clone()).build()?;
        Ok(Self { client, profile, name, identity: Identity::Session(tokens), contract: OnceCell::new() })
    }

    fn from_environment(name: String, known: Option<Profile>, token: Zeroizing<String>) -> Result<Self> {
        let url = variable("SUPABASE_URL").or_else(|| known.as_ref().map(|profile| profile.url.clone()));
        let key = variable("SUPABASE_PUBLISHABLE_KEY")
            .or_else(|| variable("SUPABASE_ANON_KEY"))
            .or_else(|| known.as_ref().map(|profile| profile.key.clone()));
        let (Some(url), Some(key)) = (url, key) else {
            let failure = "GRAPE_TOKEN is set, but not the project that it is for.";
            return Err(Failure::new(FailureKind::Usage, failure).next(
                "Set SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY too, or name a profile with --profile.",
            ));
        };
        project_url(&url)?;
        let key = checked_key(&key).map_err(|problem| Failure::new(FailureKind::Usage, problem))?;
        let source = AccessToken::new(&*token).map_err(|_| {
            Failure::new(FailureKind::Usage, "GRAPE_TOKEN is no access token.")
                .next("It is the JWT of a user.")
        })?;
        if source.expires_at().is_some_and(|end| end <= std::time::SystemTime::now()) {
            return Err(Failure::new(FailureKind::NotSignedIn, "The token in GRAPE_TOKEN has expired.")
                .next("Give the job a fresh one."));
        }
        let client = Client::builder(&url, &key).token_source(source).build()?;
        let known =
            known.unwrap_or(Profile { url: String::new(), key: String::new(), portal: None, cluster: None });
        let profile = Profile { url, key, ..known };
        Ok(Self { client, profile, name, identity: Identity::Environment(token), contract: OnceCell::new() })
    }

    /// The REST interface.
    pub fn rest(&self) -> &Rest {
        self.client.rest()
    }

    /// All rows of a request that has an order, page by page: a server answers a thousand at most.
    ///
    /// # Errors
    /// What the project answers.
    pub async fn all<T: DeserializeOwned>(
        &self,
        request: impl Fn(&Rest) -> QueryBuilder,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        loop {
            let from = all.len() as u64;
            let page: Vec<T> = request(self.rest()).range(from, from + PAGE - 1).rows().await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Which version of the contract the database holds.
    ///
    /// # Errors
    /// What the network can do.
    pub async fn contract(&self) -> Result<i64> {
        let ask = || async {
            match self.rest().rpc("contract_version", &serde_json::json!({})).value::<i64>().await {
                Ok(version) => Ok(version),
                // The first contract does not report it.
                Err(error) if error.code() == "PGRST202" => Ok(1),
                Err(error) => Err(Failure::from(error)),
            }
        };
        self.contract.get_or_try_init(ask).await.copied()
    }

    /// Whether the database has stacks, changes of plans and catalogues of templates.
    ///
    /// # Errors
    /// As [`contract`](Self::contract).
    pub async fn has_stacks(&self) -> Result<bool> {
        Ok(self.contract().await? >= CONTRACT)
    }
}

/// A variable that is set to something.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}
