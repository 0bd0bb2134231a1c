//! What is known of clusters and deployments, and where the selection is. No I/O.

use std::collections::BTreeMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tendril_realtime::watch::WatchEvent;
use uuid::Uuid;

use crate::control_plane::{cluster::Cluster, deployment::Deployment};

/// The action of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Stay,
    Leave,
}

/// The state of the table.
#[derive(Debug)]
pub(super) struct Board {
    /// The project.
    pub(super) title: String,
    /// Whether to colour.
    pub(super) coloured: bool,
    /// Whether changes arrive as they happen.
    pub(super) live: bool,
    /// The last error, until something arrives again.
    pub(super) problem: Option<String>,
    clusters: BTreeMap<Uuid, Cluster>,
    deployments: BTreeMap<Uuid, Deployment>,
    /// The selected deployment: an id, as rows move.
    selected: Option<Uuid>,
    /// Whether both tables were read.
    read: (bool, bool),
}

impl Board {
    pub(super) fn new(title: String, coloured: bool) -> Self {
        Self {
            title,
            coloured,
            live: false,
            problem: None,
            clusters: BTreeMap::new(),
            deployments: BTreeMap::new(),
            selected: None,
            read: (false, false),
        }
    }

    pub(super) fn on_cluster(&mut self, event: WatchEvent<Cluster>) {
        self.problem = None;
        match event {
            WatchEvent::InitApply(row) | WatchEvent::Apply(row) => {
                self.clusters.insert(row.id, row);
            }
            WatchEvent::Delete(row) => {
                self.clusters.remove(&row.id);
            }
            WatchEvent::InitDone => self.read.0 = true,
            _ => {}
        }
    }

    pub(super) fn on_deployment(&mut self, event: WatchEvent<Deployment>) {
        self.problem = None;
        match event {
            WatchEvent::InitApply(row) | WatchEvent::Apply(row) => {
                self.deployments.insert(row.id, row);
            }
            WatchEvent::Delete(row) => {
                self.deployments.remove(&row.id);
            }
            WatchEvent::InitDone => self.read.1 = true,
            _ => {}
        }
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Stay;
        }
        match (key.code, key.modifiers) {
            (KeyCode::Char('q') | KeyCode::Esc, _) | (KeyCode::Char('c'), KeyModifiers::CONTROL) => {
                return Action::Leave;
            }
            (KeyCode::Up | KeyCode::Char('k'), _) => self.select(-1),
            (KeyCode::Down | KeyCode::Char('j'), _) => self.select(1),
            (KeyCode::PageUp, _) => self.select(-10),
            (KeyCode::PageDown, _) => self.select(10),
            (KeyCode::Home, _) => self.select(isize::MIN),
            (KeyCode::End, _) => self.select(isize::MAX),
            _ => {}
        }
        Action::Stay
    }

    fn select(&mut self, step: isize) {
        let rows: Vec<Uuid> = self.deployments().iter().map(|row| row.id).collect();
        let Some(last) = rows.len().checked_sub(1) else { return };
        let at = self.selected.and_then(|id| rows.iter().position(|row| *row == id)).unwrap_or(0);
        self.selected = rows.get(at.saturating_add_signed(step).min(last)).copied();
    }

    /// Where the selection is in [`deployments`](Self::deployments).
    pub(super) fn position(&self) -> Option<usize> {
        let rows = self.deployments();
        let found = self.selected.and_then(|id| rows.iter().position(|row| row.id == id));
        found.or_else(|| (!rows.is_empty()).then_some(0))
    }

    /// The selected deployment; the newest while none was chosen.
    pub(super) fn selected(&self) -> Option<&Deployment> {
        self.selected.and_then(|id| self.deployments.get(&id)).or_else(|| self.deployments().first().copied())
    }

    /// Deployments: first those that wait for a person, then what runs and waits, then what ended; the newest first.
    pub(super) fn deployments(&self) -> Vec<&Deployment> {
        let mut rows: Vec<_> = self.deployments.values().collect();
        let rank = |row: &Deployment| match (row.phase.as_deref(), row.is_finished()) {
            (_, true) => 2,
            (Some("APPROVAL"), false) => 0,
            _ => 1,
        };
        rows.sort_by(|a, b| {
            rank(a).cmp(&rank(b)).then(b.created_at.cmp(&a.created_at)).then(a.id.cmp(&b.id))
        });
        rows
    }

    /// Clusters by name.
    pub(super) fn clusters(&self) -> Vec<&Cluster> {
        let mut rows: Vec<_> =
            self.clusters.values().filter(|cluster| cluster.revoked_at.is_none()).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        rows
    }

    /// Name of a cluster.
    pub(super) fn cluster_name(&self, id: Uuid) -> &str {
        self.clusters.get(&id).map_or("-", |cluster| cluster.name.as_str())
    }

    /// Whether both tables were read.
    pub(super) fn is_read(&self) -> bool {
        self.read.0 && self.read.1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(id: u128, second: u8, status: &str, phase: &Value) -> Deployment {
        serde_json::from_value(json!({
            "id": Uuid::from_u128(id), "cluster_id": Uuid::nil(), "config_snapshot": { "template": "hello" }, "status": status,
            "phase": phase, "attempt": 1, "created_at": format!("2026-11-29T12:00:{second:02}Z"), "log_count": 0,
        }))
        .unwrap()
    }

    fn board() -> Board {
        let mut board = Board::new("project".to_owned(), false);
        for row in [
            deployment(1, 1, "SUCCESS", &json!("REPORT")),
            deployment(2, 2, "PROCESSING", &json!("APPLY")),
            deployment(3, 3, "PROCESSING", &json!("APPROVAL")),
            deployment(4, 4, "QUEUED", &Value::Null),
        ] {
            board.on_deployment(WatchEvent::Apply(row));
        }
        board
    }

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn what_waits_for_a_person_comes_first_and_what_ended_last() {
        let order: Vec<_> = board().deployments().iter().map(|row| row.id.as_u128()).collect();
        assert_eq!(order, [3, 4, 2, 1]);
    }

    #[test]
    fn the_selection_stays_on_its_row_when_rows_move() {
        let mut board = board();
        assert_eq!(board.selected().unwrap().id.as_u128(), 3);
        board.on_key(key(KeyCode::Down));
        assert_eq!(board.selected().unwrap().id.as_u128(), 4);
        board.on_deployment(WatchEvent::Apply(deployment(4, 4, "FAILED", &json!("PLAN"))));
        assert_eq!((board.selected().unwrap().id.as_u128(), board.position()), (4, Some(2)));
        board.on_key(key(KeyCode::End));
        board.on_key(key(KeyCode::Down));
        assert_eq!(board.selected().unwrap().id.as_u128(), 1);
        board.on_key(key(KeyCode::Home));
        board.on_key(key(KeyCode::Up));
        assert_eq!(board.selected().unwrap().id.as_u128(), 3);
        board.on_deployment(WatchEvent::Delete(deployment(3, 3, "PROCESSING", &json!("APPROVAL"))));
        assert!(board.selected().is_some());
    }

    #[test]
    fn ctrl_c_and_q_leave() {
        let mut board = Board::new(String::new(), false);
        assert_eq!(board.on_key(key(KeyCode::Down)), Action::Stay);
        assert_eq!(board.on_key(key(KeyCode::Char('q'))), Action::Leave);
        assert_eq!(board.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Action::Leave);
        assert_eq!(board.on_key(key(KeyCode::Char('c'))), Action::Stay);
    }
}
