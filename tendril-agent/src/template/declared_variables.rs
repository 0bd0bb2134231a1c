//! Which variables a template's own files mark `sensitive`.
//!
//! Terraform states it only in a plan as JSON, which holds every secret and is never made, and a parser of the whole language
//! would refuse what is newer than itself. Here nothing is refused: what cannot be understood counts as sensitive.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::Path,
};

use crate::{
    os::untrusted::read_file,
    template::{
        hcl::{self, Token, is_of_word},
        tf_json::{entries, entries_of},
    },
};

/// Largest file that is looked into.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// How deep modules are looked for, and in how many files.
const DEEPEST_MODULE: u32 = 6;
const MOST_FILES: u32 = 2000;
/// Arguments of a `variable` that exclude its value from what is shown or stored.
const MARKS: [&str; 2] = ["sensitive", "ephemeral"];

/// Reads a file of a template.
pub(super) type ReadFile = fn(&Path) -> io::Result<String>;

/// The variables of a template whose values must not be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    names: BTreeSet<String>,
    /// Every word of its files, and of those in the folders below.
    words: BTreeSet<String>,
    /// There is a file that could not be read: any variable may be one.
    all: bool,
}

impl Declared {
    /// Looks into every file that Terraform, or OpenTofu, would read in this folder.
    pub(super) fn in_folder(dir: &Path, read: ReadFile) -> Self {
        let mut declared = Self::default();
        let Ok(entries) = fs::read_dir(dir) else { return Self { all: true, ..Self::default() } };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let json = [".tf.json", ".tofu.json"].iter().any(|end| name.ends_with(end));
            if !json && ![".tf", ".tofu"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            match read(&path) {
                Ok(text) if json => {
                    declared.add_words(&text);
                    declared.add_json(&text);
                }
                Ok(text) => {
                    declared.add_words(&text);
                    declared.names.extend(sensitive_variables(&text));
                }
                Err(_) => declared.all = true,
            }
        }
        declared.add_modules(dir, read);
        declared
    }

    /// The words of the modules in the folders below; of what cannot be read none is known.
    fn add_modules(&mut self, dir: &Path, read: ReadFile) {
        let mut dirs = vec![(dir.to_path_buf(), 0)];
        let mut files = 0;
        while let Some((dir, depth)) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < DEEPEST_MODULE {
                    dirs.push((path, depth + 1));
                } else if depth > 0 && files < MOST_FILES && (name.contains(".tf") || name.contains(".tofu"))
                {
                    files += 1;
                    self.add_words(&read(&path).unwrap_or_default());
                }
            }
        }
    }

    fn add_words(&mut self, text: &str) {
        let words = text.split(|c| !is_of_word(c)).filter(|word| !word.is_empty());
        self.words.extend(words.map(str::to_owned));
    }

    /// Whether the template itself writes this word.
    pub(super) fn writes(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Whether this variable is one of them.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn add_json(&mut self, text: &str) {
        match json_variables(text) {
            Ok(names) => self.names.extend(names),
            Err(_) => self.all = true,
        }
    }
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    // Whoever reads a pipe waits for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other("it is too large"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The same where programs of the template have run.
pub(super) fn read_used(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_file(path, None, FILE_LIMIT)?).into_owned())
}

/// The names of all variables with a mark that is not `false`, in the JSON form.
fn json_variables(text: &str) -> serde_json::Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, body) in entries_of(text, "variable")? {
        let is_set = |value: &str| !matches!(value, "null" | "false" | "\"false\"");
        let arguments = entries(body.get())?;
        if arguments.iter().any(|(argument, value)| MARKS.contains(&&**argument) && is_set(value.get())) {
            found.push(name);
        }
    }
    Ok(found)
}

/// The names of all blocks `variable "name" { … }` with a mark that is not `false`.
fn sensitive_variables(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    hcl::arguments(text, |block, argument, value| {
        let [Token::Word("variable"), Token::Word(name) | Token::Text(name)] = block else { return };
        if MARKS.contains(&argument) && !matches!(value, Some(Token::Word("false") | Token::Text("false"))) {
            // Terraform reads escapes in names too.
            let name = serde_json::from_str(&format!("\"{name}\"")).unwrap_or_else(|_| (*name).to_owned());
            found.insert(name);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sensitive(text: &str) -> Vec<String> {
        sensitive_variables(text).into_iter().collect()
    }

    #[test]
    fn variables_that_are_marked_are_found() {
        let text = r#"
            variable "plain" {
              type = string
            }
            variable "one" {
              type      = object({ sensitive = bool })
              sensitive = true
            }
            variable two { sensitive = true }
            variable "open" { sensitive = false }
            variable "session" {
              ephemeral = true
              validation {
                condition     = length(var.session) > 3
                error_message = "sensitive = true"
              }
            }
            variable "computed" { sensitive = !false }
            variable "\u0065scaped" { sensitive = true }
            output "key" { sensitive = true }
            resource "variable" "no" { sensitive = true }
        "#;
        assert_eq!(sensitive(text), ["computed", "escaped", "one", "session", "two"]);
    }

    #[test]
    fn what_stands_in_comments_strings_and_heredocs_is_no_block() {
        let text = r#"
            # variable "a" { sensitive = true }
            // variable "b" { sensitive = true }
            /* variable "c" {
                 sensitive = true } */
            variable "d" {
              description = <<-EOT
                } variable "e" { sensitive = true }
              EOT
              default = "${join("}", ["\"", "}"])} $${ \" %{ if true }}%{ endif }"
              sensitive = true # }
            }
            locals { text = "variable \"f\" { sensitive = true }" }
            variable "g" {
              default = {
                sensitive = true
              }
            }
        "#;
        assert_eq!(sensitive(text), ["d"]);
    }

    #[test]
    fn all_files_of_the_folder_count_and_what_cannot_be_read_hides_everything() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.tf", "variable \"a\" { sensitive = true }");
        write("b_override.tofu", "variable \"b\" { sensitive = true }");
        write("c.tf.json", r#"{"variable": {"c": {"sensitive": true}, "x": {"sensitive": false}, "y": {}}}"#);
        write("d.tf.json", r#"{"variable": [{"d": [{"sensitive": "true"}]}]}"#);
        // Terraform takes each of them.
        write(
            "e.tf.json",
            r#"{"variable": {"e": {"sensitive": true}}, "//": 1e400, "variable": {"y": {}, "f": {"ephemeral": true}}}"#,
        );
        write("notes.md", "variable \"x\" { sensitive = true }");
        let declared = Declared::in_folder(dir.path(), read);
        assert_eq!(declared.names, ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into());
        assert!(!declared.hides("x"));
        write("e.tf.json", "{");
        assert!(Declared::in_folder(dir.path(), read).hides("x"));
    }

    #[test]
    fn a_file_that_was_made_to_be_hard_is_read_in_a_moment() {
        for part in ["\"${", "{", "<", "<<-", "<<a ", "sensitive ", "\"\" ", "/* ", "${\"%{\"\""] {
            let text = format!("variable \"a\" {{\n  x = {}", part.repeat(1_000_000 / part.len()));
            let begun = std::time::Instant::now();
            let _found = sensitive(&text);
            assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{part}: {:?}", begun.elapsed());
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[a\"${}%\\\\<\\n#/*=é -]{0,80}") {
            let _found = sensitive(&text);
        }

        #[test]
        fn a_mark_is_found_behind_any_string(inside in "[a-z{}#/<$% ]{0,30}") {
            let text = format!("variable \"a\" {{\n default = {inside:?}\n sensitive = true\n}}");
            // A string may leave `${` open; Terraform would refuse the file then.
            prop_assume!(!inside.contains("${") && !inside.contains("%{"));
            prop_assert_eq!(sensitive(&text), ["a"]);
        }
    }
}
