//! The templates that a cluster can run, and the schema of their variables.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::project::{Project, variable};
use crate::failure::{Failure, FailureKind, Result};

/// A template.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Template {
    /// What a deployment calls it.
    pub name: String,
    /// A short description.
    #[serde(default)]
    pub title: Option<String>,
    /// A sentence for people.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of its variables.
    #[serde(default)]
    pub variables: Value,
    /// When the agent published it; nothing for one that was read from a directory.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

/// What is known of a cluster's templates.
#[derive(Debug, Clone)]
pub enum Catalogue {
    /// These templates and no others.
    Known(Vec<Template>),
    /// Its agents have published nothing (yet).
    Unknown,
}

impl Catalogue {
    /// What the cluster's agents have published; where a directory is named (`--templates-dir`, `TENDRIL_TEMPLATES_DIR`), what is
    /// in there instead.
    ///
    /// # Errors
    /// What the project answers; a directory that holds no templates.
    pub async fn of(project: &Project, cluster: Uuid, dir: Option<&Path>) -> Result<Self> {
        let dir = dir.map(Path::to_owned).or_else(|| variable("TENDRIL_TEMPLATES_DIR").map(PathBuf::from));
        if let Some(dir) = dir {
            return Ok(Self::Known(read_dir(&dir)?));
        }
        if !project.has_stacks().await? {
            return Ok(Self::Unknown);
        }
        let rows =
            project.rest().from("cluster_templates").select("name,title,description,variables,updated_at");
        match rows.eq("cluster_id", cluster).order("name").rows::<Template>().await {
            Ok(rows) if rows.is_empty() => Ok(Self::Unknown),
            Ok(rows) => Ok(Self::Known(rows)),
            Err(error) if matches!(error.code(), "PGRST205" | "42P01") => Ok(Self::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// The template with this name; nothing where the catalogue is not known.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] with the names that there are.
    pub fn find(&self, name: &str) -> Result<Option<&Template>> {
        let Self::Known(templates) = self else { return Ok(None) };
        if let Some(template) = templates.iter().find(|template| template.name == name) {
            return Ok(Some(template));
        }
        let names: Vec<_> = templates.iter().map(|template| template.name.as_str()).collect();
        Err(Failure::new(FailureKind::NotFound, format!("There is no template `{name}`."))
            .next(format!("There are: {}. `grape templates` describes each.", names.join(", "))))
    }
}

/// The file `template.json` in a template's directory.
#[derive(Deserialize)]
struct TemplateFile {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    variables: Value,
}

/// One template of a directory of templates.
///
/// # Errors
/// [`FailureKind::NotFound`] where there is none of that name.
pub fn read_one(dir: &Path, name: &str) -> Result<Template> {
    let place = dir.join(name);
    if !place.is_dir() {
        return Err(Failure::new(
            FailureKind::NotFound,
            format!("There is no template `{name}` in {}.", dir.display()),
        )
        .next("Name the directory that has it with --templates-dir."));
    }
    let path = place.join("template.json");
    let read = fs::read(&path).map_err(|error| error.to_string());
    let file: TemplateFile =
        read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())).map_err(
            |why| Failure::new(FailureKind::NotFound, format!("{} cannot be read: {why}", path.display())),
        )?;
    let TemplateFile { title, description, variables } = file;
    Ok(Template { name: name.to_owned(), title, description, variables, updated_at: None })
}

/// The templates of a directory, by name. Folders without a `template.json` are none.
fn read_dir(dir: &Path) -> Result<Vec<Template>> {
    let entries = fs::read_dir(dir).map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("The directory of templates, {}, cannot be read: {error}.", dir.display()),
        )
        .next("Name it with --templates-dir or TENDRIL_TEMPLATES_DIR.")
    })?;
    let mut templates = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("template.json").is_file()
            && let Some(name) = entry.file_name().to_str()
        {
            templates.insert(name.to_owned(), read_one(dir, name)?);
        }
    }
    if templates.is_empty() {
        return Err(Failure::new(FailureKind::Usage, format!("{} holds no template.", dir.display()))
            .next("A template is a folder with a template.json and *.tf files."));
    }
    Ok(templates.into_values().collect())
}
