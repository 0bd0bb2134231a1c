//! `tendril-agent doctor`: tries everything that an agent needs, one thing after the other, and says what to fix.
//!
//! It changes nothing in the control plane and claims nothing, so that it can be run beside a working agent. An API key is
//! exchanged, which the control plane remembers as its last use.

use std::{fmt, fs, io, path::Path, time::Duration};

use rustix::fs::{Access, access};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use tendril_realtime::{Client, Error, ErrorKind, PostgresChanges, Rest, col, rest::RetryPolicy};
use tokio::time::timeout;

#[cfg(feature = "kubernetes")]
use crate::launch::kubernetes::{connection::Connection, preflight, settings::KubernetesSettings};
use crate::{
    config::settings::{Config, ConfigProblems},
    control_plane::{
        Health, NO_REAPER, advice,
        auth::{Credential, Exchange, Session, session::failure},
        contract::{Compatibility, FIRST},
    },
    dispatch::{
        DiskGuard,
        intake::{self, INSTALL_BROADCASTS, Intake, NO_BROADCASTS},
    },
    launch::kind::LauncherKind,
    process::LocalRunner,
    redaction::Redactor,
    template::{Template, names},
    terraform::{credentials, pending_push, state::Kind},
};

/// How long one question to the control plane may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The state key that the backend is tried with; no template has this name.
const STATE_KEY: &str = ".doctor";
/// The first Terraform whose `s3` backend locks with a file.
const S3_LOCKFILE_SINCE: (u64, u64) = (1, 10);

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub check: &'static str,
    /// Nothing, if it is well; otherwise the cause and how to fix it.
    pub problem: Option<String>,
    /// What is worth knowing although it is well.
    pub note: Option<String>,
    /// What works and is dangerous all the same.
    pub warning: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (None, Some(warning)) = (&self.problem, &self.warning) {
            return write!(f, "WARN  {}: {}", self.check, warning.replace('\n', "\n      "));
        }
        match (&self.problem, &self.note) {
            (None, None) => write!(f, "ok    {}", self.check),
            (None, Some(note)) => write!(f, "ok    {}: {note}", self.check),
            (Some(problem), _) => write!(f, "WRONG {}: {}", self.check, problem.replace('\n', "\n      ")),
        }
    }
}

impl Finding {
    /// What is quoted may hold what no log may show.
    fn hide(&mut self, secrets: &Redactor) {
        for text in self.problem.iter_mut().chain(&mut self.note).chain(&mut self.warning) {
            *text = secrets.redact(text).into_owned();
        }
    }
}

/// What the launcher needs of the cluster: the server, the rights, and that it would take the Job of each rule.
#[cfg(feature = "kubernetes")]
async fn kubernetes(settings: &KubernetesSettings) -> Vec<Finding> {
    let connection = match Connection::open(settings.namespace.as_deref()).await {
        Ok(connection) => connection,
        Err(problem) => return vec![finding("kubernetes", Err(problem))],
    };
    let server = match preflight::server(&connection).await {
        Ok(server) => server,
        // What depends on it would only say the same again.
        Err(problem) => return vec![finding("kubernetes", Err(problem))],
    };
    let noted = |check, note| Finding { check, problem: None, note, warning: None };
    let mut rights =
        finding("kubernetes rights", preflight::rights(&connection, settings.lease.as_deref()).await);
    rights.warning = preflight::plans(&connection, settings).await;
    let mut findings = vec![noted("kubernetes", Some(server)), rights];
    let mut trial = finding("run's pod", preflight::trial(&connection, settings).await);
    trial.note = Some(format!(
        "image {}, service accounts {}",
        settings.image,
        settings.accounts.service_accounts().join(", ")
    ));
    if !settings.image.contains('@')
        && settings.image.rsplit('/').next().is_some_and(|name| !name.contains(':'))
    {
        trial.warning = Some(format!(
            "the image {} has neither a tag nor a digest: runs get whatever is newest, also in the middle of a deployment. Name a version",
            settings.image
        ));
    }
    findings.push(trial);
    if let Some(quotas) = preflight::quotas(&connection).await {
        findings.push(noted("quota", Some(quotas)));
    }
    findings
}

fn finding(check: &'static str, result: Result<(), String>) -> Finding {
    Finding { check, problem: result.err(), note: None, warning: None }
}

/// What is wrong with a configuration that cannot even be read.
pub fn of_problems(problems: &ConfigProblems) -> Vec<Finding> {
    let wrong = |problem: &String| finding("configuration", Err(problem.clone()));
    problems.sentences().iter().map(wrong).collect()
}

/// Runs all checks. Must be called inside a runtime.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = try_all(config).await;
    for finding in &mut findings {
        finding.hide(&config.secrets);
    }
    findings
}

async fn try_all(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        finding("configuration", Ok(())),
        finding("templates", templates(config)),
        finding("disk", disk(config)),
        finding("health address", health_address(config)),
        finding("terraform", terraform(config)),
    ];
    if config.terraform_dir.path().is_some() {
        findings.push(terraform_versions(config).await);
    }
    findings.extend(registries(config));
    findings.extend([cost_estimates(config), state_backend(config).await]);
    if config.git.is_on() {
        findings.push(finding("git", config.git.examine()));
    }
    #[cfg(feature = "kubernetes")]
    if let Some(settings) = &config.kubernetes {
        findings.extend(kubernetes(settings).await);
    }
    let session = Session::new(
        config.credential.clone(),
        config.cluster_id,
        Exchange::new(config.supabase_url.as_str(), &config.supabase_key),
        config.secrets.clone(),
        Health::default(),
    );
    findings.push(isolation(config, session.has_key()));
    if session.has_key() {
        let token = session.current().await.map(drop).map_err(|error| key_problem(&error));
        findings.push(finding("API key", token.clone()));
        if token.is_err() {
            return findings;
        }
    }
    let client = Client::builder(config.supabase_url.as_str(), config.supabase_key.expose_secret())
        .token_source(session)
        .rest_retries(RetryPolicy::NONE)
        .build();
    match client {
        Err(error) => findings.push(finding("control plane", Err(error.to_string()))),
        Ok(client) => {
            let reached = control_plane(client.rest(), config).await;
            let reachable = reached.is_ok();
            findings.push(finding("control plane", reached));
            // What depends on it would only say the same again.
            if reachable {
                findings.push(schema(client.rest()).await);
                findings.push(finding("other agents", other_agents(client.rest(), config).await));
                findings.extend(reaper(client.rest()).await);
                findings.push(realtime(&client, config).await);
            }
            client.shutdown().await;
        }
    }
    findings
}

fn templates(config: &Config) -> Result<(), String> {
    for name in names(&config.templates_dir) {
        let opened = Template::built_in(&config.templates_dir, &name);
        opened.map_err(|failure| {
            format!(
                "{}: fix the file, or take the folder out of {}",
                failure.message,
                config.templates_dir.display()
            )
        })?;
    }
    Ok(())
}

fn disk(config: &Config) -> Result<(), String> {
    let disk = DiskGuard::default();
    disk.measure(&config.work_dir, None, config.work_limit, |_| {});
    if disk.is_full() {
        return Err(format!(
            "{} holds {} MiB, or its volume is full, so that no job would be claimed: make room, or raise --work-limit / TENDRIL_WORK_LIMIT",
            config.work_dir.display(),
            disk.used() / (1024 * 1024)
        ));
    }
    let pending = pending_push::saved(&config.state_dir);
    if pending.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the newest state of {} could not be written to its backend and is saved in {}: start the agent, which stores it, and look at its log",
        pending.join(", "),
        config.state_dir.display()
    ))
}

fn health_address(config: &Config) -> Result<(), String> {
    let Some(addr) = config.health_addr else { return Ok(()) };
    std::net::TcpListener::bind(addr).map(drop).map_err(|error| {
        format!("--health-addr {addr} cannot be used ({error:#}): choose another address, or stop what listens there (an agent that already runs?)")
    })
}

fn terraform(config: &Config) -> Result<(), String> {
    let (name, version) = (config.terraform.name(), config.terraform.version());
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    let version_read = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if config.state_backend.kind() == Kind::S3 && name == "terraform" && version_read < S3_LOCKFILE_SINCE {
        return Err(format!(
            "terraform {version} cannot lock state in S3 with a file: install 1.10 or newer, or set \"use_lockfile\": false and \"dynamodb_table\" in TENDRIL_STATE_CONFIG"
        ));
    }
    Ok(())
}

/// Has every program of the directory of versions say its version.
async fn terraform_versions(config: &Config) -> Finding {
    let check = "terraform versions";
    let dir = &config.terraform_dir;
    let candidates = match dir.candidates() {
        Ok(candidates) => candidates,
        Err(error) => return finding(check, Err(dir.unreadable(&error))),
    };
    let (mut usable, mut broken, mut replaceable) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in &candidates {
        match dir.verify(candidate).await {
            Ok(known) => usable.push(format!("{} {}", candidate.product.name(), known.version)),
            Err(why) => broken.push(format!("{}: {why}", candidate.path.display())),
        }
        replaceable.extend(is_replaceable(&candidate.path).then(|| candidate.path.display().to_string()));
    }
    let problem = (!broken.is_empty()).then(|| {
        format!(
            "programs that cannot be run, which deployments may ask for: fix or remove them\n{}",
            broken.join("\n")
        )
    });
    let warning = (!replaceable.is_empty()).then(|| {
        format!(
            "the user of this agent, as which templates run, may replace programs that other runs use: have another user own {}",
            replaceable.join(", ")
        )
    });
    Finding { check, problem, note: Some(usable.join(", ")), warning }
}

/// Whether this user, who is not root, could put another program in the place of this one.
fn is_replaceable(program: &Path) -> bool {
    let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let Ok(real) = program.canonicalize() else { return false };
    let dirs = [program.parent(), real.parent()];
    !rustix::process::geteuid().is_root() && (writable(&real) || dirs.into_iter().flatten().any(writable))
}

/// The tokens of private registries, and who can read them.
fn registries(config: &Config) -> Option<Finding> {
    let (check, terraform) = ("registry tokens", &config.terraform);
    let (tokens, file) = (terraform.registry_tokens(), terraform.cli_config());
    let exposed = file.filter(|file| !credentials(file).is_empty());
    if tokens.hosts().is_empty() && exposed.is_none() {
        return None;
    }
    let warning = exposed.map(|file| {
        format!(
            "{} holds credentials, and every command of a run can read it, those of templates too: move them to --terraform-token-file, which terraform init alone gets",
            file.display()
        )
    });
    let note = (!tokens.hosts().is_empty()).then(|| tokens.hosts().join(", "));
    let problems = tokens.problems();
    let problem = (!problems.is_empty()).then(|| problems.join("\n"));
    Some(Finding { check, problem, note, warning })
}

/// An agent without them is well.
fn cost_estimates(config: &Config) -> Finding {
    let infracost = &config.infracost;
    Finding {
        check: "cost estimates",
        problem: infracost.complaint(),
        note: Some(infracost.found().to_string()),
        warning: None,
    }
}

async fn state_backend(config: &Config) -> Finding {
    let check = "state backend";
    #[cfg(feature = "kubernetes")]
    if config.kubernetes.is_some() {
        let note = "not tried here: runs reach it, with the rights of their own service accounts".to_owned();
        return Finding { check, problem: None, note: Some(note), warning: None };
    }
    finding(check, try_backend(config).await)
}

async fn try_backend(config: &Config) -> Result<(), String> {
    let state = config.terraform_settings().state(STATE_KEY);
    let tried = pending_push::try_backend(&config.terraform_settings(), &LocalRunner, &state).await;
    // The local one leaves its directory.
    let removed = fs::remove_dir(state.dir());
    if let Err(error) = removed.as_ref()
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(error = %format_args!("{error:#}"), "the doctor's state directory is not empty");
    }
    tried.map_err(|error| {
        let kind = config.state_backend.kind().name();
        format!("the {kind} backend cannot be used: look at TENDRIL_STATE_CONFIG, at the credentials in the agent's environment, and at the network. It says:\n{error}")
    })
}

/// What a template can reach beside its own run. It runs as the agent's user.
fn isolation(config: &Config, has_key: bool) -> Finding {
    let check = "isolation";
    let user = rustix::process::geteuid();
    if user.is_root() {
        let warning = "the agent runs as root, and so does every template: each can read and change everything on this machine, other runs and the agent's key too. Run the agent as a user of its own (User= of systemd, runAsNonRoot of a pod)";
        return Finding { check, problem: None, note: None, warning: Some(warning.to_owned()) };
    }
    let mut note =
        format!("templates run as user {} and can read its files, those of other runs too", user.as_raw());
    if let Credential::File(file) = &config.credential {
        note = format!("{note}, and {}", file.display());
    }
    note.push_str(match (has_key, config.launcher) {
        (true, LauncherKind::InProcess) => "",
        (true, _) => "; a run has a token of its own deployment",
        (false, _) => {
            "; a run has the agent's own token, which reaches every deployment of the cluster: with an API key it has one of its own deployment"
        }
    });
    Finding { check, problem: None, note: Some(note), warning: None }
}

async fn control_plane(rest: &Rest, config: &Config) -> Result<(), String> {
    let own = rest.from("clusters").select("id").eq("id", config.cluster_id).timeout(TIMEOUT);
    match own.rows::<Value>().await {
        Ok(rows) if !rows.is_empty() => {
            // A user's token sees the cluster too; claims are for agents alone.
            let claims = rest.from("deployments").select("claim_token").limit(1).timeout(TIMEOUT);
            claims.rows::<Value>().await.map(drop).map_err(|error| cause(&error))
        }
        // No row: the heartbeat says why, and changes nothing as it refuses.
        Ok(_) => {
            match rest.rpc("agent_heartbeat", &json!({"version": "doctor"})).timeout(TIMEOUT).execute().await
            {
                Err(error) => Err(cause(&error)),
                Ok(_) => Ok(()),
            }
        }
        Err(error) => Err(cause(&error)),
    }
}

/// The first contract is known by its last columns, any later one by its number.
async fn schema(rest: &Rest) -> Finding {
    let check = "database schema";
    let needed = rest.from("deployments").select("plan_sha256,approved_plan").limit(1).timeout(TIMEOUT);
    let logs = rest.from("deployment_logs").select("seq").limit(1).timeout(TIMEOUT);
    for asked in [needed.rows::<Value>().await, logs.rows::<Value>().await] {
        if let Err(error) = asked {
            let problem =
                format!("the database is older than this agent ({error:#}): apply supabase/migrations to it");
            return finding(check, Err(problem));
        }
    }
    let asked = rest.rpc("contract_version", &json!({})).timeout(TIMEOUT).idempotent(true);
    let database = match asked.value::<u32>().await {
        Ok(database) => database,
        Err(error) if error.postgrest().is_some_and(|api| api.code == "PGRST202") => FIRST,
        Err(error) => return finding(check, Err(cause(&error))),
    };
    let compatibility = Compatibility::of(database);
    match compatibility {
        Compatibility::TooOld(_) => finding(check, Err(compatibility.sentence().unwrap_or_default())),
        _ => Finding { check, problem: None, note: compatibility.sentence(), warning: None },
    }
}

/// Whether another live agent of the cluster keeps its states elsewhere. A database of the contract before knows no agents.
async fn other_agents(rest: &Rest, config: &Config) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Agent {
        name: String,
        state_backend: Option<String>,
        backend_fingerprint: Option<String>,
        is_live: bool,
    }
    let backend = &config.state_backend;
    let own = backend.fingerprint(&config.state_dir, |name| std::env::var(name).ok()).map_err(|error| {
        format!("the state directory {} cannot be used ({error})", config.state_dir.display())
    })?;
    let request = rest
        .from("agents")
        .select("name,state_backend,backend_fingerprint,is_live")
        .eq("status", "ACTIVE")
        .neq("name", config.agent_name.as_str())
        .timeout(TIMEOUT);
    let Ok(agents) = request.rows::<Agent>().await else { return Ok(()) };
    let kind = backend.kind().name();
    for agent in agents.into_iter().filter(|agent| agent.is_live) {
        let Some(theirs) = agent.state_backend else { continue };
        if theirs != kind {
            return Err(format!(
                "agent {} of this cluster uses the state backend {theirs}, and this one {kind}: they would work on different states. Give all agents of a cluster the same state backend",
                agent.name
            ));
        }
        if agent.backend_fingerprint.as_deref() != Some(own.as_str()) {
            let what = if kind == "local" {
                format!(
                    "agents {} and {} of one cluster both use the state backend local, each with a directory of its own: each would make its own copy of the infrastructure",
                    config.agent_name, agent.name
                )
            } else {
                format!(
                    "agents {} and {} of one cluster use the state backend {kind} with different settings: they would work on different states",
                    config.agent_name, agent.name
                )
            };
            return Err(format!(
                "{what}. Give all agents of a cluster the same state backend with the same settings, or run one agent"
            ));
        }
    }
    Ok(())
}

/// Who notices the death of a cluster's only agent.
async fn reaper(rest: &Rest) -> Option<Finding> {
    #[derive(Deserialize)]
    struct Status {
        scheduled: bool,
    }
    let asked = rest.rpc("reaper_status", &json!({})).timeout(TIMEOUT).idempotent(true);
    let status = asked.value::<Status>().await.ok()?;
    let warning = (!status.scheduled).then(|| NO_REAPER.to_owned());
    Some(Finding { check: "reaper", problem: None, note: None, warning })
}

/// Whether jobs arrive as they come, by the way that the agent would use.
async fn realtime(client: &Client, config: &Config) -> Finding {
    let check = "realtime";
    let publication = "see that deployments is in publication supabase_realtime";
    if config.intake == Intake::PostgresChanges {
        return finding(check, arrives(row_changes(client, config), publication).await);
    }
    let is_refused = |error: &Error| error.code() == "Unauthorized";
    match timeout(2 * TIMEOUT, broadcasts(client, config)).await {
        Ok(Err(error)) if is_refused(&error) && config.intake == Intake::Broadcast => {
            finding(check, Err(format!("{NO_BROADCASTS} ({error:#}). {INSTALL}\n{INSTALL_BROADCASTS}")))
        }
        Ok(Err(error)) if is_refused(&error) => {
            let mut found = finding(check, arrives(row_changes(client, config), publication).await);
            found.warning = Some(format!(
                "agents cannot receive broadcasts in this database ({error:#}): jobs are found by row changes, which come later and cost more. {INSTALL}\n{INSTALL_BROADCASTS}"
            ));
            found
        }
        Ok(joined) => finding(
            check,
            arrives(std::future::ready(joined), "look at the project's Realtime settings").await,
        ),
        Err(_) => finding(check, Err(NO_ANSWER.to_owned())),
    }
}

const INSTALL: &str = "The first heartbeat of an agent installs them where the database lets it. Where it does not, run in the SQL editor:";

const NO_ANSWER: &str = "live changes do not come: the websocket gave no answer in 20 s. A proxy may hold it back: let wss through. Until then the agent polls";

async fn arrives(joined: impl Future<Output = Result<(), Error>>, remedy: &str) -> Result<(), String> {
    match timeout(2 * TIMEOUT, joined).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "live changes do not come ({error:#}): let websockets (wss) to the project through proxies and firewalls, and {remedy}. Until then the agent polls"
        )),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

async fn row_changes(client: &Client, config: &Config) -> Result<(), Error> {
    let own = col("cluster_id").eq(config.cluster_id);
    let changes = PostgresChanges::on("public", "deployments").filter(own);
    client.channel("doctor").postgres_changes::<Value>(changes).subscribe().await.map(drop)
}

/// The channel that the agent would join. The same grant covers the request for broadcasts, which `doctor` does not send because it writes a row.
async fn broadcasts(client: &Client, config: &Config) -> Result<(), Error> {
    let (topic, event) = intake::broadcasts(config.cluster_id);
    let mut channel = client.channel(&topic).private(true);
    let _messages = channel.on_broadcast(event);
    channel.join().await.map(drop)
}

/// What is behind an error of the control plane, and how to fix it.
fn cause(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Connect { .. } | ErrorKind::Timeout { .. } | ErrorKind::ConnectionLost { .. } => format!(
            "it cannot be reached ({error:#}): check SUPABASE_URL, the name server, egress rules (NetworkPolicy, firewall) and HTTPS_PROXY"
        ),
        ErrorKind::Decode { .. } => not_supabase(error),
        ErrorKind::Postgrest(api) if api.status == 404 && api.code.is_empty() => not_supabase(error),
        ErrorKind::Postgrest(api) if matches!(api.code.as_str(), "PGRST205" | "PGRST202" | "42P01") => {
            format!(
                "the database lacks the agent's tables or functions ({error:#}): apply supabase/migrations to it, and check that SUPABASE_URL is the right project"
            )
        }
        ErrorKind::Token { .. } => format!("the machine token cannot be had ({error:#})"),
        _ => format!("{} ({error:#})", advice(error)),
    }
}

/// A failure to exchange the key says itself what to do.
fn key_problem(error: &Error) -> String {
    failure(error).map_or_else(|| cause(error), ToString::to_string)
}

fn not_supabase(error: &Error) -> String {
    format!(
        "what answers there is no Supabase project ({error:#}): set SUPABASE_URL to the project's base URL, such as https://abcd.supabase.co, without a path"
    )
}
