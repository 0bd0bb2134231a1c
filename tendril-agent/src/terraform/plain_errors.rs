//! The errors that Terraform writes as plain text.

use std::collections::VecDeque;

use crate::process::Stream;

/// Collects the errors that are written as plain text (`init` and usage errors are), block by block.
#[derive(Debug, Default)]
pub(crate) struct PlainErrors {
    /// The blocks so far.
    blocks: Vec<Block>,
    /// How many more there were.
    further: usize,
    /// The stream in which the last block goes on: what the other one has meanwhile is not part of it.
    open: Option<Stream>,
}

/// One error. Of a long one the middle is left out: what happened is at its beginning, and the last output of a program at its end.
#[derive(Debug, Default)]
struct Block {
    head: String,
    /// The last lines, as soon as the head is full.
    tail: VecDeque<String>,
    /// Bytes of them.
    tail_size: usize,
    is_cut: bool,
}

impl Block {
    fn push(&mut self, line: &str) {
        let has_tail = self.is_cut || !self.tail.is_empty();
        if !has_tail && self.head.len() + line.len() < BLOCK_LIMIT {
            self.head.push('\n');
            self.head.push_str(line);
            return;
        }
        // Of a line that is too long for itself the end is kept too.
        let from =
            (line.len().saturating_sub(BLOCK_LIMIT - 1)..=line.len()).find(|at| line.is_char_boundary(*at));
        let end = &line[from.unwrap_or_default()..];
        self.is_cut |= end.len() < line.len();
        self.tail_size += end.len() + 1;
        self.tail.push_back(end.to_owned());
        while self.tail_size > BLOCK_LIMIT
            && let Some(first) = self.tail.pop_front()
        {
            self.tail_size -= first.len() + 1;
            self.is_cut = true;
        }
    }

    fn text(&self) -> String {
        let cut = if self.is_cut { Some("…") } else { None };
        let lines = [self.head.as_str()].into_iter().chain(cut).chain(self.tail.iter().map(String::as_str));
        lines.collect::<Vec<_>>().join("\n").trim().replace("\n\n\n", "\n\n")
    }
}

/// The longest beginning of a plain error that is stored, and the longest end.
const BLOCK_LIMIT: usize = 8 * 1024;
/// The most errors that are stored.
pub(super) const MOST_ERRORS: usize = 32;
/// What only announces the errors that follow.
const PREAMBLE: &str = "encountered problems during initiali";

/// What Terraform writes above the reason of its own crash.
const CRASH: &str = "TERRAFORM CRASH";
/// How it begins when a program in Go crashes.
const CRASHES: [&str; 4] = [CRASH, "panic: ", "fatal error: ", "SIG"];

/// What is said of a crash that this line begins.
fn crash(line: &str) -> Option<String> {
    if line.contains(CRASH) {
        return Some("the program crashed".to_owned());
    }
    let signal = |rest: &str| {
        rest.split_once(": ").is_some_and(|(name, _)| {
            (1..=6).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_uppercase())
        })
    };
    let begins = line.starts_with("panic: ")
        || line.starts_with("fatal error: ")
        || line.strip_prefix("SIG").is_some_and(signal);
    begins.then(|| format!("the program crashed: {line}"))
}

impl PlainErrors {
    /// Whether this plain text can be passed over: nothing in it begins an error, or belongs to one.
    pub(crate) fn may_pass(&self, stream: Stream, text: &str) -> bool {
        let may_crash = || stream == Stream::Stderr && CRASHES.iter().any(|crash| text.contains(crash));
        self.open != Some(stream) && !text.contains("Error: ") && !may_crash()
    }

    /// Reads one more line of plain text.
    pub(crate) fn read(&mut self, stream: Stream, line: &str) {
        // A box is drawn around the text where colours are on; `╷` and `╵` open and close it.
        let line = line.trim_start_matches(['│', '╷']).trim();
        let crash = (stream == Stream::Stderr).then(|| crash(line)).flatten();
        let is_crash = crash.is_some();
        if let Some(summary) = crash.as_deref().or_else(|| line.strip_prefix("Error: ")) {
            self.open = (self.blocks.len() < MOST_ERRORS).then_some(stream);
            if self.open.is_some() {
                self.blocks.push(Block { head: summary.to_owned(), ..Block::default() });
            } else {
                self.further += 1;
            }
            if is_crash && !line.contains(CRASH) {
                // What follows is the place in the program.
                self.open = None;
            }
        } else if self.open != Some(stream) {
            // Of another stream, or of no error.
        } else if line.starts_with('╵') || line.starts_with("Warning: ") || line.starts_with("goroutine ") {
            self.open = None;
        } else if let Some(block) = self.blocks.last_mut() {
            block.push(line);
        }
    }

    /// How many errors there were beside those that are stored.
    pub(crate) const fn further(&self) -> usize {
        self.further
    }

    /// The errors, without surrounding blank lines, and without what only announces them.
    pub(crate) fn into_errors(self) -> Vec<String> {
        let announces = |block: &Block| block.head.contains(PREAMBLE);
        let only_announced = self.blocks.iter().all(announces);
        let stored = self.blocks.iter().filter(|block| only_announced || !announces(block));
        stored.map(Block::text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_error_is_collected_to_its_end() {
        let mut errors = PlainErrors::default();
        for line in [
            "Initializing...",
            "",
            "Error: No such provider",
            "",
            "It is not",
            "there.",
            "",
            "Error: Second",
            "x",
        ] {
            errors.read(Stream::Stderr, line);
        }
        assert_eq!(errors.into_errors(), ["No such provider\n\nIt is not\nthere.", "Second\nx"]);
    }

    #[test]
    fn what_the_other_stream_has_meanwhile_is_not_part_of_an_error() {
        let mut errors = PlainErrors::default();
        for (stream, line) in [
            (Stream::Stderr, "Error: No such provider"),
            (Stream::Stdout, "Initializing the backend..."),
            (Stream::Stderr, "It is not there."),
            (Stream::Stdout, "Warning: old"),
            (Stream::Stderr, "Nowhere."),
        ] {
            errors.read(stream, line);
        }
        assert!(errors.may_pass(Stream::Stdout, "Done.") && !errors.may_pass(Stream::Stderr, "More."));
        assert_eq!(errors.into_errors(), ["No such provider\nIt is not there.\nNowhere."]);
    }

    #[test]
    fn of_a_long_error_the_end_is_kept_and_no_later_error_is_uncounted() {
        let mut errors = PlainErrors::default();
        errors.read(Stream::Stderr, "Error: Failed to download module");
        for n in 0..5000 {
            errors.read(Stream::Stderr, &format!("remote: a line of progress, {n} of 5000"));
        }
        errors.read(Stream::Stderr, "fatal: repository not found");
        for n in 0..40 {
            errors.read(Stream::Stderr, &format!("Error: number {n}"));
        }
        assert_eq!(errors.further(), 41 - MOST_ERRORS);
        let block = errors.into_errors().swap_remove(0);
        assert!(block.starts_with("Failed to download module\nremote: a line of progress, 0 of"), "{block}");
        assert!(block.ends_with("4999 of 5000\nfatal: repository not found"), "{block}");
        assert!(block.len() <= 2 * BLOCK_LIMIT && block.contains('…'), "{}", block.len());
    }

    #[test]
    fn of_a_line_that_is_too_long_the_end_is_kept() {
        let mut errors = PlainErrors::default();
        errors.read(Stream::Stderr, "Error: it failed");
        errors.read(Stream::Stderr, &format!("{}é the reason", "é".repeat(BLOCK_LIMIT)));
        let block = errors.into_errors().swap_remove(0);
        assert!(block.starts_with("it failed\n…\né") && block.ends_with("é the reason"), "{block:.80}");
        assert!(block.len() <= 2 * BLOCK_LIMIT, "{}", block.len());
    }

    #[test]
    fn a_crash_is_the_reason_without_the_places_in_the_program() {
        for (text, reason) in [
            (
                "SIGSEGV: segmentation violation\nPC=0x47a221 m=0 sigcode=0\n\ngoroutine 1 [running]:\nmain.main()",
                "the program crashed: SIGSEGV: segmentation violation",
            ),
            ("SIGQUIT: quit\nPC=0x47a221 m=0", "the program crashed: SIGQUIT: quit"),
            (
                "fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw",
                "the program crashed: fatal error: runtime: out of memory",
            ),
            (
                "panic: assignment to entry in nil map\n\ngoroutine 1 [running]:",
                "the program crashed: panic: assignment to entry in nil map",
            ),
            (
                "!!!! TERRAFORM CRASH !!!!\n\nTerraform crashed!\n\nindex out of range\ngoroutine 1 [running]:\nx.go",
                "the program crashed\n\nTerraform crashed!\n\nindex out of range",
            ),
        ] {
            let mut errors = PlainErrors::default();
            assert!(!errors.may_pass(Stream::Stderr, text) && errors.may_pass(Stream::Stdout, text));
            text.lines().for_each(|line| errors.read(Stream::Stderr, line));
            assert_eq!(errors.into_errors(), [reason]);
        }
        let mut errors = PlainErrors::default();
        for (stream, line) in [(Stream::Stdout, "panic: it is only text"), (Stream::Stderr, "SIG nothing: x")]
        {
            errors.read(stream, line);
        }
        assert_eq!(errors.into_errors(), [""; 0]);
    }

    #[test]
    fn a_boxed_error_is_collected_without_its_box() {
        let mut errors = PlainErrors::default();
        for line in ["╷", "│ Error: Bad flag", "│ ", "│ flag provided", "╵", "For more help"] {
            errors.read(Stream::Stderr, line);
        }
        assert_eq!(errors.into_errors(), ["Bad flag\n\nflag provided"]);
    }

    #[test]
    fn what_only_announces_errors_is_none() {
        let mut errors = PlainErrors::default();
        let text = "Error: Terraform encountered problems during initialisation, including problems\nwith the configuration, described below.\n\nThe Terraform configuration must be valid.\n\n\nError: Unclosed configuration block\n\n  on main.tf line 4:\n   4: foo {\n";
        text.lines().for_each(|line| errors.read(Stream::Stderr, line));
        assert_eq!(errors.into_errors(), ["Unclosed configuration block\n\non main.tf line 4:\n4: foo {"]);
        let mut alone = PlainErrors::default();
        alone.read(Stream::Stderr, "Error: Terraform encountered problems during initialisation");
        assert_eq!(alone.into_errors().len(), 1);
    }
}
