//! A deployment as its owner sees it: queued, followed, cancelled over REST with the user's own token.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tendril_realtime::{Error, Rest, watch::Query};
use uuid::Uuid;

/// The columns that are read: rights are per column, so they have to be named.
pub const COLUMNS: &str =
    "id,status,phase,attempt,created_at,claimed_at,finished_at,outputs,log_count,error_code,error_message";

/// A row of `deployments`.
#[derive(Debug, Clone, Deserialize)]
pub struct Deployment {
    /// Made by the client that queues it.
    pub id: Uuid,
    /// `QUEUED`, `PROCESSING`, `SUCCESS`, `FAILED` or `CANCELLED`.
    pub status: String,
    /// Where a claimed job is, or where it ended.
    pub phase: Option<String>,
    /// How often it was claimed.
    pub attempt: i32,
    /// When it was queued, by the database's clock as all times here.
    pub created_at: Timestamp,
    /// When the last attempt began.
    pub claimed_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What the template put out, without the sensitive values.
    #[serde(default)]
    pub outputs: Option<Map<String, Value>>,
    /// How many chunks of log the last attempt has; written with the final status.
    pub log_count: i64,
    /// The code of its failure.
    pub error_code: Option<String>,
    /// Why it failed, in a sentence.
    #[serde(default)]
    pub error_message: Option<String>,
}

impl Deployment {
    /// Whether no more will happen.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "SUCCESS" | "FAILED" | "CANCELLED")
    }

    /// Whether it ended as it should.
    pub fn succeeded(&self) -> bool {
        self.status == "SUCCESS"
    }

    /// How long after it was queued that was, by the database's clock.
    pub fn since_queued(&self, time: Timestamp) -> Duration {
        time.duration_since(self.created_at).try_into().unwrap_or_default()
    }

    /// The one row with this id, to watch.
    pub fn query(id: Uuid) -> Query {
        Query::table("deployments").select(COLUMNS).immutable_eq("id", id)
    }
}

/// What to run: the column `config_snapshot`.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// A template in the agent's folder.
    pub template: String,
    /// `plan`, `apply` or `destroy`.
    pub action: String,
    /// Which state the run works on; the agent's default without one.
    pub stack: Option<String>,
    /// Values of the template's variables.
    pub variables: Map<String, Value>,
}

impl Order {
    /// The order in the database's form.
    pub fn snapshot(&self) -> Value {
        let mut snapshot =
            json!({ "template": self.template, "action": self.action, "variables": self.variables });
        if let Some(stack) = &self.stack {
            snapshot["stack"] = stack.as_str().into();
        }
        snapshot
    }

    /// Queues it for a cluster. The id is made by the caller, who can so listen before anything happens.
    ///
    /// # Errors
    /// Errors of the database: `42501` where the cluster is not the caller's, `23514` where the order breaks a rule.
    pub async fn queue(&self, rest: &Rest, id: Uuid, cluster: Uuid) -> Result<(), Error> {
        let row = json!({ "id": id, "cluster_id": cluster, "config_snapshot": self.snapshot() });
        rest.from("deployments").insert(&row).execute().await.map(drop)
    }
}

/// Requests the cancellation of a deployment. Harmless when it has ended.
///
/// # Errors
/// Errors of the database.
pub async fn cancel(rest: &Rest, id: Uuid) -> Result<(), Error> {
    // Any time will do: the database sets its own.
    let cancel = json!({ "cancel_requested_at": "now" });
    rest.from("deployments").update(&cancel).eq("id", id).idempotent(true).execute().await.map(drop)
}

/// Reads `name=value`. The value is JSON where that preserves what is written (`3`, `true`, `["a"]`, `"3"`), otherwise text: `1.10`,
/// `51e5`, `null` and numbers of more digits than JSON's readers store stay as they are, as they do with `terraform -var`.
///
/// # Errors
/// A sentence, if there is no name, or if a number inside a list or an object would be changed.
pub fn variable(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), faithful(value)?)),
        _ => Err(format!("`{text}` has no name: write name=value")),
    }
}

/// The value that prints back as it was written, or the text itself.
fn faithful(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Null) | Err(_) => Ok(Value::from(text)),
        Ok(number @ Value::Number(_)) => Ok(if keeps_spelling(text) { number } else { text.into() }),
        Ok(value @ (Value::Array(_) | Value::Object(_))) => match changed_number(text) {
            Some(number) => {
                Err(format!("`{number}` would not keep its spelling as a number: write \"{number}\""))
            }
            None => Ok(value),
        },
        Ok(value) => Ok(value),
    }
}

/// Whether a number of JSON is printed by its readers, and by Terraform where it becomes text, as it is written here.
fn keeps_spelling(number: &str) -> bool {
    let printed = serde_json::from_str::<Value>(number).map(|value| value.to_string());
    // Terraform prints neither an exponent nor a fraction of nothing.
    !number.ends_with(".0") && !number.contains('e') && printed.is_ok_and(|printed| printed == number)
}

/// The first number of a JSON text, outside its strings, that does not print back as it is written.
fn changed_number(json: &str) -> Option<&str> {
    let (mut in_string, mut escaped, mut start) = (false, false, None);
    for (at, character) in json.char_indices() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        let is_part = character.is_ascii_digit()
            || matches!(character, '-' | '+' | '.')
            || (start.is_some() && matches!(character, 'e' | 'E'));
        match start {
            None if is_part => start = Some(at),
            Some(from) if !is_part => {
                let number = &json[from..at];
                if !keeps_spelling(number) {
                    return Some(number);
                }
                start = None;
            }
            _ => {}
        }
        in_string = character == '"';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_json_where_it_can_be_and_text_otherwise() {
        assert_eq!(variable("lines=12").unwrap(), ("lines".to_owned(), json!(12)));
        assert_eq!(variable("zones=[\"a\"]").unwrap(), ("zones".to_owned(), json!(["a"])));
        assert_eq!(variable("name=a=b c").unwrap(), ("name".to_owned(), json!("a=b c")));
        assert_eq!(variable("name=\"12\"").unwrap(), ("name".to_owned(), json!("12")));
        assert_eq!(variable("name=").unwrap(), ("name".to_owned(), json!("")));
        assert!(variable("=1").is_err());
        assert!(variable("name").unwrap_err().contains("name=value"));
    }

    #[test]
    fn text_that_looks_like_a_number_keeps_its_spelling() {
        for text in [
            "1.10",
            "1.0",
            "-0",
            "-0.0",
            "51e5",
            "1e-7",
            "1E3",
            "12345678901234567890123",
            "0.1000",
            "null",
            "007",
            "+1",
            " 1",
            "1 ",
            "1_000",
            "0x10",
            "NaN",
            "Infinity",
            "True",
            "a=b=c",
            "",
            "1e400",
            "18446744073709551616",
            "0.30000000000000004441",
        ] {
            let (_, value) = variable(&format!("s={text}")).unwrap();
            assert_eq!(value, json!(text), "{text}");
        }
        for text in ["0", "-1", "12", "18446744073709551615", "0.1", "-2.5", "true", "false"] {
            let (_, value) = variable(&format!("s={text}")).unwrap();
            assert!(!value.is_string(), "{text}");
            assert_eq!(value.to_string(), text);
        }
        for text in ["[1.10]", "{\"a\": [1, 51e5]}", "[ 12345678901234567890123 ]", "[\"\\\"\",1.0]"] {
            let problem = variable(&format!("s={text}")).unwrap_err();
            assert!(problem.contains("would not keep"), "{problem}");
        }
        assert_eq!(variable("s=[\"1.10\", 2]").unwrap().1, json!(["1.10", 2]));
    }

    #[test]
    fn an_order_names_its_stack_only_if_it_has_one() {
        let order = Order { template: "hello".to_owned(), action: "apply".to_owned(), ..Order::default() };
        assert_eq!(order.snapshot(), json!({ "template": "hello", "action": "apply", "variables": {} }));
        let order = Order { stack: Some("prod".to_owned()), ..order };
        assert_eq!(order.snapshot()["stack"], "prod");
    }
}
