//! The control plane: a local stack with one user and one cluster.

use std::{net::TcpListener, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::json;
use supabase_local::Stack;
use tendril_realtime::{AccessToken, Client};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{Problem, agent_process::AgentProcess};

/// The cluster's name.
pub(crate) const CLUSTER: &str = "demo";

/// The user's address.
pub(crate) const EMAIL: &str = "demo@tendril.invalid";

/// How long the tokens are valid: longer than anybody plays with the demo.
pub(crate) const TOKENS: Duration = Duration::from_secs(12 * 3600);

/// What the portal and the agent both talk to, and the user's way to it.
pub(crate) struct ControlPlane {
    stack: Stack,
    /// The user's own client: anon key and the user's JWT, as in a browser.
    pub(crate) user: Client,
    /// The user's JWT.
    pub(crate) user_token: String,
    /// The user.
    pub(crate) user_id: Uuid,
    /// The user's cluster.
    pub(crate) cluster: Uuid,
}

impl ControlPlane {
    /// Starts a stack on the ports of the Supabase CLI where they are free and `usual_ports` are wanted, otherwise on any.
    pub(crate) async fn start(usual_ports: bool) -> Result<Self, Problem> {
        let port = |usual| if usual_ports && is_free(usual) { usual } else { 0 };
        // The demo may be started anywhere: the project is Tendril's, and not one that is in the working directory.
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../supabase");
        let stack = Stack::builder()
            .migrations(project.join("migrations"))
            .functions(project.join("functions"))
            .port(port(54321))
            .database_port(port(54322))
            .start()
            .await?;
        let user_id = Uuid::new_v4();
        sign_up(&stack, user_id).await?;
        let user_token = stack.jwt_secret().user_token(&user_id.to_string(), TOKENS);
        let user = Client::builder(stack.api_url(), stack.anon_key())
            .token_source(AccessToken::new(&user_token)?)
            .build()?;
        let cluster = add_cluster(&user).await?;
        Ok(Self { stack, user, user_token, user_id, cluster })
    }

    /// The project's URL.
    pub(crate) fn url(&self) -> String {
        self.stack.api_url()
    }

    /// The project's anon key.
    pub(crate) fn anon_key(&self) -> &str {
        self.stack.anon_key()
    }

    /// The project's key that may do everything.
    pub(crate) fn service_key(&self) -> &str {
        self.stack.keys().service_role()
    }

    /// URL of the database.
    pub(crate) fn database_url(&self) -> String {
        self.stack.database_url()
    }

    /// Starts the agent of the cluster with a machine token of its own.
    pub(crate) fn start_agent(&self) -> Result<AgentProcess, Problem> {
        let token = self.stack.jwt_secret().machine_token(&self.cluster.to_string(), TOKENS);
        AgentProcess::start(&self.url(), self.anon_key(), &token)
    }

    /// The cluster's status as the user sees it.
    pub(crate) async fn cluster_status(&self) -> Result<String, Problem> {
        #[derive(Deserialize)]
        struct Cluster {
            status: String,
        }
        let clusters = self.user.rest().from("clusters").select("status").eq("id", self.cluster);
        Ok(clusters.single::<Cluster>().await?.status)
    }

    /// Stops everything that [`start`](Self::start) started.
    pub(crate) async fn stop(self) -> Result<(), Problem> {
        self.user.shutdown().await;
        Ok(self.stack.stop().await?)
    }
}

/// What the auth server does when a user signs up.
async fn sign_up(stack: &Stack, user: Uuid) -> Result<(), Problem> {
    let (database, connection) = tokio_postgres::connect(&stack.database_url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let insert =
        "insert into auth.users (id, aud, role, email) values ($1, 'authenticated', 'authenticated', $2)";
    database.execute(insert, &[&user, &EMAIL]).await?;
    drop(database);
    Ok(connection.await??)
}

/// What the portal does when its user adds a cluster.
async fn add_cluster(user: &Client) -> Result<Uuid, Problem> {
    #[derive(Deserialize)]
    struct Added {
        id: Uuid,
    }
    let row = user.rest().from("clusters").insert(&json!({ "name": CLUSTER })).select("id");
    Ok(row.single::<Added>().await?.id)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
