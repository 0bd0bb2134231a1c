//! Arguments of the commands about sessions, profiles and clusters.

use clap::{Args, Subcommand};

use crate::session::{auth::checked_key, profile::checked_name};

/// Sign in.
#[derive(Debug, Args)]
pub struct Login {
    /// Base URL of the project, such as <https://abcd.supabase.co>.
    #[arg(long, env = "SUPABASE_URL")]
    pub url: Option<String>,
    /// The project's publishable (or anon) key.
    #[arg(long, env = "SUPABASE_PUBLISHABLE_KEY", value_parser = checked_key)]
    pub key: Option<String>,
    /// The address to sign in with.
    #[arg(long, env = "GRAPE_EMAIL")]
    pub email: Option<String>,
    /// Read the password from stdin instead of prompting for it.
    #[arg(long)]
    pub password_stdin: bool,
    /// Base URL of the portal, for `grape open`.
    #[arg(long, value_name = "URL", env = "GRAPE_PORTAL_URL")]
    pub portal: Option<String>,
}

/// Profiles.
#[derive(Debug, Args)]
pub struct Profiles {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub action: Option<ProfileAction>,
}

/// What to do with a profile.
#[derive(Debug, Subcommand)]
pub enum ProfileAction {
    /// Make a profile the current one.
    Use {
        /// Its name.
        #[arg(value_parser = checked_name)]
        name: String,
        /// Which cluster is meant where none is named.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Sign out, and delete the profile.
    Remove {
        /// Its name.
        #[arg(value_parser = checked_name)]
        name: String,
    },
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct OfCluster {
    /// Name or id of a cluster.
    #[arg(long, short, value_name = "NAME", env = "TENDRIL_CLUSTER")]
    pub cluster: Option<String>,
}

/// Clusters and their keys.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Add a cluster, and print the API key of its agents, this once.
    Create {
        /// Its name.
        name: String,
        /// Do not make a key yet.
        #[arg(long)]
        no_key: bool,
    },
    /// Show the state of a cluster and its keys.
    Show {
        /// Name or id.
        name: String,
    },
    /// Create a second key, and print it, this once; both keys work.
    Rotate {
        /// Name or id.
        name: String,
    },
    /// End a rotation: the next key becomes the only one.
    Promote {
        /// Name or id.
        name: String,
        /// Also if no agent has used the next key yet: agents with the old one lose access.
        #[arg(long)]
        unused: bool,
    },
    /// Revoke the keys of a cluster; its agents lose access within 15 minutes.
    Revoke {
        /// Name or id.
        name: String,
        /// Shut its agents out at once and for ever: the cluster cannot be used again.
        #[arg(long)]
        forever: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}
