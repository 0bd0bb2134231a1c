//! The first `init` of several states in one new `pg` database: each of them creates what all share, and PostgreSQL lets one of them win.
//!
//! `CREATE … IF NOT EXISTS`, as Terraform's backend sends it, is not safe against itself: whoever comes second in the same moment
//! gets an error about the catalogue of the database. The same command succeeds once the other one is done.

use std::time::Duration;

use super::{backend::Kind, lock::words};

/// How often a step is begun, at most.
pub(crate) const TRIES: u32 = 6;
/// The longest pause before the second try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Somebody else created the same object of the database in the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreationRace {
    /// A schema.
    Schema,
    /// A table, an index or a sequence.
    Relation,
    /// The type that belongs to a table.
    Type,
}

impl CreationRace {
    const ALL: [Self; 3] = [Self::Schema, Self::Relation, Self::Type];

    /// The constraint of PostgreSQL's catalogue that fails then. No name of a user can be one of these.
    const fn constraint(self) -> &'static str {
        match self {
            Self::Schema => "pg_namespace_nspname_index",
            Self::Relation => "pg_class_relname_nsp_index",
            Self::Type => "pg_type_typname_nsp_index",
        }
    }

    /// Reads Terraform's error.
    pub(crate) fn read(error: &str, kind: Kind) -> Option<Self> {
        if kind != Kind::Pg {
            return None;
        }
        let said = words(error);
        Self::ALL.into_iter().find(|race| {
            let constraint = race.constraint();
            said.contains(&format!("duplicate key value violates unique constraint \"{constraint}\""))
        })
    }

    /// What was created, for people.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Schema => "a schema",
            Self::Relation | Self::Type => "the tables",
        }
    }
}

/// How long to wait before this try, the second at least: at random, so that those who met do not meet again.
pub(crate) fn pause(next_try: u32) -> Duration {
    let longest = FIRST_PAUSE * 2_u32.saturating_pow(next_try.saturating_sub(2));
    longest.mul_f64(fastrand::f64().mul_add(0.75, 0.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Terraform 1.11 prints it, in lines of 78 letters.
    const ERROR: &str = "Error initializing backend\n\npq: duplicate key value violates unique constraint\n\"pg_class_relname_nsp_index\"";

    #[test]
    fn only_the_catalogue_of_a_pg_backend_is_meant() {
        assert_eq!(CreationRace::read(ERROR, Kind::Pg), Some(CreationRace::Relation));
        for kind in [Kind::Local, Kind::S3, Kind::Http, Kind::Kubernetes] {
            assert_eq!(CreationRace::read(ERROR, kind), None);
        }
        for other in [
            "pq: duplicate key value violates unique constraint \"states_by_name\"",
            "pq: permission denied for schema pg_class_relname_nsp_index",
            "pq: relation \"pg_class_relname_nsp_index\" does not exist",
        ] {
            assert_eq!(CreationRace::read(other, Kind::Pg), None, "{other}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_short() {
        let together: Duration = (2..=TRIES).map(pause).sum();
        assert!(together < Duration::from_secs(10), "{together:?}");
        for next_try in 2..=TRIES {
            let longest = FIRST_PAUSE * 2_u32.pow(next_try - 2);
            assert!((longest / 4..=longest).contains(&pause(next_try)));
        }
    }
}
