//! Where a job's files come from, and the directory that Terraform works in.
//!
//! `execute` lays out a workspace with it. It runs the program `git` through `process`.
//!
//! ```text
//! definition           a template: Terraform files and `template.json`
//! declared_variables   which variables the files themselves mark as sensitive
//! root_module          which files the program reads, and which versions of it they require
//! hcl                  the tokens of Terraform's language
//! tf_json              its JSON form
//! catalogue            the templates that this agent carries
//! git/                 templates from a Git repository
//! copy                 the copy of a template into a workspace
//! generated            the names of the files that the agent generates
//! slots                which run has which user, where the agent is root
//! workspace            the private directory of one attempt
//! ```

mod catalogue;
mod copy;
mod declared_variables;
mod definition;
mod generated;
pub(crate) mod git;
pub(crate) mod hcl;
mod root_module;
mod slots;
mod tf_json;
mod workspace;

pub(crate) use self::{
    catalogue::{CatalogueEntry, catalogue},
    definition::{Template, is_template, names},
    generated::BACKEND_FILE,
    root_module::RootModule,
    slots::SLOTS,
    workspace::{Workspace, remove_set_aside},
};
