//! `/healthz`, `/readyz` and `/metrics`: whether the agent lives, whether it can be given work, and what it counted.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, header::CONTENT_TYPE, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

/// What the agent knows about itself. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

/// Why the agent can or cannot be given work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// No heartbeat was answered yet.
    #[default]
    Starting,
    /// The last heartbeat was answered.
    Ready,
    /// The last heartbeat was not.
    Unheard(String),
    /// The agent takes no more work.
    Draining,
}

impl Health {
    /// A heartbeat was answered.
    pub(crate) fn heard(&self) {
        self.unless_draining(State::Ready);
    }

    /// A heartbeat was not answered, or refused.
    pub(crate) fn unheard(&self, why: &str) {
        self.unless_draining(State::Unheard(why.to_owned()));
    }

    /// No more work is taken.
    pub(crate) fn draining(&self) {
        *self.state() = State::Draining;
    }

    /// Whether work can be given, with the reason where it cannot.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.state() {
            State::Ready => Ok(()),
            State::Starting => Err("no heartbeat was answered yet".to_owned()),
            State::Unheard(why) => Err(format!("the last heartbeat failed: {why}")),
            State::Draining => Err("the agent is stopping".to_owned()),
        }
    }

    fn unless_draining(&self, state: State) {
        let mut current = self.state();
        if *current != State::Draining {
            *current = state;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // An assignment is all that ever happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens; a port that is taken is found out here and not later.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers for ever. That an answer comes at all is what `/healthz` says: the loop that runs the jobs also serves it.
pub(crate) async fn serve(listener: TcpListener, health: Health, metrics: Option<PrometheusHandle>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; the next try may find one.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (health, metrics) = (health.clone(), metrics.clone());
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let answer = answer(request.method(), request.uri().path(), &health, metrics.as_ref());
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        tokio::spawn(async move {
            // The timer closes connections that send no request; a probe that hangs up is no event.
            let _hung_up = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(
    method: &Method,
    path: &str,
    health: &Health,
    metrics: Option<&PrometheusHandle>,
) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match health.ready() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics {
            Some(metrics) => (StatusCode::OK, metrics.render()),
            None => (StatusCode::NOT_FOUND, "this process keeps its metrics elsewhere\n".to_owned()),
        },
        _ => (StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_heartbeat_and_the_drain() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let health = Health::default();
        tokio::spawn(serve(listener, health.clone(), None));
        assert!(get(addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 503"));
        health.heard();
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        health.unheard("HTTP 401");
        assert!(get(addr, "/readyz").await.contains("the last heartbeat failed: HTTP 401"));
        health.draining();
        health.heard();
        assert!(get(addr, "/readyz").await.contains("stopping"));
        assert!(get(addr, "/else").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert!(bind(listener.local_addr().unwrap()).await.is_err());
    }
}
