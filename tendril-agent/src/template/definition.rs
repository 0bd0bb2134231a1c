//! A template: a folder of Terraform files, and a `template.json` that declares its variables.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::Error as _};
use serde_json::value::RawValue;

use super::declared_variables::{Declared, ReadFile, read, read_used};
use crate::{
    job::{ErrorCode, Failure, Fields, Json, Schema},
    os::untrusted::read_file,
};

/// Largest `template.json`, in bytes.
const MANIFEST_LIMIT: u64 = 1024 * 1024;

/// A template, opened.
#[derive(Debug)]
pub(crate) struct Template {
    /// Its folder.
    dir: PathBuf,
    /// Its `template.json`, if it has one.
    manifest: Option<Manifest>,
    /// How its files are read.
    read: ReadFile,
}

/// `template.json`, as far as the agent reads it.
#[derive(Debug)]
struct Manifest {
    /// The variables, as a JSON Schema of an object.
    variables: Schema,
}

impl Manifest {
    fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Parts<'a> {
            #[serde(borrow, default)]
            variables: Option<&'a RawValue>,
        }
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            // It would be read as the fields in their order.
            return Err(serde_json::Error::custom("it is an array, and not an object"));
        }
        let parts: Parts<'_> = serde_json::from_slice(bytes)?;
        let variables = parts.variables.map(|variables| Schema::parse(variables.get())).transpose()?;
        Ok(Self { variables: variables.unwrap_or_default() })
    }
}

impl Template {
    /// Finds the built-in template `name` and reads its `template.json`.
    pub(crate) fn built_in(templates_dir: &Path, name: &str) -> Result<Self, Failure> {
        let dir = templates_dir.join(name);
        if !dir.is_dir() {
            let known = names(templates_dir).join(", ");
            return Err(Failure::new(
                ErrorCode::TemplateNotFound,
                format!("this agent has no template \"{name}\": it has {known}"),
            ));
        }
        Self::open(dir).map_err(|error| {
            Failure::internal(&format!("template.json of the template \"{name}\" cannot be read"), &error)
        })
    }

    /// Reads the `template.json` of a template in this folder. Errors: it cannot be read, or is none.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let path = dir.join("template.json");
        let manifest = fs::metadata(&path).and_then(|metadata| {
            // Whoever opens a pipe waits for its other end.
            if !metadata.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            let file = fs::File::open(&path)?;
            if file.metadata()?.len() > MANIFEST_LIMIT {
                return Err(io::Error::other("it is larger than 1 MiB"));
            }
            let mut bytes = Vec::new();
            file.take(MANIFEST_LIMIT).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        Self::with(dir, manifest, read)
    }

    /// The same of a folder in which programs of the template have run: a file may be a link, a pipe or a device by now.
    pub(crate) fn open_used(dir: PathBuf) -> io::Result<Self> {
        let manifest = read_file(&dir.join("template.json"), None, MANIFEST_LIMIT);
        Self::with(dir, manifest, read_used)
    }

    fn with(dir: PathBuf, manifest: io::Result<Vec<u8>>, read: ReadFile) -> io::Result<Self> {
        let manifest = match manifest {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            bytes => {
                let bytes = bytes?;
                if [b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| bytes.starts_with(*mark))
                    || bytes.iter().take(2).any(|byte| *byte == 0)
                {
                    return Err(io::Error::other("it is in UTF-16: save it in UTF-8"));
                }
                // Some editors begin a file with a byte order mark.
                Some(Manifest::parse(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))?)
            }
        };
        Ok(Self { dir, manifest, read })
    }

    /// The folder to copy.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Compares the variables with what the template takes. A template without `template.json` takes anything.
    pub(crate) fn check(&self, variables: &Fields) -> Result<(), Failure> {
        let Some(Manifest { variables: schema }) = &self.manifest else { return Ok(()) };
        let problems = schema.problems_of_object("", variables);
        if problems.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = problems
            .into_iter()
            .map(|problem| format!("  * variable {}: {}", problem.at, problem.sentence))
            .collect();
        let message = format!("config_snapshot.variables do not fit the template:\n{}", list.join("\n"));
        Err(Failure::new(ErrorCode::ConfigInvalid, message))
    }

    /// The values of the variables that the template marks `sensitive`, here or in its own files, as they would appear in a
    /// log. The names in such a value are values too, but for those that the template itself writes: the attributes of an object.
    pub(crate) fn sensitive_values(&self, variables: &Fields) -> Vec<String> {
        let declared = Declared::in_folder(&self.dir, self.read);
        let mut secret: Vec<&Json> = Vec::new();
        for (name, value) in variables {
            match &self.manifest {
                _ if declared.hides(name) => secret.push(value),
                Some(manifest) => secret.extend(manifest.variables.secrets_of_property(name, value)),
                None => {}
            }
        }
        let text = |leaf: &Json| match leaf {
            Json::String(text) | Json::Number(text) => Some(text.clone()),
            _ => None,
        };
        let mut values: Vec<String> =
            secret.iter().flat_map(|value| value.leaves()).filter_map(text).collect();
        let names: BTreeSet<&str> = secret.iter().flat_map(|value| value.names()).collect();
        if !names.is_empty() {
            let is_written = |name: &&str| declared.writes(name) || self.describes(name);
            values.extend(names.into_iter().filter(|name| !is_written(name)).map(str::to_owned));
        }
        values
    }

    /// Whether `template.json` names such a property.
    fn describes(&self, name: &str) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.variables.describes(name))
    }
}

/// The template folders, sorted.
pub(crate) fn names(templates_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(templates_dir).into_iter().flatten().filter_map(Result::ok);
    let folders = entries.filter(|entry| entry.path().is_dir());
    let names: BTreeSet<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.into_iter().filter(|name| !name.starts_with('.')).collect()
}

/// A folder with at least one Terraform file.
pub(crate) fn is_template(path: &Path) -> bool {
    let is_terraform =
        |name: &str| [".tf", ".tf.json", ".tofu", ".tofu.json"].iter().any(|result| name.ends_with(result));
    fs::read_dir(path).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().to_str().is_some_and(is_terraform))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn template(manifest: &Value) -> (tempfile::TempDir, Template) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("hello")).unwrap();
        fs::write(dir.path().join("hello/template.json"), manifest.to_string()).unwrap();
        let template = Template::built_in(dir.path(), "hello").unwrap();
        (dir, template)
    }

    #[expect(clippy::needless_pass_by_value, reason = "tables have values")]
    fn object(value: Value) -> Fields {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn an_unknown_template_is_answered_with_the_known_ones() {
        let (dir, _) = template(&json!({}));
        let failure = Template::built_in(dir.path(), "nope").unwrap_err();
        assert_eq!(failure.code, ErrorCode::TemplateNotFound);
        assert_eq!(failure.message, "this agent has no template \"nope\": it has hello");
    }

    #[test]
    fn every_problem_of_the_variables_is_listed() {
        let manifest = json!({"variables": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
            "additionalProperties": false,
        }});
        let (_dir, template) = template(&manifest);
        let failure = template.check(&object(json!({"count": "three", "nmae": "x"}))).unwrap_err();
        assert_eq!(failure.code, ErrorCode::ConfigInvalid);
        for part in [
            "variable \"name\": is missing",
            "variable \"count\": must be an integer, and it is a string",
            "variable \"nmae\": is unknown; known are \"count\", \"name\"",
        ] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        template.check(&object(json!({"name": "x", "count": 3}))).unwrap();
    }

    #[test]
    fn sensitive_values_are_found_at_any_depth() {
        let manifest = json!({"variables": {"properties": {
            "login": {"type": "object", "sensitive": true},
            "name": {"type": "string"},
        }}});
        let (_dir, template) = template(&manifest);
        let values = template
            .sensitive_values(&object(json!({"login": {"user": "u1", "keys": ["k1", 42]}, "name": "n"})));
        assert_eq!(values.len(), 5);
        assert!(
            ["u1", "k1", "42", "user", "keys"].iter().all(|value| values.contains(&(*value).to_owned())),
            "{values:?}"
        );
    }

    #[test]
    fn a_mark_inside_a_variables_schema_hides_what_it_describes() {
        let text = |marks: &Value| json!({"type": "object", "properties": marks});
        let secret = json!({"type": "string", "sensitive": true});
        for (variables, value) in [
            (
                json!({"properties": {"db": text(&json!({"password": secret}))}}),
                json!({"password": "s3cret"}),
            ),
            (
                json!({"properties": {"db": text(&json!({"password": {"writeOnly": true}}))}}),
                json!({"password": "s3cret"}),
            ),
            (json!({"properties": {"db": {"type": "array", "items": secret}}}), json!(["s3cret"])),
            (
                json!({"properties": {"db": {"type": "object", "additionalProperties": secret}}}),
                json!({"a": "s3cret"}),
            ),
            (
                json!({"properties": {"db": {"items": text(&json!({"key": secret}))}}}),
                json!([{"key": "s3cret"}]),
            ),
            (json!({"additionalProperties": secret}), json!("s3cret")),
            (json!({"sensitive": true, "additionalProperties": true}), json!("s3cret")),
        ] {
            let (_dir, template) = template(&json!({"variables": variables}));
            assert_eq!(template.sensitive_values(&object(json!({"db": value}))), ["s3cret"], "{variables}");
        }
        let manifest =
            json!({"variables": {"properties": {"db": text(&json!({"password": secret, "user": {}}))}}});
        let (_dir, template) = template(&manifest);
        let values = template.sensitive_values(&object(json!({"db": {"password": "s3cret", "user": "u1"}})));
        assert_eq!(values, ["s3cret"], "what is beside it is no secret");
    }

    #[test]
    fn names_in_a_sensitive_map_are_hidden_but_for_those_that_the_template_writes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("bare/modules/m")).unwrap();
        let main = "variable \"logins\" {\n  type = map(object({ user = string }))\n  sensitive = true\n}\n";
        fs::write(dir.path().join("bare/main.tf"), main).unwrap();
        fs::write(dir.path().join("bare/modules/m/m.tf"), "output \"x\" { value = var.l.realm }").unwrap();
        let template = Template::built_in(dir.path(), "bare").unwrap();
        let logins = json!({"logins": {"tok_abcdef123456": {"user": "u1", "realm": "r1"}}});
        let mut values = template.sensitive_values(&object(logins));
        values.sort();
        assert_eq!(values, ["r1", "tok_abcdef123456", "u1"]);
    }

    #[test]
    fn a_byte_order_mark_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("template.json"), "\u{feff}{\"variables\": {\"required\": [\"a\"]}}")
            .unwrap();
        Template::open(dir.path().to_path_buf()).unwrap().check(&Fields::new()).unwrap_err();
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("template.json");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (opened, answer) = std::sync::mpsc::channel();
        let folder = dir.path().to_path_buf();
        std::thread::spawn(move || opened.send(Template::open(folder).unwrap_err().to_string()));
        let error = answer.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(error, "it is no file");
    }

    #[test]
    fn a_list_is_not_read_as_the_fields_of_an_object() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["[]", " [{\"properties\": {}}]"] {
            fs::write(dir.path().join("template.json"), text).unwrap();
            let error = Template::open(dir.path().to_path_buf()).unwrap_err().to_string();
            assert_eq!(error, "it is an array, and not an object");
        }
    }

    #[test]
    fn another_encoding_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{\"variables\": {}}", "\u{feff}{}"] {
            for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let content: Vec<u8> = text.encode_utf16().flat_map(bytes).collect();
                fs::write(dir.path().join("template.json"), content).unwrap();
                let error = Template::open(dir.path().to_path_buf()).unwrap_err().to_string();
                assert_eq!(error, "it is in UTF-16: save it in UTF-8");
            }
        }
    }

    #[test]
    fn what_the_templates_own_files_mark_is_sensitive_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bare")).unwrap();
        fs::write(dir.path().join("bare/main.tf"), "variable \"key\" {\n  sensitive = true\n}\n").unwrap();
        let template = Template::built_in(dir.path(), "bare").unwrap();
        assert_eq!(template.sensitive_values(&object(json!({"key": "k1", "name": "n"}))), ["k1"]);
    }
}
