//! How an agent learns of its jobs.

use uuid::Uuid;

/// How jobs are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Intake {
    /// By broadcasts where the database sends them, otherwise by row changes; by polling while neither comes.
    #[default]
    Auto,
    /// Realtime's changes of the table.
    PostgresChanges,
    /// Broadcasts of the database on a private channel of the cluster.
    Broadcast,
}

impl Intake {
    /// Errors: what to write instead.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, String> {
        let ways = [Self::Auto, Self::PostgresChanges, Self::Broadcast];
        let text = text.unwrap_or(Self::default().name());
        ways.into_iter().find(|way| way.name() == text).ok_or_else(|| {
            format!("--intake / TENDRIL_INTAKE is \"{text}\": write \"auto\", \"postgres_changes\" or \"broadcast\"")
        })
    }

    /// As it is written in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::PostgresChanges => "postgres_changes",
            Self::Broadcast => "broadcast",
        }
    }

    /// The way that is tried first.
    pub(crate) fn first_way(self) -> Way {
        if self == Self::PostgresChanges { Way::PostgresChanges } else { Way::Broadcast }
    }
}

/// The way that is in use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// Broadcasts.
    #[default]
    Broadcast,
    /// Row changes.
    PostgresChanges,
}

impl Way {
    /// As `/status` shows it; while no events come, jobs are found by polling.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::PostgresChanges => "postgres_changes",
        }
    }
}

/// The private channel on which the database announces a cluster's jobs, and the name of its messages.
pub(crate) fn broadcasts(cluster_id: Uuid) -> (String, &'static str) {
    (format!("cluster:{cluster_id}"), "deployment")
}

/// How to fix a database that sends no broadcasts, where nothing else may be used.
pub(crate) const NO_BROADCASTS: &str = "this database does not announce jobs to agents by broadcast: apply the newest supabase/migrations to it, and see \
    supabase/README.md (Many clusters) for what may be missing; or use --intake auto or postgres_changes. Until then jobs are found by polling";

/// What a person runs who may do more in the schema `realtime` than the owner of the migrations.
pub(crate) const INSTALL_BROADCASTS: &str = "select tendril.install_broadcasts();\n\
    -- It answers nothing when all is well. If the answer is \"permission denied\", run this as the owner of realtime.messages:\n\
    create policy \"An agent receives broadcasts of its cluster\" on realtime.messages for select to tendril_agent\n  \
    using (extension = 'broadcast' and (select realtime.topic()) = 'cluster:' || (select tendril.agent_cluster_id()));\n\
    grant anon to tendril_agent;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_none_is_refused_with_those_that_are() {
        assert_eq!(Intake::read(None), Ok(Intake::Auto));
        for way in [Intake::Auto, Intake::PostgresChanges, Intake::Broadcast] {
            assert_eq!(Intake::read(Some(way.name())), Ok(way));
        }
        let problem = Intake::read(Some("fax")).unwrap_err();
        assert!(
            problem.contains("\"fax\": write \"auto\", \"postgres_changes\" or \"broadcast\""),
            "{problem}"
        );
    }
}
