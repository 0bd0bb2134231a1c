//! What the narrator, a program that looks like terraform, prints.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::world::World;

/// Numbered lines, and a gate to wait at.
#[derive(Debug, Clone)]
pub struct Story {
    /// Lines of the plan.
    pub planned: u64,
    /// Lines of plan and apply together.
    pub lines: u64,
    /// Lines between two breaths of 50 ms.
    pub burst: u64,
    /// Characters of a line.
    pub width: u64,
    /// The step that stands still at its end, `plan` or `apply`, and the file that it waits for.
    pub gate: Option<(&'static str, PathBuf)>,
}

impl Default for Story {
    fn default() -> Self {
        Self { planned: 100, lines: 200, burst: 50, width: 20, gate: None }
    }
}

impl Story {
    /// A story that stands still at the end of `step`, at a gate of the world.
    pub fn with_gate(world: &World, step: &'static str) -> Self {
        Self { gate: Some((step, world.path("gate"))), ..Self::default() }
    }

    /// As a `config_snapshot`.
    pub fn config(&self) -> Value {
        let (waits, gate) = self.gate.clone().unzip();
        json!({"template": "story", "variables": {
            "planned": self.planned, "lines": self.lines, "burst": self.burst, "width": self.width,
            "waits": waits.unwrap_or_default(), "gate": gate.unwrap_or_default(),
        }})
    }

    /// Opens the gate.
    pub fn go_on(&self) {
        let (_, gate) = self.gate.as_ref().expect("a gate");
        std::fs::write(gate, "").expect("the gate opens");
    }

    /// Which steps were interrupted, and in which directories: one line each.
    pub fn interrupts(&self) -> Vec<String> {
        let (_, gate) = self.gate.as_ref().expect("a gate");
        let notes = std::fs::read_to_string(gate.with_extension("interrupts")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }
}
