//! One database, and how its roles are reached.

use std::fmt;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use pgwire_replication::ReplicationConfig;
use tokio::time::Duration;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::error::{ErrorKind, Result, StackError};

/// The superuser of a server of our own.
pub(crate) const ADMIN: &str = "supabase_admin";

/// The project's owner; migrations run as this.
pub(crate) const OWNER: &str = "postgres";

/// The role the API logs in as.
pub(crate) const AUTHENTICATOR: &str = "authenticator";

/// Connections of the REST service.
const POOL_SIZE: usize = 10;

/// How long a request waits for one of them before it is answered 504, as PostgREST does.
const POOL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives a session the settings that a login as the role would have.
const ROLE_SETTINGS: &str = "
    select set_config(split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1), false)
    from pg_catalog.pg_db_role_setting s join pg_catalog.pg_roles r on r.oid = s.setrole, unnest(s.setconfig) setting
    where r.rolname = $1
      and s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
    order by s.setdatabase";

/// A database and a way in. Cloning gives another handle; nothing is connected yet.
#[derive(Clone)]
pub(crate) struct Database {
    login: Config,
    access: Access,
    /// The URL it was given by; none for a server of our own.
    given: Option<String>,
}

/// How the roles of a database are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Each role logs in by itself, with any password: a server of our own, on the loopback address.
    Trusted,
    /// A superuser logs in and takes the identity of the role.
    Superuser,
    /// One user does all: it must have the rights of them all.
    One,
}

impl Database {
    /// A database of a server of our own.
    pub(crate) fn local(port: u16, name: &str) -> Self {
        let mut login = Config::new();
        login.host("127.0.0.1").port(port).user(ADMIN).password("postgres").dbname(name);
        login.application_name("supabase-local").connect_timeout(CONNECT_TIMEOUT);
        Self { login, access: Access::Trusted, given: None }
    }

    /// The database of a URL. What its user may do is found out later: [`Database::with_access`].
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseUrl`] for a text that is no such URL, and for what is not supported: TLS, several hosts.
    pub(crate) fn of_url(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            StackError::new(
                ErrorKind::DatabaseUrl,
                format!(
                    "the database URL {why}. It looks like postgresql://user:password@host:5432/database"
                ),
            )
        };
        if !["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(wrong("does not begin with postgresql://"));
        }
        // The parser's words could repeat a password that it takes for something else.
        let mut login: Config =
            text.parse().map_err(|_| wrong("has a part or a parameter that is not understood"))?;
        if login.get_hosts().len() != 1 {
            return Err(wrong("must name one host"));
        }
        if login.get_ports().len() > 1 {
            return Err(wrong("must name one port"));
        }
        if login.get_user().is_none_or(str::is_empty) {
            return Err(wrong("has no user"));
        }
        if login.get_ssl_mode() == SslMode::Require {
            return Err(wrong(
                "requires TLS (sslmode=require), which this development stack does not support: use a server on this machine, or \
                 a tunnel to it with sslmode=disable",
            ));
        }
        login.ssl_mode(SslMode::Disable);
        login.application_name("supabase-local");
        if login.get_connect_timeout().is_none() {
            login.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(Self { login, access: Access::One, given: Some(text.to_owned()) })
    }

    /// The same database, with its roles reached in another way.
    pub(crate) fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.login.get_dbname().or(self.login.get_user()).unwrap_or_default()
    }

    /// The user that logs in.
    pub(crate) fn user(&self) -> &str {
        self.login.get_user().unwrap_or_default()
    }

    /// Where its server is, without user and password.
    pub(crate) fn place(&self) -> String {
        match self.login.get_hosts().first() {
            Some(Host::Unix(path)) => format!("{} (port {})", path.display(), self.port()),
            Some(Host::Tcp(host)) => format!("{host}:{}", self.port()),
            None => String::new(),
        }
    }

    fn port(&self) -> u16 {
        self.login.get_ports().first().copied().unwrap_or(5432)
    }

    /// The URL for other programs: of a role, or as it was given.
    pub(crate) fn url(&self, role: &str) -> String {
        self.given.clone().unwrap_or_else(|| {
            format!("postgresql://{role}:postgres@127.0.0.1:{}/{}", self.port(), self.name())
        })
    }

    /// A connection with the rights of a superuser, as far as there are any; its task ends with the client.
    pub(crate) async fn admin(&self) -> Result<Client> {
        self.open(&self.login).await
    }

    /// A connection as a role.
    pub(crate) async fn role(&self, role: &str) -> Result<Client> {
        let client = self.open(&self.login_of(role)).await?;
        if self.access == Access::Superuser {
            become_role(&client, role).await?;
        }
        Ok(client)
    }

    async fn open(&self, login: &Config) -> Result<Client> {
        let (client, connection) =
            login.connect(NoTls).await.map_err(|error| self.unreachable(login, error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        });
        Ok(client)
    }

    /// Why there is no connection, with the place and the user.
    fn unreachable(&self, login: &Config, error: tokio_postgres::Error) -> StackError {
        let words = error.as_db_error().map_or_else(
            || {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                format!("{error}{}", cause.unwrap_or_default())
            },
            |db| db.message().to_owned(),
        );
        let user = login.get_user().unwrap_or_default();
        let message =
            format!("cannot connect to the database {} at {} as {user}: {words}", self.name(), self.place());
        StackError::with_source(ErrorKind::Database, message, error)
    }

    fn login_of(&self, role: &str) -> Config {
        let mut login = self.login.clone();
        if self.access == Access::Trusted {
            login.user(role);
        }
        login
    }

    /// The connections of the REST service, which are [`AUTHENTICATOR`]'s.
    ///
    /// # Errors
    /// If the pool cannot be built.
    pub(crate) fn pool(&self) -> Result<Pool> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.listener(), NoTls, recycling);
        let mut pool = Pool::builder(manager).max_size(POOL_SIZE).runtime(Runtime::Tokio1);
        if self.access == Access::Superuser {
            pool = pool.post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { become_role(client, AUTHENTICATOR).await.map_err(HookError::Backend) })
            }));
        }
        pool.wait_timeout(Some(POOL_TIMEOUT)).build().map_err(|error| {
            let message = format!("cannot build the connection pool: {error}");
            StackError::with_source(ErrorKind::Database, message, error)
        })
    }

    /// How the REST service logs in.
    pub(crate) fn listener(&self) -> Config {
        self.login_of(AUTHENTICATOR)
    }

    /// How a replication session on a publication logs in.
    pub(crate) fn replication(&self, slot: &str, publication: &str) -> ReplicationConfig {
        let host = match self.login.get_hosts().first() {
            Some(Host::Unix(path)) => path.to_string_lossy().into_owned(),
            Some(Host::Tcp(host)) => host.clone(),
            None => String::new(),
        };
        let password = String::from_utf8_lossy(self.login.get_password().unwrap_or_default()).into_owned();
        ReplicationConfig::new(host, self.user(), password, self.name(), slot, publication)
            .with_port(self.port())
    }

    /// A unique name of a replication slot.
    pub(crate) fn slot(prefix: &str) -> String {
        let unique = Uuid::new_v4().simple().to_string();
        format!("{prefix}_{}", &unique[..16])
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Database");
        shown.field("place", &self.place()).field("name", &self.name()).field("user", &self.user());
        shown.field("access", &self.access).finish_non_exhaustive()
    }
}

/// Makes a superuser's session one of a role, as if it had logged in.
async fn become_role(client: &Client, role: &str) -> Result<(), tokio_postgres::Error> {
    client.execute(ROLE_SETTINGS, &[&role]).await?;
    client.execute("select set_config('session_authorization', $1, false)", &[&role]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_place_name_and_user() {
        let database = Database::of_url("postgres://me:p%40ss@db.example:6543/app").unwrap();
        assert_eq!(
            (database.place(), database.name(), database.user()),
            ("db.example:6543".into(), "app", "me")
        );
        let socket = Database::of_url("postgresql://me@%2Fvar%2Frun%2Fpostgresql/app").unwrap();
        assert_eq!(socket.place(), "/var/run/postgresql (port 5432)");
        assert_eq!(Database::of_url("postgresql://me@h").unwrap().name(), "me");
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_its_password() {
        let bad = [
            "postgres",
            "mysql://me:hunter2@h/db",
            "postgresql://h/db",
            "postgresql://me:hunter2@h,i/db",
            "postgresql://me:hunter2@h/db?sslmode=require",
            "postgresql://me:hunter2@h:99999/db",
            "postgresql://me:hunter2@h/db?no=hunter2",
        ];
        for text in bad {
            let error = Database::of_url(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DatabaseUrl, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("postgresql://user:password@"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let debug = format!("{:?}", Database::of_url("postgresql://me:hunter2@h/db").unwrap());
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
