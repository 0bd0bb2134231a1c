//! The errors that Terraform writes as plain text.

use crate::process::Stream;

/// Collects the errors that are written as plain text (`init` and usage errors are), block by block.
#[derive(Debug, Default)]
pub(crate) struct PlainErrors {
    /// The blocks so far.
    blocks: Vec<String>,
    /// The stream in which the last block goes on: what the other one has meanwhile is not part of it.
    open: Option<Stream>,
}

/// The longest plain error that is stored.
const BLOCK_LIMIT: usize = 8 * 1024;
/// The most errors that are stored.
pub(super) const MOST_ERRORS: usize = 32;
/// What only announces the errors that follow.
const PREAMBLE: &str = "encountered problems during initiali";

impl PlainErrors {
    /// Whether this plain text can be passed over: nothing in it begins an error, or belongs to one.
    pub(crate) fn may_pass(&self, stream: Stream, text: &str) -> bool {
        self.open != Some(stream) && !text.contains("Error: ")
    }

    /// Reads one more line of plain text.
    pub(crate) fn read(&mut self, stream: Stream, line: &str) {
        // A box is drawn around the text where colours are on; `╷` and `╵` open and close it.
        let line = line.trim_start_matches(['│', '╷']).trim();
        if let Some(summary) = line.strip_prefix("Error: ") {
            self.open = (self.blocks.len() < MOST_ERRORS).then_some(stream);
            if self.open.is_some() {
                self.blocks.push(summary.to_owned());
            }
        } else if self.open != Some(stream) {
            // Of another stream, or of no error.
        } else if line.starts_with('╵') || line.starts_with("Warning: ") {
            self.open = None;
        } else if let Some(block) = self.blocks.last_mut()
            && block.len() + line.len() < BLOCK_LIMIT
        {
            block.push('\n');
            block.push_str(line);
        }
    }

    /// The errors, without surrounding blank lines, and without what only announces them.
    pub(crate) fn into_errors(self) -> Vec<String> {
        let announces = |block: &String| block.contains(PREAMBLE);
        let only_announced = self.blocks.iter().all(announces);
        let stored = self.blocks.into_iter().filter(|block| only_announced || !announces(block));
        stored.map(|block| block.trim().replace("\n\n\n", "\n\n")).collect()
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
