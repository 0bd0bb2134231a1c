//! The board drawn: clusters on one line each, deployments below, details of the selected one at the bottom.

use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState, Wrap},
};
use tendril_examples::screen::printable;

use super::{
    super::lists::{counts, short_id, took},
    board::Board,
};
use crate::{
    control_plane::{cluster::Cluster, deployment::Deployment},
    output::{style::Tone, time::ago},
};

/// Draws all of it.
pub(super) fn draw(board: &mut Board, now: Timestamp, frame: &mut Frame<'_>) {
    let clusters = u16::try_from(board.clusters().len()).unwrap_or(u16::MAX).clamp(1, 6);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(clusters + 2),
        Constraint::Min(4),
        Constraint::Length(5),
        Constraint::Length(1),
    ]);
    let [head, top, middle, bottom, foot] = areas.areas(frame.area());
    frame.render_widget(header(board), head);
    frame.render_widget(cluster_table(board), top);
    deployments(board, now, frame, middle);
    frame.render_widget(details(board), bottom);
    frame.render_widget(Line::styled(" ↑↓ select   q leave", tone(board, Tone::Dim)), foot);
}

fn tone(board: &Board, tone: Tone) -> Style {
    let style = tone.ratatui();
    if board.coloured { style } else { Style { fg: None, ..style } }
}

fn header(board: &Board) -> Line<'static> {
    let (text, kind) = match (&board.problem, board.live) {
        (Some(message), _) => (printable(message), Tone::Bad),
        (None, true) => ("live".to_owned(), Tone::Good),
        (None, false) => ("polling".to_owned(), Tone::Attention),
    };
    Line::from(vec![
        Span::styled(" grape watch ", tone(board, Tone::Bold)),
        Span::styled(format!(" {} ", printable(&board.title)), tone(board, Tone::Dim)),
        Span::styled(format!("● {text}"), tone(board, kind)),
    ])
}

fn framed(board: &Board, title: String) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(tone(board, Tone::Dim))
        .title(Span::styled(title, tone(board, Tone::Bold)))
}

fn cluster_table(board: &Board) -> Table<'static> {
    let rows = board.clusters();
    let title = format!(" clusters ({}) ", rows.len());
    let row = |cluster: &&Cluster| {
        Row::new([
            Cell::new(format!(" {}", printable(&cluster.name))),
            Cell::new(cluster.state().to_owned()).style(tone(board, Tone::of_status(cluster.state()))),
            Cell::new(printable(cluster.agent_version.as_deref().unwrap_or("-"))),
            Cell::new(cluster.id.to_string()).style(tone(board, Tone::Dim)),
        ])
    };
    let widths =
        [Constraint::Length(24), Constraint::Length(10), Constraint::Length(14), Constraint::Fill(1)];
    Table::new(rows.iter().map(row).collect::<Vec<_>>(), widths).block(framed(board, title))
}

fn deployments(board: &Board, now: Timestamp, frame: &mut Frame<'_>, area: Rect) {
    let rows = board.deployments();
    let running = rows.iter().filter(|row| !row.is_finished()).count();
    let block = framed(board, format!(" deployments ({}, {running} going on) ", rows.len()));
    if rows.is_empty() {
        let text = if board.is_read() { " None yet: `grape deploy TEMPLATE`." } else { " Reading …" };
        frame.render_widget(Paragraph::new(text).style(tone(board, Tone::Dim)).block(block), area);
        return;
    }
    let header =
        Row::new([" ID", "CLUSTER", "TEMPLATE", "STACK", "ACTION", "STATUS", "CHANGES", "TOOK", "AGE"]);
    let widths = [
        Constraint::Length(10),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let drawn = rows.iter().map(|row| deployment(board, row, now)).collect::<Vec<_>>();
    let table = Table::new(drawn, widths)
        .header(header.style(tone(board, Tone::Dim)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut state = TableState::new().with_selected(board.position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn deployment(board: &Board, row: &Deployment, now: Timestamp) -> Row<'static> {
    let state = row.state().to_owned();
    let tone_of_status = tone(
        board,
        Tone::of_status(if row.is_finished() || row.state() == "APPROVAL" { &state } else { &row.status }),
    );
    Row::new([
        Cell::new(format!(" {}", short_id(row.id))),
        Cell::new(printable(board.cluster_name(row.cluster_id))),
        Cell::new(printable(&row.template())),
        Cell::new(printable(row.stack().unwrap_or("-"))),
        Cell::new(printable(row.action())),
        Cell::new(state).style(tone_of_status),
        Cell::new(counts(row)),
        Cell::new(took(row, now)),
        Cell::new(ago(row.created_at, now)),
    ])
}

fn details(board: &Board) -> Paragraph<'static> {
    let Some(row) = board.selected() else { return Paragraph::new("").block(framed(board, String::new())) };
    let mut lines = vec![Line::from(format!(
        " attempt {}{}",
        row.attempt,
        row.error_code.as_ref().map_or_else(String::new, |code| format!("   {}", printable(code)))
    ))];
    let advice = if row.waits_for_approval() || row.phase.as_deref() == Some("APPROVAL") && !row.is_finished()
    {
        format!(" grape plan {id}   grape approve {id}   grape reject {id} -m WHY", id = short_id(row.id))
    } else if row.is_finished() {
        format!(" grape logs {}", short_id(row.id))
    } else {
        format!(" grape logs -f {id}   grape cancel {id}", id = short_id(row.id))
    };
    if let Some(summary) = row.summary() {
        lines.push(Line::from(format!(" {summary}")));
    }
    lines.push(Line::styled(advice, tone(board, Tone::Active)));
    Paragraph::new(lines).wrap(Wrap { trim: false }).block(framed(board, format!(" {} ", row.id)))
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;
    use tendril_realtime::watch::WatchEvent;
    use uuid::Uuid;

    use super::*;

    fn drawn(board: &mut Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let now = "2026-11-29T12:01:00Z".parse().unwrap();
        terminal.draw(|frame| draw(board, now, frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_deployment_is_a_row_with_what_to_do_about_it_below() {
        let mut board = Board::new("https://a.supabase.co".to_owned(), true);
        let row = json!({
            "id": Uuid::from_u128(7), "cluster_id": Uuid::nil(), "status": "PROCESSING", "phase": "APPROVAL", "attempt": 1,
            "config_snapshot": { "template": "hello\u{1b}[2J", "stack": "prod" }, "created_at": "2026-11-29T12:00:00Z", "log_count": 0,
            "started_at": "2026-11-29T12:00:30Z", "plan_summary": { "add": 2, "change": 0, "remove": 1 },
        });
        board.on_deployment(WatchEvent::Apply(serde_json::from_value(row).unwrap()));
        let text = drawn(&mut board, 140, 20);
        for part in
            ["hello\\u{1b}[2J", "APPROVAL", "+2 ~0 -1", "30 s", "1 m", "grape approve 00000000", "prod"]
        {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_shows_what_fits() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&mut Board::new("p".to_owned(), false), width, height);
        }
    }
}
