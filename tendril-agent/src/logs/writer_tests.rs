use std::{path::Path, time::Duration};

use super::*;
use crate::logs::spool::{Chunk, SpoolReader, SpoolRules};
use crate::terraform::OutputReader;

struct Fixture {
    dir: tempfile::TempDir,
    log: LogWriter,
    reader: SpoolReader,
}

fn fixture(secrets: &[&str]) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let rules = SpoolRules { flush_after: Duration::from_millis(20), limit: u64::MAX };
    let (spool, reader) = LogSpool::create(&dir.path().join("log"), rules).unwrap();
    let redactor = Redactor::default();
    redactor.hide(secrets.iter().map(|secret| (*secret).to_owned()));
    Fixture { dir, log: LogWriter::start(spool, None, redactor, OutputReader::default()), reader }
}

fn chunks(path: &Path) -> Vec<Chunk> {
    let mut reader = SpoolReader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

impl Fixture {
    async fn text(mut self) -> String {
        drop(self.log);
        while !self.reader.more().await {
            while self.reader.next_chunk().unwrap().is_some() {}
        }
        chunks(&self.dir.path().join("log")).into_iter().map(|chunk| chunk.text).collect()
    }
}

#[tokio::test]
async fn json_becomes_readable_and_its_news_are_kept() {
    let fixture = fixture(&[]);
    let lines = concat!(
        r#"{"@message":"Plan: 1 to add","changes":{"add":1,"change":0,"remove":0},"type":"change_summary"}"#,
        "\n",
        r#"{"@message":"Error: first","diagnostic":{"severity":"error","summary":"first","detail":"d"},"type":"diagnostic"}"#,
        "\n",
        r#"{"@message":"Error: second","diagnostic":{"severity":"error","summary":"second"},"type":"diagnostic"}"#,
        "\n",
        "plain without end",
    );
    fixture.log.write(Stream::Stdout, lines.as_bytes().to_vec()).await;
    let findings = fixture.log.findings().await;
    assert_eq!(findings.changes, Some(crate::job::Changes { add: 1, ..Default::default() }));
    assert_eq!(findings.error.as_deref(), Some("first\nd\n\nError: second"));
    assert_eq!(findings.further_errors, 0);
    assert_eq!(fixture.log.findings().await, Findings::default());
    assert_eq!(fixture.text().await, "Plan: 1 to add\nError: first\nd\nError: second\nplain without end\n");
}

#[tokio::test]
async fn secrets_are_hidden_in_lines_errors_remarks_and_behind_colours() {
    let fixture = fixture(&["hunter2-hunter2"]);
    fixture.log.annotate("agent saw hunter2-hunter2").await;
    fixture.log.write(Stream::Stdout, b"lo hunter2-".to_vec()).await;
    fixture.log.write(Stream::Stdout, b"hunter2 hi\nhun\x1b[1mter2-hunter2\n".to_vec()).await;
    fixture.log.write(Stream::Stderr, b"Error: bad hunter2-hunter2\n".to_vec()).await;
    let findings = fixture.log.findings().await;
    assert_eq!(findings.error.as_deref(), Some("bad [hidden]"));
    let text = fixture.text().await;
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(text.matches("[hidden]").count(), 4, "{text}");
}

#[tokio::test]
async fn a_secret_across_the_pieces_of_a_very_long_line_is_hidden() {
    let fixture = fixture(&["hunter2-hunter2"]);
    let mut line = "x".repeat(crate::logs::lines::FRAGMENT_LIMIT - 7);
    line.push_str("hunter2-hunter2 end\n");
    fixture.log.write(Stream::Stdout, line.into_bytes()).await;
    let text = fixture.text().await.replace('\n', "");
    assert!(text.ends_with("[hidden] end"), "{}", &text[text.len() - 40..]);
}

#[tokio::test]
async fn an_oversized_message_is_left_out() {
    let fixture = fixture(&[]);
    let state = "s".repeat(3 * crate::logs::lines::FRAGMENT_LIMIT);
    let line = format!("{{\"@message\":\"Emergency state dump\",\"state\":\"{state}\"}}\nafter\n");
    fixture.log.write(Stream::Stdout, line.into_bytes()).await;
    let left_out = "… (a message of Terraform of more than 1 MiB was left out)";
    assert_eq!(fixture.text().await, format!("{left_out}\nafter\n"));
}

#[tokio::test]
async fn what_a_message_of_ten_mebibytes_says_is_kept() {
    let fixture = fixture(&["hunter2-hunter2"]);
    let printed = "0123456789 é\t".repeat(700_000);
    let message = serde_json::json!(format!("a (local-exec): {printed}hunter2-hunter2!"));
    let line =
        format!("{{\"@level\":\"info\",\"@message\":{message},\"hook\":{{\"output\":{message}}}}}\nafter\n");
    for part in line.as_bytes().chunks(60_000) {
        fixture.log.write(Stream::Stdout, part.to_vec()).await;
    }
    let text = fixture.text().await.replace('\n', "");
    assert_eq!(text.len(), format!("a (local-exec): {printed}[hidden]!after").len());
    assert!(text.ends_with("[hidden]!after"), "{}", &text[text.len() - 60..]);
}

#[tokio::test]
async fn poison_comes_out_as_text() {
    let fixture = fixture(&[]);
    fixture.log.write(Stream::Stdout, b"a\0b \xff 1%\r2%\r100%\r\n\x1b[31mred\x1b[0m\n".to_vec()).await;
    assert_eq!(fixture.text().await, "100%\nred\n");
}

#[tokio::test]
async fn captured_output_stays_out_of_the_log() {
    let fixture = fixture(&[]);
    let capture = StdoutCapture::new(fixture.log.clone());
    capture.write(Stream::Stdout, b"{\"secret\"".to_vec()).await;
    capture.write(Stream::Stdout, b":1}".to_vec()).await;
    capture.write(Stream::Stderr, b"warned\n".to_vec()).await;
    assert_eq!(capture.into_captured().unwrap(), b"{\"secret\":1}");
    assert_eq!(fixture.text().await, "warned\n");
}
