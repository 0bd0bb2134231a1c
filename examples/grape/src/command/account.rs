//! Sign in, sign out, who am I, profiles.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _},
};

use serde_json::json;
use tendril_realtime::AccessToken;
use zeroize::Zeroizing;

use crate::{
    cli,
    context::{Context, prompt},
    control_plane::project::{Identity, variable},
    failure::{Failure, FailureKind, Result},
    output::{
        style::Tone,
        table::{Table, plain},
    },
    session::{
        auth::{Auth, checked_key, project_url},
        profile::Profile,
        store::SessionStore,
    },
};

/// Signs in, and makes the profile the current one.
pub(super) async fn login(context: &Context, options: cli::Login) -> Result<()> {
    let known = context.dir.profiles()?;
    let name = known.name(context.profile.as_deref());
    let before = known.profiles.get(&name).cloned();
    let url = match options.url.or_else(|| before.as_ref().map(|profile| profile.url.clone())) {
        Some(url) => url,
        None => ask(context, "URL of the project", "--url").await?,
    };
    project_url(&url)?;
    let same = before.filter(|profile| profile.url == url);
    let key = if let Some(key) = options.key.or_else(|| same.as_ref().map(|profile| profile.key.clone())) {
        key
    } else {
        let key = ask(context, "Publishable key", "--key").await?;
        checked_key(&key).map_err(|problem| Failure::new(FailureKind::Usage, problem))?
    };
    let email = match options.email {
        Some(email) => email,
        None => ask(context, "Email", "--email").await?,
    };
    let password = if options.password_stdin { read_password()? } else { ask_password(context).await? };

    let portal = options.portal.or_else(|| same.as_ref().and_then(|profile| profile.portal.clone()));
    let cluster = same.and_then(|profile| profile.cluster);
    let profile = Profile { url, key, portal, cluster };
    let auth = Auth::new(&profile)?;
    let session = auth.sign_in(email.trim(), &password).await?;
    let store = SessionStore::new(&context.dir, &name);
    {
        // A process that renews the session that was here before must not write over the new one.
        let _lock = store.lock()?;
        store.save(&session)?;
    }
    let url = profile.url.clone();
    context.dir.change_profiles(|profiles| {
        profiles.profiles.insert(name.clone(), profile);
        profiles.current = Some(name.clone());
    })?;
    let who = session.user.email.clone().unwrap_or_else(|| session.user.id.to_string());
    if context.out.is_json() {
        return context.out.json(&json!({ "profile": name, "url": url, "user": session.user }));
    }
    context.out.line(format_args!(
        "Signed in to {url} as {} (profile {name}).",
        context.out.style.paint(Tone::Bold, who)
    ))
}

async fn ask(context: &Context, what: &'static str, flag: &str) -> Result<String> {
    if !context.out.can_ask() {
        return Err(Failure::new(FailureKind::Usage, format!("There is no terminal to ask on: {what}?"))
            .next(format!("Give it with {flag}. Without a password at all: GRAPE_TOKEN.")));
    }
    prompt(move || dialoguer::Input::<String>::new().with_prompt(what).interact_text()).await
}

async fn ask_password(context: &Context) -> Result<Zeroizing<String>> {
    if !context.out.can_ask() {
        return Err(Failure::new(FailureKind::Usage, "There is no terminal to ask for the password on.")
            .next("Write it to stdin, with --password-stdin. In CI a token will do instead: GRAPE_TOKEN."));
    }
    let password = prompt(|| dialoguer::Password::new().with_prompt("Password").interact()).await?;
    Ok(Zeroizing::new(password))
}

fn read_password() -> Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "There is no password on stdin.")
            .next("Write it there: `grape login --password-stdin < password-file`."));
    }
    Ok(password)
}

/// Ends the session, here and on the server.
pub(super) async fn logout(context: &Context) -> Result<()> {
    let profiles = context.dir.profiles()?;
    let name = profiles.name(context.profile.as_deref());
    let signed_out = match profiles.profiles.get(&name) {
        Some(profile) => end_session(context, &name, profile).await?,
        None => false,
    };
    if context.out.is_json() {
        return context.out.json(&json!({ "profile": name, "signed_out": signed_out }));
    }
    context.out.line(if signed_out {
        format!("Signed out of profile {name}.")
    } else {
        format!("Nobody was signed in with profile {name}.")
    })
}

/// Whether there was a session. It is removed here also when the server cannot be reached, with a note.
async fn end_session(context: &Context, name: &str, profile: &Profile) -> Result<bool> {
    let store = SessionStore::new(&context.dir, name);
    let lock = store.lock()?;
    let Some(session) = store.load()? else { return Ok(false) };
    let ended = Auth::new(profile)?.sign_out(&session).await;
    store.clear()?;
    drop(lock);
    if let Err(failure) = ended {
        context.out.note(format_args!(
            "grape: {failure} The session is forgotten here; on the server it ends by itself."
        ));
    }
    Ok(true)
}

/// Prints who is signed in, as the server answers.
pub(super) async fn whoami(context: &Context) -> Result<()> {
    let project = context.project()?;
    let auth = Auth::new(&project.profile)?;
    let (token, source) = match &project.identity {
        Identity::Session(tokens) => (tokens.session().await?.access_token, "session"),
        Identity::Environment(token) => (token.clone(), "GRAPE_TOKEN"),
    };
    let user = auth.user(&token).await?;
    let contract = project.contract().await?;
    let ends = AccessToken::new(&*token)?.expires_at().and_then(|time| jiff::Timestamp::try_from(time).ok());
    if context.out.is_json() {
        return context.out.json(&json!({
            "profile": project.name, "url": project.profile.url, "user": user, "source": source,
            "contract": contract, "token_expires_at": ends,
        }));
    }
    let out = context.out;
    let fact = |name: &str, value: String| {
        out.line(format_args!("{} {value}", out.style.paint(Tone::Dim, format!("{name:<9}"))))
    };
    fact("user", user.email.clone().unwrap_or_else(|| user.id.to_string()))?;
    fact("id", user.id.to_string())?;
    fact("project", project.profile.url.clone())?;
    fact("profile", project.name.clone())?;
    fact("by", source.to_owned())?;
    fact("contract", contract.to_string())
}

/// Lists profiles, chooses one, or deletes one.
pub(super) async fn profiles(context: &Context, options: cli::Profiles) -> Result<()> {
    let profiles = context.dir.profiles()?;
    let known = |name: &str| {
        profiles.profiles.get(name).cloned().ok_or_else(|| {
            Failure::new(FailureKind::NotFound, format!("There is no profile `{name}`."))
                .next("`grape profiles` lists them.")
        })
    };
    match options.action {
        None => list_profiles(context, &profiles.profiles, &profiles.name(context.profile.as_deref())),
        Some(cli::ProfileAction::Use { name, cluster }) => {
            known(&name)?;
            context.dir.change_profiles(|profiles| {
                if let (Some(cluster), Some(profile)) = (cluster, profiles.profiles.get_mut(&name)) {
                    profile.cluster = Some(cluster);
                }
                profiles.current = Some(name.clone());
            })?;
            context.out.note(format_args!("Profile {name} is the current one."));
            if context.out.is_json() { context.out.json(&json!({ "current": name })) } else { Ok(()) }
        }
        Some(cli::ProfileAction::Remove { name }) => {
            end_session(context, &name, &known(&name)?).await?;
            context.dir.change_profiles(|profiles| {
                profiles.profiles.remove(&name);
                if profiles.current.as_deref() == Some(&name) {
                    profiles.current = None;
                }
            })?;
            context.out.note(format_args!("Profile {name} is forgotten."));
            if context.out.is_json() { context.out.json(&json!({ "removed": name })) } else { Ok(()) }
        }
    }
}

fn list_profiles(context: &Context, profiles: &BTreeMap<String, Profile>, current: &str) -> Result<()> {
    let user =
        |name: &str| SessionStore::new(&context.dir, name).load().ok().flatten().map(|session| session.user);
    if context.out.is_json() {
        let rows: Vec<_> = profiles
            .iter()
            .map(|(name, profile)| {
                json!({
                    "name": name, "current": name == current, "url": profile.url, "user": user(name),
                    "cluster": profile.cluster, "portal": profile.portal,
                })
            })
            .collect();
        return context.out.json(&rows);
    }
    if profiles.is_empty() {
        context.out.note("There is no profile yet. `grape login` makes the first.");
        if variable("GRAPE_TOKEN").is_some() {
            context.out.note("GRAPE_TOKEN is set: commands use it.");
        }
        return Ok(());
    }
    let mut table = Table::new(context.out.style, &["", "NAME", "PROJECT", "USER", "CLUSTER"]);
    for (name, profile) in profiles {
        let user = user(name).map_or_else(
            || "signed out".to_owned(),
            |user| user.email.unwrap_or_else(|| user.id.to_string()),
        );
        let mark = if name == current { "*" } else { "" };
        table.row([
            plain(mark),
            plain(name),
            plain(&profile.url),
            plain(user),
            plain(profile.cluster.as_deref().unwrap_or("-")),
        ]);
    }
    context.out.line(table)
}
