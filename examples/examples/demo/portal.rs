//! `--portal`: the web application of `examples/portal`, served beside the stack.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    Problem,
    agent_process::program_path,
    control_plane::{ControlPlane, EMAIL},
};

/// Good on this machine's stack alone, which ends with the demo.
const PASSWORD: &str = "tendril-demo";

/// How long the server may take to print its address.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running portal; it ends with this value, or with the demo.
pub(crate) struct Portal {
    url: String,
    _child: Child,
}

impl Portal {
    /// Serves what `scripts/build-portal.sh` built.
    pub(crate) async fn start(plane: &ControlPlane) -> Result<Self, Problem> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let portal = root.join("examples/portal");
        if !portal.join("out/policy.json").is_file() {
            return Err(
                "the portal is not built: run `scripts/build-portal.sh`, or start it with `make portal`"
                    .into(),
            );
        }
        let mut child = Command::new("node")
            .arg(portal.join("server/demo.mjs"))
            .env("PATH", program_path(root)?)
            .env("SUPABASE_URL", plane.url())
            .env("SUPABASE_PUBLISHABLE_KEY", plane.anon_key())
            .env("SUPABASE_SERVICE_ROLE_KEY", plane.service_key())
            .env("DEMO_USER", plane.user_id.to_string())
            .env("DEMO_PASSWORD", PASSWORD)
            // When it closes, the server ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the demo.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("node cannot be started: {error}. `scripts/tool.sh node` installs Node.js")
            })?;
        let out = child.stdout.take().ok_or("the portal's server has no output")?;
        let mut lines = BufReader::new(out).lines();
        match timeout(TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(url))) => Ok(Self { url, _child: child }),
            _ => Err("the portal's server did not start; its output is above".into()),
        }
    }

    /// Where it is, and who may sign in.
    pub(crate) fn advice(&self) -> String {
        format!("{}\n  sign in with {EMAIL}, password {PASSWORD}", self.url)
    }
}
