//! A REST server on a database with the recorded schema, and a client that sends recorded requests to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use jiff::Timestamp;
use serde_json::Value;
use supabase_local::http::Lenient;
use supabase_local::rest::{Rest, Settings};
use supabase_local::{JwtSecret, PostgresOptions, PostgresServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use crate::recording::{Answer, Exchange};

/// A folder or file of the recordings.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/postgrest").join(name)
}

/// A database of its own with the recorded schema.
pub struct Place {
    server: PostgresServer,
    database: &'static str,
}

impl Place {
    pub async fn prepare(database: &'static str) -> Self {
        let server = PostgresServer::start(&PostgresOptions::default()).await.unwrap();
        let place = Self { server, database };
        place
            .connect("template1")
            .await
            .batch_execute(&format!("create database {database} template template0"))
            .await
            .unwrap();
        // The roles of the stack are there already; the recorded schema expects to be alone otherwise.
        let schema = std::fs::read_to_string(folder_of("schema.sql")).unwrap();
        place.sql(&schema).await;
        // Rows are read back in order of their ids, so the one id that the database makes must be the
        // recorded one.
        place
            .sql("alter table todos alter column id set default '95716ef6-57c6-4311-b90a-5e250b291322'")
            .await;
        place
    }

    /// Runs SQL as superuser.
    pub async fn sql(&self, script: &str) {
        self.connect(self.database).await.batch_execute(script).await.unwrap();
    }

    /// Waits until a call of `slow` is running.
    pub async fn until_busy(&self) {
        let client = self.connect(self.database).await;
        let busy = "select from pg_stat_activity where query like '%slow%' and wait_event = 'PgSleep'";
        until("a call of slow runs", async || !client.query(busy, &[]).await.unwrap().is_empty()).await;
    }

    /// Waits until a server would notice changes of the schema.
    async fn until_listening(&self) {
        let client = self.connect(self.database).await;
        let listening = "select from pg_stat_activity where query = 'listen pgrst' and state = 'idle'";
        until("somebody listens", async || !client.query(listening, &[]).await.unwrap().is_empty()).await;
    }

    /// Ends the connections on which a call of `slow` is running.
    pub async fn end_busy(&self) {
        let busy = "query like '%slow%' and wait_event = 'PgSleep'";
        self.sql(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {busy}")).await;
    }

    pub fn config(&self, role: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.server.port())
            .user(role)
            .password("postgres")
            .dbname(self.database);
        config
    }

    async fn connect(&self, database: &str) -> Client {
        let (client, connection) =
            self.config("supabase_admin").dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn remove(self) {
        self.server.stop().await.unwrap();
    }
}

/// A REST server.
pub struct Service {
    address: SocketAddr,
    secret: JwtSecret,
    _tasks: JoinSet<()>,
}

impl Service {
    pub async fn start(place: &Place, settings: Settings) -> Self {
        let service = Self::with_pool(place.config("authenticator"), settings, 4).await;
        place.until_listening().await;
        service
    }

    /// With that many connections to that database, and a wait of one second when all are in use.
    pub async fn with_pool(database: Config, settings: Settings, size: usize) -> Self {
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(database.clone(), NoTls, manager);
        let pool = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1);
        let pool = pool.wait_timeout(Some(Duration::from_secs(1))).build().unwrap();
        let secret = JwtSecret::default();
        let rest = Rest::new(pool, secret.clone(), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = rest.router("/rest/v1");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(Lenient(listener), routes).await.unwrap() });
        tasks.spawn(async move { rest.follow_schema(database).await });
        Self { address, secret, _tasks: tasks }
    }

    /// Sends a recorded request, its token signed anew for now, and otherwise byte by byte as it was.
    pub async fn send(&self, exchange: &Exchange) -> Answer {
        let mut headers = String::new();
        for (name, value) in &exchange.headers {
            let value = if name == "authorization" { self.renewed(value, exchange) } else { value.clone() };
            write!(headers, "{name}: {value}\r\n").unwrap();
        }
        self.request(&exchange.method, &exchange.path, headers.trim_end_matches("\r\n"), &exchange.body).await
    }

    /// Reads without a token.
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", "").await
    }

    /// Sends a request with these lines of headers.
    pub async fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        let request = format!(
            "{method} /rest/v1{path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer::read(&format!("{}\n\n{body}", head.replace("\r\n", "\n")))
    }

    /// Sends a request until it is answered with this status.
    pub async fn until(&self, exchange: &Exchange, status: u16) {
        until("the schema is read anew", async || self.send(exchange).await.status == status).await;
    }

    /// The same header with the times of its token moved from the day of the recording to today. A token
    /// that was not signed with the project's secret stays as it is.
    fn renewed(&self, header: &str, exchange: &Exchange) -> String {
        let Some((scheme, token)) = header.split_once(' ') else { return header.into() };
        if self.secret.decode(token).is_err() {
            return header.into();
        }
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let mut claims: Value = serde_json::from_slice(&claims).unwrap();
        let shift = Timestamp::now().as_second() - exchange.recorded_at().as_second();
        for name in ["iat", "exp", "nbf"] {
            if let Some(time) = claims[name].as_i64() {
                claims[name] = (time + shift).into();
            }
        }
        claims.as_object_mut().unwrap().retain(|_, claim| !claim.is_null());
        format!("{scheme} {}", self.secret.sign(&claims))
    }
}

/// Repeats the question until the answer is yes.
async fn until(what: &str, yes: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !yes().await {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
