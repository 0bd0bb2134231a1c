//! One world per test: a project, and a directory for everything that is made.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    agent::{AgentSetup, Executors},
    cluster::Cluster,
    program,
    project::{Project, connect},
};

/// A project and a scratch directory.
#[derive(Debug)]
pub struct World {
    /// Where Supabase is.
    pub project: Arc<Project>,
    /// The database, as its owner.
    pub database: Arc<tokio_postgres::Client>,
    /// Removed at the end.
    scratch: TempDir,
    /// Further scratch directories.
    opened: Mutex<Vec<PathBuf>>,
    /// Users to remove from a project that outlives the test.
    users: Mutex<Vec<Uuid>>,
}

impl World {
    /// Starts the stack, or finds the external one.
    ///
    /// The agent's program is made before, where it is stale: while Cargo works, a test's only thread stands still, and the
    /// stack in it would answer nobody.
    pub async fn start() -> Self {
        program::agent();
        Self::of(Project::start().await).await
    }

    /// Starts a local stack whose database has the migrations of this directory.
    pub async fn with_migrations(dir: &Path) -> Self {
        program::agent();
        Self::of(Project::with_migrations(dir).await).await
    }

    /// Starts a local stack whose Edge Functions have this variable.
    pub async fn with_function_secret(name: &str, value: &str) -> Self {
        Self::of(Project::with_function_secret(name, value).await).await
    }

    async fn of(project: Project) -> Self {
        let database = Arc::new(project.database().await);
        let scratch = tempfile::tempdir().expect("a scratch directory");
        Self {
            project: Arc::new(project),
            database,
            scratch,
            opened: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// A new user with a new cluster.
    pub async fn cluster(&self) -> Cluster {
        let (user, id) = (Uuid::new_v4(), Uuid::new_v4());
        let email = format!("{user}@tests.invalid");
        self.users.lock().unwrap().push(user);
        let add_user =
            "insert into auth.users (id, aud, role, email) values ($1, 'authenticated', 'authenticated', $2)";
        self.database.execute(add_user, &[&user, &email]).await.expect("a user");
        let add_cluster = "insert into public.clusters (id, user_id, name) values ($1, $2, 'test')";
        self.database.execute(add_cluster, &[&id, &user]).await.expect("a cluster");
        Cluster { id, user, project: Arc::clone(&self.project), database: Arc::clone(&self.database) }
    }

    /// One more cluster of the same user.
    pub async fn cluster_of(&self, owner: &Cluster) -> Cluster {
        let id = Uuid::new_v4();
        let add = "insert into public.clusters (id, user_id, name) values ($1, $2, 'test')";
        self.database.execute(add, &[&id, &owner.user]).await.expect("a cluster");
        Cluster { id, ..owner.clone() }
    }

    /// An agent of a cluster, not started yet. It has a work directory of its own, the states of its cluster, and carries the templates of the fixtures.
    pub fn agent(&self, cluster: &Cluster) -> AgentSetup {
        let dir = self.scratch.path().join(format!("agent-{}", Uuid::new_v4()));
        // The agents of a cluster share its states, as they would on one volume.
        let states = self.scratch.path().join(format!("states-{}", cluster.id));
        AgentSetup::new(&self.project, &dir, &states, cluster.machine_token())
    }

    /// A directory of its own, removed at the end, that is not below a place of all users and that everybody may enter.
    pub fn open_scratch(&self) -> TempDir {
        let target = std::env::current_exe().expect("this program's path");
        let dir = tempfile::tempdir_in(target.parent().expect("a directory")).expect("a scratch directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("permissions");
        self.opened.lock().unwrap().push(dir.path().to_owned());
        dir
    }

    /// A path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // They outlive their agents, and would try for ever to reach a stack that is gone.
        for dir in self.opened.lock().unwrap().iter().map(PathBuf::as_path).chain([self.scratch.path()]) {
            Executors { work_dir: dir.to_owned() }.end();
        }
        let users = std::mem::take(&mut *self.users.lock().unwrap());
        if self.project.is_external() && !users.is_empty() {
            let url = self.project.database_url.clone();
            // A runtime of its own: this one may be about to end, and cannot be waited on from here.
            let removal = std::thread::spawn(move || remove(&url, &users));
            if removal.join().is_err() {
                eprintln!("the test's users are still in the external database");
            }
        }
    }
}

/// Clusters, deployments and logs go with their user.
fn remove(url: &str, users: &[Uuid]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = connect(url).await;
        database.execute("delete from auth.users where id = any($1)", &[&users]).await.unwrap();
    });
}

/// A terraform whose first so many `init` begin in one moment, wherever they run; in this directory.
pub fn terraform_that_begins_together(dir: &Path, count: usize) -> PathBuf {
    let (program, inits) = (dir.join("terraform-together"), dir.join("inits"));
    fs::create_dir(&inits).expect("a directory");
    let (inits, gate) = (inits.display(), dir.join("all-inits"));
    let gate = gate.display();
    // The last one opens the gate; nobody waits for more than ten seconds.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = init ] && ! [ -e '{gate}' ]; then\n  mktemp '{inits}'/XXXXXX >&2\n  turn=0\n  until [ -e '{gate}' ] || [ $turn = 1000 ]; do\n    \
         [ \"$(ls '{inits}' | wc -l)\" -lt {count} ] || : >'{gate}'\n    turn=$((turn + 1))\n    sleep 0.01\n  done\nfi\nexec terraform \"$@\"\n"
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    program
}

/// A path in this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join(path)
}

/// A path in `tests/fixtures`.
pub fn fixtures(path: &str) -> PathBuf {
    repository("tests/fixtures").join(path)
}
