//! Holds the [`Schema`] that requests are answered with, and reads it again when the database sends a notification.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::RwLock;
use tokio_postgres::{AsyncMessage, NoTls};

use super::catalog;
use super::error::RestError;
use super::schema::Schema;

/// How long to wait before listening again after the connection broke.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The schema as last read; read for the first time by the first request.
#[derive(Debug)]
pub(super) struct SchemaCache {
    pool: Pool,
    schemas: Vec<String>,
    current: RwLock<Option<Arc<Schema>>>,
}

impl SchemaCache {
    /// A cache that has read nothing yet.
    pub(super) fn new(pool: Pool, schemas: Vec<String>) -> Self {
        Self { pool, schemas, current: RwLock::new(None) }
    }

    /// The schema; reads it if that was not done yet.
    pub(super) async fn current(&self) -> Result<Arc<Schema>, RestError> {
        if let Some(schema) = &*self.current.read().await {
            return Ok(Arc::clone(schema));
        }
        let mut current = self.current.write().await;
        if let Some(schema) = &*current {
            return Ok(Arc::clone(schema));
        }
        let schema = Arc::new(catalog::load(&self.pool, &self.schemas).await?);
        *current = Some(Arc::clone(&schema));
        Ok(schema)
    }

    /// Reads the schema anew. If that fails, the next request tries again.
    pub(super) async fn reload(&self) {
        let schema = catalog::load(&self.pool, &self.schemas).await.ok().map(Arc::new);
        *self.current.write().await = schema;
    }

    /// Reloads at each `NOTIFY pgrst, 'reload schema'`, for ever; the connection is made anew when it breaks.
    pub(super) async fn follow(&self, database: tokio_postgres::Config) {
        loop {
            if let Err(cause) = self.listen(&database).await {
                tracing::debug!(%cause, "the listener for schema changes lost its connection");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn listen(&self, database: &tokio_postgres::Config) -> Result<(), tokio_postgres::Error> {
        let (client, mut connection) = database.connect(NoTls).await?;
        let mut messages = std::pin::pin!(async {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message?
                    && matches!(notification.payload(), "" | "reload schema")
                {
                    self.reload().await;
                }
            }
            Ok(())
        });
        tokio::select! {
            ended = &mut messages => return ended,
            listening = client.batch_execute("listen pgrst") => listening?,
        }
        // Notifications before this moment were missed.
        self.reload().await;
        messages.await
    }
}
