//! One connection with the rights of a superuser, made anew when it broke.

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio_postgres::Client;

use crate::database::Database;
use crate::error::Result;

/// The way to the database. Questions wait for each other.
#[derive(Debug)]
pub(crate) struct Link {
    database: Database,
    client: Mutex<Option<Client>>,
}

impl Link {
    /// No I/O yet.
    pub(crate) fn new(database: Database) -> Self {
        Self { database, client: Mutex::new(None) }
    }

    /// The connection, held until the guard is dropped.
    pub(crate) async fn client(&self) -> Result<MappedMutexGuard<'_, Client>> {
        let mut slot = self.client.lock().await;
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.database.admin().await?,
        };
        Ok(MutexGuard::map(slot, |slot| slot.insert(client)))
    }
}
