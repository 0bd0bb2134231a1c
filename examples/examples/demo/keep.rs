//! `--keep`: everything keeps running, to try things out.

use std::{env, path::PathBuf};

use tendril_examples::screen::{Screen, Tone};

use crate::{Problem, agent_process::AgentProcess, control_plane::ControlPlane};

/// Prints what can be done now. Resolves only if the agent ends by itself.
pub(crate) async fn wait(plane: &ControlPlane, agent: &mut AgentProcess, screen: &Screen) -> Problem {
    if let Err(error) = screen.line(advice(plane, screen)) {
        return error.into();
    }
    agent.ended().await
}

fn advice(plane: &ControlPlane, screen: &Screen) -> String {
    let head = |text: &str| screen.paint(Tone::Bold, text);
    let (url, key, token, cluster) = (plane.url(), plane.anon_key(), &plane.user_token, plane.cluster);
    let (welcome, deploy, curl, listen, sql) = (
        head("All of it keeps running until Ctrl-C. In another terminal:"),
        head("Queue another deployment and follow its log:"),
        head("Queue one by REST:"),
        head("Watch the rows change:"),
        head("Look into the database:"),
    );
    format!(
        r#"
{welcome}

export SUPABASE_URL={url}
export SUPABASE_ANON_KEY={key}
export SUPABASE_USER_TOKEN={token}
export TENDRIL_CLUSTER={cluster}

{deploy}

{deploy_command} --template hello --var name=you --var lines=40

{curl}

curl -si "$SUPABASE_URL/rest/v1/deployments" \
  -H "apikey: $SUPABASE_ANON_KEY" -H "Authorization: Bearer $SUPABASE_USER_TOKEN" -H 'Content-Type: application/json' \
  -d '{{"cluster_id": "'"$TENDRIL_CLUSTER"'", "config_snapshot": {{"template": "hello", "variables": {{"name": "curl"}}}}}}'

{listen}

{listen_command} --token "$SUPABASE_USER_TOKEN" --table public.deployments
{listen_command} --token "$SUPABASE_USER_TOKEN" --table public.deployment_logs

{sql}

psql {database}
"#,
        database = plane.database_url(),
        deploy_command = example("deploy"),
        listen_command = example("listen"),
    )
}

/// How to run another example: as it was built beside this one, or by Cargo.
fn example(name: &str) -> String {
    let built = env::current_exe().ok().map(|own| own.with_file_name(name)).filter(|path| path.is_file());
    let by_cargo = || format!("cargo run -q -p tendril-examples --example {name} --");
    built.map_or_else(by_cargo, |path| from_here(path).display().to_string())
}

/// A path as one would type it in the current directory.
fn from_here(path: PathBuf) -> PathBuf {
    let here = env::current_dir().ok();
    here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned())).unwrap_or(path)
}
