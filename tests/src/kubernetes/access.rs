//! Who asks, and what a Role lets them do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use super::{status::Refusal, store::NAMESPACE};

/// The rights of the agent, as the chart's Role gives them: (API group, resource, verbs).
pub const AGENT_ROLE: &[(&str, &str, &[&str])] = &[
    ("batch", "jobs", &["create", "get", "list", "watch", "delete"]),
    ("", "pods", &["list", "watch"]),
    ("", "secrets", &["create"]),
    ("", "events", &["list"]),
    ("coordination.k8s.io", "leases", &["create", "get", "update"]),
    // Of one account: a `:` stands before the name of the only object that is meant.
    ("", "serviceaccounts/token:tendril-plans", &["create"]),
];

/// The bearer tokens and rights of the cluster's users.
#[derive(Debug, Default)]
pub(super) struct Access {
    users: Mutex<BTreeMap<String, User>>,
}

/// Who somebody is, and their rights as (group, resource, verb); an administrator needs none.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    is_admin: bool,
    rights: BTreeSet<(String, String, String)>,
    /// The pod that its token ends with: name and uid.
    pub(super) pod: Option<(String, String)>,
}

impl User {
    fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), is_admin: false, rights: BTreeSet::new(), pod: None }
    }

    /// The account's name without its namespace.
    pub(super) fn account(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// `name` is empty where none was asked for.
    pub(super) fn may(
        &self,
        group: &str,
        resource: &str,
        verb: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> bool {
        let has = |resource: String| self.rights.contains(&(group.to_owned(), resource, verb.to_owned()));
        let is_here = namespace == Some(NAMESPACE);
        self.is_admin || is_here && (has(resource.to_owned()) || has(format!("{resource}:{name}")))
    }

    /// Refuses what is not allowed. `name` is empty where none was asked for.
    pub(super) fn check(
        &self,
        group: &str,
        resource: &str,
        verb: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), Refusal> {
        if self.may(group, resource, verb, namespace, name) {
            return Ok(());
        }
        let place = match namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        Err(Refusal::no_right(&self.name, verb, resource, group, name, &place))
    }
}

impl Access {
    pub(super) fn admin(&self, token: &str) {
        let user = User { name: "admin".to_owned(), is_admin: true, rights: BTreeSet::new(), pod: None };
        self.users().insert(token.to_owned(), user);
    }

    /// A service account with a Role.
    pub(super) fn account(&self, token: &str, account: &str, role: &[(&str, &str, &[&str])]) {
        let rights = role.iter().flat_map(|(group, resource, verbs)| {
            verbs.iter().map(|verb| ((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned()))
        });
        let name = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let user = User { name, is_admin: false, rights: rights.collect(), pod: None };
        self.users().insert(token.to_owned(), user);
    }

    /// One more token of an account that has one.
    pub(super) fn token_of(&self, account: &str, token: &str, pod: Option<(String, String)>) {
        let mut users = self.users();
        let user = users.values().find(|user| user.account() == account && !user.is_admin).cloned();
        let user = user.unwrap_or_else(|| User {
            name: format!("system:serviceaccount:{NAMESPACE}:{account}"),
            ..User::anonymous()
        });
        users.insert(token.to_owned(), User { pod, ..user });
    }

    /// Gives or takes a right of the account with this token.
    pub(super) fn set(&self, token: &str, (group, resource, verb): (&str, &str, &str), has: bool) {
        let mut users = self.users();
        let user = users.get_mut(token).expect("a user with this token");
        let right = (group.to_owned(), resource.to_owned(), verb.to_owned());
        if has {
            user.rights.insert(right);
        } else {
            assert!(user.rights.remove(&right), "{resource} {verb} is a right that can be taken");
        }
    }

    /// Makes a token invalid.
    pub(super) fn revoke(&self, token: &str) {
        self.users().remove(token);
    }

    /// Who has this `Authorization` header.
    pub(super) fn identify(&self, header: Option<&str>) -> Result<User, Refusal> {
        let Some(header) = header else { return Ok(User::anonymous()) };
        let token = header.strip_prefix("Bearer ").unwrap_or_default();
        self.users().get(token).cloned().ok_or_else(Refusal::unauthorized)
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.users.lock().expect("nobody panics while holding it")
    }
}
