//! A program that prints very much: it waits at a gate, prints so many numbered lines as fast as it is read, and records how long
//! that took.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{
    agent::AgentSetup,
    wait::until,
    world::{World, fixtures},
};

/// See the module. The agent's terraform must be the babbler: [`Flood::agent`].
#[derive(Debug, Clone)]
pub struct Flood {
    script: PathBuf,
}

impl Flood {
    /// Lines of about 100 bytes; `name` is unique in this world.
    pub fn new(world: &World, name: &str, lines: u64) -> Self {
        let script = world.path(name);
        let at = |extension: &str| script.with_extension(extension).display().to_string();
        let text = format!(
            "echo 'at the gate'
            while [ ! -e '{gate}' ]; do sleep 0.02; done
            began=$(date +%s%N)
            {script}
            echo $(($(date +%s%N) - began)) >'{took}.new'
            mv '{took}.new' '{took}'",
            gate = at("gate"),
            script = Self::script(lines),
            took = at("took"),
        );
        fs::write(&script, text).expect("a script");
        Self { script }
    }

    /// The command that prints the lines.
    pub fn script(lines: u64) -> String {
        format!("awk 'BEGIN {{ for (n = 1; n <= {lines}; n++) printf \"%-87s line %d\\n\", \"...\", n }}'")
    }

    /// An agent that runs floods.
    #[must_use]
    pub fn agent(setup: AgentSetup) -> AgentSetup {
        setup.terraform(&fixtures("terraform-babbler"))
    }

    /// As a `config_snapshot`.
    pub fn config(&self) -> Value {
        json!({"template": "story", "variables": {"script": self.script}})
    }

    /// Opens the gate.
    pub fn begin(&self) {
        fs::write(self.script.with_extension("gate"), "").expect("the gate opens");
    }

    /// Waits until everything is printed; returns how long that took.
    pub async fn took(&self) -> Duration {
        let took = self.script.with_extension("took");
        until("the flood is over", async || {
            let note = fs::read_to_string(&took).map_err(|error| error.to_string())?;
            Ok(Duration::from_nanos(note.trim().parse().expect("nanoseconds")))
        })
        .await
    }
}
