//! Where attempts come from: what the attempt files of one agent have in common.

use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use crate::{
    control_plane::{
        Health,
        auth::{Credential, Session},
        contract::STACKS,
    },
    cost::infracost::Found,
    execute::Start,
    job::Job,
    launch::attempt_file::{AttemptFile, FORMAT, TokenFrom},
    process::SlotUsers,
    terraform::KnownTerraform,
};

/// The name of the file with an executor's token, beside its attempt file.
const TOKEN_FILE: &str = "token";

/// One agent, as its executors see it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) supabase_url: Url,
    pub(crate) supabase_key: SecretString,
    pub(crate) cluster_id: Uuid,
    pub(crate) agent_name: String,
    pub(crate) credential: Credential,
    pub(crate) session: Session,
    pub(crate) health: Health,
    /// The program that this agent found.
    pub(crate) terraform: KnownTerraform,
    /// What this agent found to estimate costs with.
    pub(crate) infracost: Found,
    /// The users of runs on this machine, where they have users of their own.
    pub(crate) slot_users: Option<SlotUsers>,
}

impl Origin {
    /// What an executor of this job is given, and the token that belongs beside it, if one does.
    pub(crate) fn attempt(&self, job: &Job, start: Start) -> (AttemptFile, Option<SecretString>) {
        let (token, beside) = self.token();
        let attempt = AttemptFile {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deployment_id: job.id,
            attempt: job.attempt,
            claim_token: job.claim_token,
            state_key: job.state_key.clone(),
            start,
            config_snapshot: job.config.clone(),
            supabase_url: self.supabase_url.to_string(),
            supabase_key: self.supabase_key.clone(),
            cluster_id: self.cluster_id,
            agent_name: self.agent_name.clone(),
            token,
            terraform: Some(self.terraform.clone()),
            infracost: Some(self.infracost.clone()),
            slot_users: self.slot_users.clone(),
            pod_uid: None,
            ended_pods: Vec::new(),
            stores_state: false,
        };
        (attempt, beside)
    }

    /// An executor of an agent with a key gets a token of its own. A JWT cannot be exchanged, and a database of the contract
    /// before knows no tokens of one deployment: then it gets what the agent has.
    fn token(&self) -> (TokenFrom, Option<SecretString>) {
        let exchanges_claims = self.health.contract().is_none_or(|contract| contract >= STACKS);
        match &self.credential {
            Credential::Claim(_) => (TokenFrom::Claim, None),
            _ if self.session.has_key() && exchanges_claims => (TokenFrom::Claim, None),
            Credential::File(file) => (TokenFrom::File(file.clone()), None),
            Credential::Inline(text) => (TokenFrom::File(TOKEN_FILE.into()), Some(text.clone())),
        }
    }
}
