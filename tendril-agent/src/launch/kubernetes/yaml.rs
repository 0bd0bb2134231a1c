//! Files that people write in YAML or JSON, with the types of Kubernetes in them.
//!
//! They are read by way of JSON, which objects of the cluster are read from anyway: a second reader of every field of a pod would be a
//! sixth of the program.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Fields that are texts and look like numbers or booleans.
const TEXTS: &[&str] = &["value", "sizeLimit"];
/// Fields whose fields are such texts.
const MAPS_OF_TEXTS: &[&str] =
    &["annotations", "labels", "limits", "matchLabels", "nodeSelector", "overhead", "requests"];

/// Reads a text; nothing is read from an empty one. Errors: what is wrong with it, in one line.
pub(super) fn read<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    if value.is_null() {
        return Ok(T::default());
    }
    quote_scalars(&mut value);
    serde_json::from_str(&value.to_string()).map_err(|error| {
        let text = error.to_string();
        // The place is one in the JSON.
        text.split(" at line ").next().unwrap_or_default().to_owned()
    })
}

/// Makes texts of the numbers and booleans that people write without quotes where texts are meant, such as `cpu: 2`.
fn quote_scalars(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if TEXTS.contains(&name.as_str()) {
                    quote(value);
                } else if MAPS_OF_TEXTS.contains(&name.as_str())
                    && let Value::Object(texts) = value
                {
                    texts.values_mut().for_each(quote);
                } else {
                    quote_scalars(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(quote_scalars),
        _ => {}
    }
}

fn quote(value: &mut Value) {
    if matches!(value, Value::Number(_) | Value::Bool(_)) {
        *value = Value::String(value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;

    use super::*;

    #[test]
    fn a_pod_template_is_read_as_people_write_it() {
        let text = "
metadata:
  annotations: {example.com/restarts: 3, example.com/on: true}
spec:
  terminationGracePeriodSeconds: 30
  containers:
    - name: run
      env: [{name: PORT, value: 8080}, {name: DEBUG, value: true}]
      resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 2.5}}
  tolerations: [{key: spot, value: true}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1000}}]
";
        let template: PodTemplateSpec = read(text).unwrap();
        let json = serde_json::to_value(&template).unwrap();
        let run = &json["spec"]["containers"][0];
        assert_eq!(json["metadata"]["annotations"]["example.com/on"], "true");
        assert_eq!(json["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!((&run["env"][0]["value"], &run["env"][1]["value"]), (&"8080".into(), &"true".into()));
        assert_eq!(run["resources"]["requests"]["cpu"], "2");
        assert_eq!(run["resources"]["limits"]["cpu"], "2.5");
        assert_eq!(json["spec"]["tolerations"][0]["value"], "true");
        assert_eq!(json["spec"]["volumes"][0]["emptyDir"]["sizeLimit"], "1000");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let why = read::<PodTemplateSpec>("spec: {containers: 3}").unwrap_err();
        assert_eq!(why, "invalid type: integer `3`, expected a sequence");
        let why = read::<PodTemplateSpec>("spec: [").unwrap_err();
        assert!(!why.is_empty() && !why.contains('\n'), "{why}");
    }
}
