//! `/rest/v1`: the answers of PostgREST, from the stack's database.
//!
//! A request flows `request -> (auth, prefer, accept, query) -> read | write | rpc -> plan, condition,
//! mutation -> statement -> transaction -> response`; an error leaves at any point as `error::RestError`.
//! The schema of the database is known from `reload::SchemaCache`.

mod accept;
mod auth;
mod catalog;
mod condition;
mod cors;
mod error;
mod explain;
mod filter;
mod grammar;
mod haskell;
mod hint;
mod media;
mod mutation;
mod openapi;
mod overload;
mod parsec;
mod payload;
mod plan;
mod prefer;
mod query;
mod read;
mod reason;
mod relation;
mod reload;
mod request;
mod response;
mod rpc;
mod schema;
mod select;
mod service;
mod settings;
mod sql;
mod statement;
mod swagger;
mod transaction;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use deadpool_postgres::Pool;
use http::header::{ALLOW, HeaderValue, ORIGIN};
use http::{Method, StatusCode};

use crate::jwt::JwtSecret;
use error::RestError;
use reload::SchemaCache;
use request::{Request, Target};
use response::Reply;
use schema::Name;
use service::Service;
pub use settings::Settings;

/// Largest body that is read, in bytes.
const BODY_LIMIT: usize = 64 << 20;

/// The REST server. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Rest(Arc<Service>);

/// A server and where it stands.
#[derive(Debug, Clone)]
struct Mounted {
    rest: Rest,
    prefix: Arc<str>,
}

impl Rest {
    /// A server on connections that log in as `authenticator`. No I/O happens yet.
    pub fn new(pool: Pool, secret: JwtSecret, settings: Settings) -> Self {
        let schema = SchemaCache::new(pool.clone(), settings.schemas.clone());
        Self(Arc::new(Service { pool, secret, settings, schema }))
    }

    /// The routes under a prefix, such as `/rest/v1`. What follows it counts as it is, to the last slash; a nested router would
    /// draw slashes together.
    pub fn router(&self, prefix: &str) -> Router {
        let handler = axum::routing::any(handle);
        let mounted = Mounted { rest: self.clone(), prefix: prefix.into() };
        [prefix.to_owned(), format!("{prefix}/"), format!("{prefix}/{{*path}}")]
            .iter()
            .fold(Router::new(), |router, path| router.route(path, handler.clone()))
            .with_state(mounted)
    }

    /// Reads the schema of the database anew.
    pub async fn reload(&self) {
        self.0.schema.reload().await;
    }

    /// Reloads the schema whenever the database sends `NOTIFY pgrst, 'reload schema'`. Never ends; run it
    /// beside the server and drop it to stop.
    pub async fn follow_schema(&self, database: tokio_postgres::Config) {
        self.0.schema.follow(database).await;
    }
}

impl Service {
    async fn answer(&self, request: http::Request<Body>, prefix: &str) -> Result<Response, RestError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let path = path.strip_prefix(prefix).unwrap_or(path);
        let target = Target::of(path);
        if parts.method == Method::OPTIONS {
            return self.options(&target?).await;
        }
        let identity = auth::identify(&parts.headers, &self.secret, &self.settings)?;
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .contains(&parts.method);
        let target = target?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if !matches!(target, Target::Function(_)) && !known || target == Target::Root && !reads {
            let message = format!("Unsupported HTTP method: {}", parts.method);
            return Err(RestError::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST117", message));
        }
        let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| {
            let message = "The body could not be read or is larger than 64 MiB";
            RestError::new(StatusCode::PAYLOAD_TOO_LARGE, "PGRST102", message)
        })?;
        let (name, call) = match &target {
            Target::Root => ("", false),
            Target::Table(name) => (name.as_str(), false),
            Target::Function(name) => (name.as_str(), true),
        };
        let request = (parts.method, (path, parts.uri.query()), parts.headers, body);
        let request = Request::read(request, (name, call), identity, &self.settings)?;
        let schema = self.schema.current().await?;
        if target == Target::Root {
            return openapi::answer(self, &schema, &request).await;
        }
        match (call, &request.method) {
            (true, _) => rpc::answer(self, &schema, &request).await,
            (false, &Method::GET | &Method::HEAD) => read::answer(self, &schema, &request).await,
            (false, _) => write::answer(self, &schema, &request).await,
        }
    }

    /// What may be done with a table or function.
    async fn options(&self, target: &Target) -> Result<Response, RestError> {
        let schema = self.schema.current().await?;
        let allowed = match target {
            Target::Root => "OPTIONS,GET,HEAD",
            Target::Function(_) => "OPTIONS,GET,HEAD,POST",
            Target::Table(name) => {
                let schema_name = self.settings.schemas.first().map_or("public", String::as_str);
                schema.expect_table(&Name::new(schema_name, name))?;
                "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"
            }
        };
        let mut response = Reply::new(StatusCode::OK).finish(false);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        cors::allow(&mut response);
        Ok(response)
    }
}

async fn handle(State(Mounted { rest, prefix }): State<Mounted>, request: http::Request<Body>) -> Response {
    if let Some(response) = cors::preflight(request.method(), request.headers()) {
        return response;
    }
    let from_browser = request.headers().contains_key(ORIGIN);
    let mut response = rest.0.answer(request, &prefix).await.unwrap_or_else(RestError::into_response);
    reason::complete(&mut response);
    if from_browser {
        cors::expose(&mut response);
    }
    response
}
