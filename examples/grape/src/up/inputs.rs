//! Values of the templates' variables.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};

use super::journal::Record;
use crate::{
    cli,
    control_plane::catalogue::read_one,
    failure::{Failure, FailureKind, Result},
    variable::{
        schema::Schema,
        values::{Assignment, read_file, typed},
    },
};

/// Outputs that a variable of another name takes, where nothing else is given: the nodes live in the private subnets.
const ALIASES: [(&str, &str); 1] = [("subnet_ids", "private_subnet_ids")];

/// What the templates are given.
#[derive(Debug)]
pub(super) struct Inputs {
    /// By template.
    schemas: BTreeMap<String, Schema>,
    files: BTreeMap<String, Map<String, Value>>,
    assignments: BTreeMap<String, Vec<Assignment>>,
    /// What follows from the other options, by the names that the templates use.
    options: Map<String, Value>,
}

impl Inputs {
    /// Reads schemas and files, and gives each value to the templates that it is for.
    pub(super) fn read(options: &cli::Up, record: &Record, templates: &[String]) -> Result<Self> {
        let schemas = schemas(&options.templates_dir, templates)?;
        let mut inputs =
            Self { schemas, files: BTreeMap::new(), assignments: BTreeMap::new(), options: Map::new() };
        for file in &options.var_files {
            for (name, value) in read_file(file)? {
                for (template, name) in inputs.takers(&name)? {
                    inputs.files.entry(template).or_default().insert(name, value.clone());
                }
            }
        }
        for given in &options.vars {
            for (template, name) in inputs.takers(&given.name)? {
                inputs
                    .assignments
                    .entry(template)
                    .or_default()
                    .push(Assignment { name, text: given.text.clone() });
            }
        }
        let known = [
            ("name", Some(options.name.clone())),
            ("cluster_name", Some(options.name.clone())),
            ("region", record.region.clone()),
            ("agent_namespace", Some(record.namespace.clone())),
            ("agent_service_account", Some(record.release.clone())),
        ];
        inputs.options =
            known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
        Ok(inputs)
    }

    /// The templates that a variable is for: the one before the dot, or all that declare it.
    fn takers(&self, name: &str) -> Result<Vec<(String, String)>> {
        let declares = |template: &str, name: &str| {
            self.schemas
                .get(template)
                .is_some_and(|schema| schema.properties.contains_key(name) || !schema.is_closed())
        };
        let takers: Vec<_> = match name.split_once('.') {
            Some((template, name)) if declares(template, name) => {
                vec![(template.to_owned(), name.to_owned())]
            }
            Some(_) => Vec::new(),
            None => {
                let all = self.schemas.keys().filter(|template| declares(template, name));
                all.map(|template| (template.clone(), name.to_owned())).collect()
            }
        };
        if takers.is_empty() {
            let templates: Vec<_> = self.schemas.keys().map(String::as_str).collect();
            return Err(Failure::new(
                FailureKind::InvalidVariable,
                format!("`{name}` is a variable of none of the templates."),
            )
            .next(format!(
                "The templates are {}: the README of each lists its variables.",
                templates.join(", ")
            )));
        }
        Ok(takers)
    }

    /// The values of one template: what was given now, before outputs of the templates before it, before what was given last time.
    pub(super) fn of(
        &self,
        template: &str,
        before: Map<String, Value>,
        outputs: &Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let Some(schema) = self.schemas.get(template) else { return Ok(before) };
        let mut values: Map<String, Value> = before
            .into_iter()
            .filter(|(name, _)| schema.properties.contains_key(name) || !schema.is_closed())
            .collect();
        for name in schema.properties.keys() {
            let alias = ALIASES
                .iter()
                .find(|(variable, _)| variable == name)
                .and_then(|(_, output)| outputs.get(*output));
            if let Some(value) = outputs.get(name).or(alias).or_else(|| self.options.get(name)) {
                values.insert(name.clone(), value.clone());
            }
        }
        values.extend(self.files.get(template).cloned().unwrap_or_default());
        let assignments = self.assignments.get(template).map_or(&[][..], Vec::as_slice);
        let values = typed(Some(schema), vec![values], assignments)?;
        reachable(schema, &values)?;
        Ok(values)
    }
}

fn schemas(dir: &Path, templates: &[String]) -> Result<BTreeMap<String, Schema>> {
    let read = |name: &String| {
        let template = read_one(dir, name)?;
        let schema = serde_json::from_value(template.variables).map_err(|error| {
            Failure::new(
                FailureKind::Unexpected,
                format!("The schema of template {name} cannot be read: {error}"),
            )
        })?;
        Ok((name.clone(), schema))
    };
    templates.iter().map(read).collect()
}

/// Nothing can be installed into a cluster whose API cannot be reached: this fails before the twenty minutes of its creation.
fn reachable(schema: &Schema, values: &Map<String, Value>) -> Result<()> {
    const WAYS: [&str; 2] = ["public_access_cidrs", "private_access_cidrs"];
    let declared = WAYS.iter().all(|way| schema.properties.contains_key(*way));
    let open = WAYS
        .iter()
        .any(|way| values.get(*way).and_then(Value::as_array).is_some_and(|ranges| !ranges.is_empty()));
    if !declared || open {
        return Ok(());
    }
    Err(Failure::new(FailureKind::InvalidVariable, "Nobody could reach the API of the Kubernetes cluster, this machine neither.").next(
        "Set the allowed addresses: --var 'public_access_cidrs=[\"203.0.113.7/32\"]' with the address that your network shows to the internet,\nor --var 'private_access_cidrs=[\"10.8.0.0/16\"]' with the range of your VPN.",
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    fn templates() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates")
    }

    fn inputs(arguments: &[&str]) -> Result<Inputs> {
        let dir = templates().display().to_string();
        let message = ["grape", "up", "prod", "--region", "eu-central-1", "--templates-dir", &dir];
        let cli::Command::Up(options) = cli::Cli::parse_from(message.iter().chain(arguments)).command else {
            unreachable!()
        };
        let record = Record {
            project: String::new(),
            region: options.region.clone(),
            templates: super::super::TEMPLATES.map(str::to_owned).into(),
            context: None,
            kubeconfig: None,
            namespace: "tendril".to_owned(),
            release: "tendril-agent".to_owned(),
            cluster: None,
            rotating: false,
        };
        Inputs::read(&options, &record, &record.templates)
    }

    #[test]
    fn outputs_of_one_template_are_inputs_of_the_next() {
        let inputs = inputs(&["--var", "public_access_cidrs=[\"203.0.113.7/32\"]"]).unwrap();
        let vpc = inputs.of("vpc", Map::new(), &Map::new()).unwrap();
        assert_eq!(Value::Object(vpc), json!({ "name": "prod", "region": "eu-central-1" }));
        let mut outputs =
            json!({ "private_subnet_ids": ["subnet-1", "subnet-2"] }).as_object().unwrap().clone();
        let eks = inputs.of("eks-cluster", Map::new(), &outputs).unwrap();
        assert_eq!(eks["subnet_ids"], json!(["subnet-1", "subnet-2"]));
        assert_eq!(
            (&eks["agent_namespace"], &eks["agent_service_account"]),
            (&json!("tendril"), &json!("tendril-agent"))
        );
        outputs.insert("cluster_name".to_owned(), "prod-7".into());
        assert_eq!(inputs.of("eks-addons", Map::new(), &outputs).unwrap()["cluster_name"], "prod-7");
        assert_eq!(
            inputs.of("eks-node-group", Map::new(), &outputs).unwrap()["subnet_ids"],
            json!(["subnet-1", "subnet-2"])
        );
    }

    #[test]
    fn a_cluster_that_nobody_could_reach_is_not_made() {
        let outputs = json!({ "private_subnet_ids": ["subnet-1", "subnet-2"] }).as_object().unwrap().clone();
        let failure = inputs(&[]).unwrap().of("eks-cluster", Map::new(), &outputs).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::InvalidVariable);
        assert!(failure.next_step().unwrap().contains("public_access_cidrs"));
    }

    #[test]
    fn a_variable_goes_to_the_template_before_the_dot_or_to_all_that_declare_it() {
        let named = inputs(&["--var", "vpc.name=net", "--var", "tags={\"team\": \"1.10\"}"]).unwrap();
        let vpc = named.of("vpc", Map::new(), &Map::new()).unwrap();
        assert_eq!((&vpc["name"], &vpc["tags"]), (&json!("net"), &json!({ "team": "1.10" })));
        for wrong in ["nope=1", "vpc.nope=1", "rds.name=1"] {
            assert_eq!(
                inputs(&["--var", wrong]).unwrap_err().kind(),
                FailureKind::InvalidVariable,
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_was_given_last_time_stays_until_something_else_is_given() {
        let before = json!({ "cidr": "10.1.0.0/16", "nat": "none", "gone": 1 }).as_object().unwrap().clone();
        let vpc = inputs(&["--var", "nat=single"]).unwrap().of("vpc", before, &Map::new()).unwrap();
        assert_eq!(
            (&vpc["cidr"], &vpc["nat"], vpc.get("gone")),
            (&json!("10.1.0.0/16"), &json!("single"), None)
        );
    }
}
