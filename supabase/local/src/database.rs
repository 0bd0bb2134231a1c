//! Plain connections to a database of the local server.

use tokio_postgres::{Client, Config, NoTls};

use crate::error::Result;

/// The superuser.
pub(crate) const ADMIN: &str = "supabase_admin";

/// The project's owner; migrations run as this.
pub(crate) const OWNER: &str = "postgres";

/// The role the API logs in as.
pub(crate) const AUTHENTICATOR: &str = "authenticator";

/// How to reach a database as a role. Any password is right: the server listens on the loopback address only.
pub(crate) fn config(port: u16, role: &str, database: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(role).password("postgres").dbname(database);
    config
}

/// A connection; its task ends with the client.
pub(crate) async fn connect(port: u16, role: &str, database: &str) -> Result<Client> {
    let (client, connection) =
        config(port, role, database).application_name("supabase-local").connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(client)
}

/// The URL of a database as a role, for other programs.
pub(crate) fn url(port: u16, role: &str, database: &str) -> String {
    format!("postgresql://{role}:postgres@127.0.0.1:{port}/{database}")
}
