//! The templates of an agent's folder, as the control plane shows them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::template::definition::{is_template, names};

/// Largest file that counts for a digest as a whole; of larger ones the size does.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Most files of one template, and deepest folder, that are read.
const FILES: usize = 2000;
const DEPTH: usize = 16;
/// Largest schema of variables that the control plane takes.
const SCHEMA_LIMIT: usize = 60 * 1024;

/// One template: a row of `cluster_templates`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CatalogueEntry {
    pub(crate) name: String,
    /// SHA-256 over its files.
    pub(crate) digest: String,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    /// JSON Schema of its variables.
    pub(crate) variables: Schema,
}

/// The text of a JSON object without white space between its parts. A map would lose the order of the keys, which forms follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema(String);

impl Schema {
    /// None: it is no object, or too large.
    fn of(value: &RawValue) -> Option<Self> {
        let mut text = String::with_capacity(value.get().len());
        let (mut is_string, mut is_escaped) = (false, false);
        for c in value.get().chars() {
            if is_string || !c.is_ascii_whitespace() {
                text.push(c);
            }
            is_string ^= c == '"' && !is_escaped;
            is_escaped = is_string && c == '\\' && !is_escaped;
        }
        (text.starts_with('{') && text.len() <= SCHEMA_LIMIT).then_some(Self(text))
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.clone()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// `template.json`, as far as people read it.
#[derive(Default, Deserialize)]
struct Presentation {
    title: Option<String>,
    description: Option<String>,
    #[serde(default)]
    variables: Option<Box<RawValue>>,
}

/// The templates in a directory. One that cannot be read is left out: running it reports why.
pub(crate) fn catalogue(templates_dir: &Path) -> Vec<CatalogueEntry> {
    let is_name = |name: &String| {
        name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    };
    let names = names(templates_dir).into_iter().filter(is_name);
    names
        .filter(|name| is_template(&templates_dir.join(name)))
        .filter_map(|name| match entry(templates_dir, name.clone()) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::debug!(template = name, %error, "a template cannot be read: it is not published");
                None
            }
        })
        .collect()
}

fn entry(templates_dir: &Path, name: String) -> io::Result<CatalogueEntry> {
    let dir = templates_dir.join(&name);
    let presentation = match fs::read(dir.join("template.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Presentation::default(),
        Err(error) => return Err(error),
    };
    let cut = |text: String, most| text.chars().filter(|c| *c != '\0').take(most).collect::<String>();
    Ok(CatalogueEntry {
        digest: digest(&dir)?,
        title: presentation.title.map(|title| cut(title, 200)),
        description: presentation.description.map(|text| cut(text, 4000)),
        variables: presentation.variables.as_deref().and_then(Schema::of).unwrap_or_default(),
        name,
    })
}

/// Over the names and contents of the files, in the order of their names.
fn digest(dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![(dir.to_path_buf(), 0_usize)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let is_hidden = entry.file_name().to_string_lossy().starts_with(".terraform");
            if kind.is_dir() && depth < DEPTH && !is_hidden {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() && files.len() < FILES {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let mut whole = Sha256::new();
    for file in files {
        let name: PathBuf = file.strip_prefix(dir).unwrap_or(&file).to_path_buf();
        let size = fs::metadata(&file)?.len();
        whole.update(format!("{} {size}\n", name.display()));
        if size <= FILE_LIMIT {
            whole.update(fs::read(&file)?);
        }
    }
    Ok(format!("{:x}", whole.finalize()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_the_text_of_the_file_in_its_order_without_white_space() {
        let of =
            |text: &str| Schema::of(&RawValue::from_string(text.to_owned()).unwrap()).map(|schema| schema.0);
        let text = "{ \"z\" : {\n\t\"title\": \"a \\\" b \\\\\" },\r\n \"a\": [1.10, true] }";
        assert_eq!(of(text).as_deref(), Some("{\"z\":{\"title\":\"a \\\" b \\\\\"},\"a\":[1.10,true]}"));
        assert_eq!(of("[1]"), None);
        assert_eq!(of(&format!("{{\"a\": \"{}\"}}", "x".repeat(SCHEMA_LIMIT))), None);
    }

    #[test]
    fn templates_are_listed_with_what_people_read_and_a_digest_that_follows_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["hello", "Not-A-Name", "empty"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("hello/main.tf"), "# one").unwrap();
        fs::write(dir.path().join("Not-A-Name/main.tf"), "").unwrap();
        let manifest = json!({"title": "Hello", "description": "Greets.", "variables": {"type": "object"}});
        fs::write(dir.path().join("hello/template.json"), manifest.to_string()).unwrap();
        let first = catalogue(dir.path());
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!((first[0].name.as_str(), first[0].title.as_deref()), ("hello", Some("Hello")));
        assert_eq!(first[0].variables.0, r#"{"type":"object"}"#);
        assert_eq!(first, catalogue(dir.path()));
        fs::write(dir.path().join("hello/main.tf"), "# two").unwrap();
        assert_ne!(first[0].digest, catalogue(dir.path())[0].digest);
        fs::write(dir.path().join("hello/template.json"), "{").unwrap();
        assert!(catalogue(dir.path()).is_empty());
    }
}
