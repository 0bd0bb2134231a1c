//! Where a job's files come from, and the directory that Terraform works in.
//!
//! `execute` lays out a workspace with it. It runs the program `git` through `process`.
//!
//! ```text
//! definition   a template: Terraform files and `template.json`
//! declared     which variables the files themselves mark as sensitive
//! catalogue    the templates that this agent carries
//! git/         templates from a Git repository
//! workspace    the private directory of one attempt
//! ```

mod catalogue;
mod declared;
mod definition;
pub(crate) mod git;
mod workspace;

pub(crate) use self::{
    catalogue::{CatalogueEntry, catalogue},
    definition::{Template, is_template, names},
    workspace::{BACKEND_FILE, Workspace, remove_set_aside},
};
