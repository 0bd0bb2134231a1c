//! Secrets that real programs print, and secrets over the borders of lines.

use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::redaction::MASK;

fn redactor(secrets: &[&str]) -> Redactor {
    let redactor = Redactor::default();
    redactor.hide(secrets.iter().map(|secret| (*secret).to_owned()));
    redactor
}

fn shown(redactor: &Redactor, lines: &[&str]) -> Vec<String> {
    let (mut stream, mut out) = (RedactLines::default(), Vec::new());
    for line in lines {
        stream.push(redactor, line, |line| out.push(line.to_owned()));
    }
    stream.end(&mut |line| out.push(line.to_owned()));
    out
}

/// What a shell script prints, with the secret in `$PW`.
fn printed(script: &str, secret: &str) -> String {
    let output =
        Command::new("bash").args(["-c", script]).env("PW", secret).env("LC_ALL", "C").output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether the programs of a script are here that not every machine has.
fn can_run(script: &str) -> bool {
    let is_here = |program: &str| {
        let found = Command::new("bash").args(["-c", &format!("command -v {program}")]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let missing = ["jq", "node", "openssl", "perl", "xxd"]
        .into_iter()
        .find(|one| script.contains(one) && !is_here(one));
    if let Some(program) = missing {
        println!("skipped: {program} is not here: {script}");
    }
    missing.is_none()
}

/// Printers, and whether they print in lines of a fixed width.
const PRINTERS: &[&str] = &[
    "printf '%s\\n' \"$PW\"",
    "set -x; : login --password \"$PW\"",
    "printf '%q\\n' \"$PW\"",
    "declare -p PW",
    "echo \"${PW@Q}\"",
    "printf %s \"$PW\" | base64",
    "echo \"$PW\" | base64 -w 20",
    "printf 'u:%s' \"$PW\" | base64 -w0",
    "printf 'us:%s' \"$PW\" | base64 -w0",
    "printf %s \"$PW\" | od -An -v -tx1",
    "printf %s \"$PW\" | od -An -v -tx1 | tr -d ' \\n' | tr a-f A-F",
    "printf %s \"$PW\" | fold -w 8",
    "printf %s \"$PW\" | fold -w 5",
    "printf %s \"$PW\" | fold -w 1",
    "printf %s \"$PW\" | sed 's/./& /g'",
    "python3 -c 'import os; print(repr(os.environ[\"PW\"]))'",
    "python3 -c 'import os,json; print(json.dumps(os.environ[\"PW\"]))'",
    "python3 -c 'import os,json; print(json.dumps(json.dumps({\"a\": os.environ[\"PW\"]})))'",
    "python3 -c 'import os,shlex; print(shlex.quote(os.environ[\"PW\"]))'",
    "python3 -c 'import os,urllib.parse; print(urllib.parse.quote(os.environ[\"PW\"], safe=\"\"))'",
    "python3 -c 'import os,urllib.parse; print(urllib.parse.quote_plus(os.environ[\"PW\"]))'",
    "python3 -c 'import os,binascii; print(binascii.hexlify(os.environ[\"PW\"].encode()).decode())'",
    "printf %s \"$PW\" | xxd -p",
    "printf %s \"$PW\" | xxd -i",
    "printf %s \"$PW\" | xxd -p -u -c 256 | sed 's/../&:/g; s/:$//'",
    "printf %s \"$PW\" | xxd -p -c 256 | sed 's/../&-/g; s/-$//'",
    "printf %s \"$PW\" | xxd -p -u -c 256 | sed 's/../\\\\x&/g'",
    "printf %s \"$PW\" | xxd -p -u -c 256 | sed 's/../%&/g'",
    "printf 'use:%s;' \"$PW\" | base64 -w0",
    "printf 'x%s' \"$PW\" | openssl base64",
    "printf %s \"$PW\" | jq -Rsr @html",
    "printf %s \"$PW\" | jq -Rsr @sh",
    "printf %s \"$PW\" | jq -Rsr '[.] | @csv'",
    "printf %s \"$PW\" | jq -Rsr @uri | jq -Rr @uri",
    "python3 -c 'import os,html; print(html.escape(os.environ[\"PW\"]))'",
    "printf %s \"$PW\" | perl -0pe 's/([$%])(?=\\{)/$1$1/g'",
    "perl -e 'use Data::Dumper; $Data::Dumper::Useqq = 1; print Dumper($ENV{PW})'",
    "LC_ALL=C.UTF-8; printf '%q\\n' \"$PW\"",
    "LC_ALL=C.UTF-8; set -x; : \"$PW\"",
    "perl -MB -e 'print B::cstring($ENV{PW})'",
    "printf %s \"$PW\" | sed -n l",
    "python3 -c 'import os; print(ascii(os.environ[\"PW\"]))'",
    "node -e 'console.log([process.env.PW])'",
    "node -e 'console.log(encodeURI(process.env.PW))'",
    "python3 -c 'import os,base64; print(base64.urlsafe_b64encode(os.environ[\"PW\"].encode()).decode())'",
];

/// What is shown of the printed text, each of whose lines is printed behind the prefix.
fn shown_of(redactor: &Redactor, text: &str, prefix: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{prefix}{line}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let out = shown(redactor, &lines);
    let out: Vec<&str> = out.iter().map(|line| line.strip_prefix(prefix).unwrap_or(line)).collect();
    out.join("\n")
}

/// How much of a text is left, beside masks and what the program prints around a value.
fn left(out: &str, script: &str) -> usize {
    let count = |text: &str| super::super::normalize::normalize(text.as_bytes()).len();
    count(&out.replace(MASK, "")).saturating_sub(count(&printed(script, "")))
}

#[test]
fn each_printer_of_a_shell_is_seen_through() {
    let secrets = [
        "it's-secret-42",
        "do$$ar\\\\back\"quote-77",
        "two\nlines of \"it\"",
        "p4ss w0rd & more",
        "tab\tand `tick`s!",
        "pa${ss}-%{w}ord-77",
        "bell\u{7}esc\u{1b}[0m\u{1}end-42",
        "crlf\r\nand <a href='x'>",
    ]
    .map(|secret| (secret, redactor(&[secret])));
    for script in PRINTERS.iter().filter(|script| can_run(script)) {
        for (secret, redactor) in &secrets {
            let text = printed(script, secret);
            let shown =
                ["", "terraform_data.a (local-exec): ", "module.b[\"x\"].null_resource.c: (local-exec): "]
                    .map(|prefix| shown_of(redactor, &text, prefix));
            assert!(shown.iter().all(|out| out.contains(MASK)), "{script} with {secret:?}: {shown:?}");
            // What is before a line changes nothing.
            assert!(shown.iter().all(|out| *out == shown[0]), "{script} with {secret:?}: {shown:?}");
            assert!(left(&shown[0], script) <= 6, "{script} with {secret:?}: {shown:?}");
        }
    }
}

/// Python's own YAML is not everywhere.
#[test]
fn a_secret_is_hidden_as_yaml_and_ascii_literals_have_it() {
    for (secret, line) in [
        ("gr\u{fc}\u{df}e-2024", r#"a: "gr\xFC\xDFe-2024""#),
        ("bell\u{7}esc\u{1b}\u{1}-42", r#"a: "bell\aesc\e\x01-42""#),
        ("k\u{5bc6}\u{7801}-\u{1f600}8", r#"a: "k\u5BC6\u7801-\U0001F6008""#),
        ("k\u{5bc6}\u{7801}-\u{1f600}8", r"'k\u5bc6\u7801-\U0001f6008'"),
    ] {
        let out = shown(&redactor(&[secret]), &[line]);
        assert!(out[0].contains(MASK) && !out[0].contains('8') && !out[0].contains('4'), "{line}: {out:?}");
    }
}

#[test]
fn lines_of_two_provisioners_may_mix() {
    let redactor = redactor(&["correct-horse-battery"]);
    let lines = [
        "a (local-exec): correct-",
        "b (local-exec): correct-",
        "a (local-exec): horse-",
        "c",
        "b (local-exec): horse-",
        "a (local-exec): battery",
        "b (local-exec): battery!",
    ];
    let out = shown(&redactor, &lines);
    assert_eq!(
        out,
        [
            "a (local-exec): [hidden]",
            "b (local-exec): [hidden]",
            "a (local-exec): [hidden]",
            "c",
            "b (local-exec): [hidden]",
            "a (local-exec): [hidden]",
            "b (local-exec): [hidden]!"
        ]
    );
}

#[test]
fn what_only_begins_like_a_secret_is_shown_whole_and_in_order() {
    let redactor = redactor(&["password123", "0123456789".repeat(40).as_str()]);
    let lines = ["enter pass", "word now", "pass", "", "other", "password12", "012345678", "9"];
    assert_eq!(shown(&redactor, &lines), lines);
}

#[test]
fn a_line_waits_for_the_next_one_for_a_moment_only() {
    let redactor = redactor(&["password123"]);
    let (mut stream, mut out) = (RedactLines::default(), Vec::new());
    stream.push(&redactor, "my pass", |line| out.push(line.to_owned()));
    assert_eq!(out, [""; 0]);
    assert!(stream.due().is_some_and(|due| due <= Instant::now() + MAX_DELAY));
    stream.give_all(&mut |line| out.push(line.to_owned()));
    // What is given out is known still.
    stream.push(&redactor, "word123 it is", |line| out.push(line.to_owned()));
    assert_eq!(
        (out.as_slice(), stream.due()),
        (["my pass".to_owned(), "[hidden] it is".to_owned()].as_slice(), None)
    );
}

#[test]
fn a_secret_at_the_place_where_a_very_long_line_is_cut_is_hidden() {
    let redactor = redactor(&["correct horse battery"]);
    let long = format!("{}correct hor", "x".repeat(MOST_BYTES * 2));
    let lines = shown(&redactor, &[&long, "se battery and more"]);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with(&format!("x{MASK}")), "{}", &lines[0][lines[0].len() - 40..]);
    assert_eq!(lines[1], format!("{MASK} and more"));
}

#[test]
fn a_secret_of_many_kilobytes_is_hidden_in_lines_of_any_width() {
    let secret: String = (0..60_000_u32)
        .map(|n| char::from(b'A' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 25).unwrap() % 26))
        .collect();
    let redactor = redactor(&[&secret]);
    for width in [8, 100, 10_000] {
        let lines: Vec<&str> =
            secret.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let begun = Instant::now();
        let out = shown(&redactor, &lines);
        let open: Vec<&String> = out.iter().filter(|line| *line != MASK && !line.is_empty()).collect();
        assert!(open.len() <= 1, "{width}: {open:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{width}: {:?}", begun.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_printer_shows_a_random_secret(secret in "[!-~]{2}[ -~éß\n\t]{8,60}[!-~]{2}", printer in 0..PRINTERS.len()) {
        prop_assume!(can_run(PRINTERS[printer]));
        // They cut characters in halves, which cannot be restored.
        let cuts = ["fold", "sed"].iter().any(|tool| PRINTERS[printer].contains(tool));
        prop_assume!(secret.is_ascii() || !cuts);
        // What is mostly quotes and blanks has no spelling of its own to be known by.
        prop_assume!(super::super::normalize::normalize(secret.as_bytes()).len() >= 10);
        let out = shown_of(&redactor(&[&secret]), &printed(PRINTERS[printer], &secret), "x (local-exec): ");
        prop_assert!(left(&out, PRINTERS[printer]) <= 8, "{}: {secret:?}: {out}", PRINTERS[printer]);
    }

    #[test]
    fn no_line_is_lost_or_moved(secret in "[ab]{4,12}", lines in proptest::collection::vec("[abc \n]{0,6}", 0..12)) {
        let redactor = redactor(&[&secret]);
        let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', "")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let out = shown(&redactor, &lines);
        prop_assert_eq!(out.len(), lines.len());
        for (line, out) in lines.iter().zip(&out) {
            let mut rest = *line;
            for part in out.split(MASK) {
                let at = rest.find(part);
                prop_assert!(at.is_some(), "{line:?} became {out:?}");
                rest = &rest[at.unwrap_or(0) + part.len()..];
            }
        }
    }
}
