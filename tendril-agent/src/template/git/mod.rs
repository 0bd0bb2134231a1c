//! Templates from Git: a folder of a repository, at a commit, as files.
//!
//! `checkout` does it in three steps:
//!
//! ```text
//! resolve   which commit a branch, a tag or the default branch is now       (one question to the server)
//! fetch     that commit and its folders into the mirror, without any file   (nothing, if it is there)
//! check out the files of the one folder                                     (only those are downloaded)
//! ```
//!
//! The server, the repository and the user's request are all untrusted: `source` decides what may be requested, `allow_list` which
//! hosts, `command` what Git may do, and the files are checked before they are used.

mod allow_list;
mod checkout;
mod command;
mod fault;
mod mirror;
mod settings;

pub use self::settings::GitSettings;
pub(crate) use self::{
    checkout::Checkout,
    command::Console,
    mirror::{root, sweep},
    settings::{Written, git_version},
};
