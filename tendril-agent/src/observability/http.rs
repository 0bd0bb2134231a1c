//! `/healthz`, `/readyz`, `/status` and `/metrics`, on a thread of their own: it answers also when the loop that runs the
//! jobs does not, and answers so.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::status::Panel;

/// The running server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests read the port that was free"))]
    pub(crate) addr: SocketAddr,
    end: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Listens and answers; a port that is taken is found out here and not later. Errors: the port, or the thread.
pub(crate) fn start(addr: SocketAddr, panel: Panel, metrics: Option<PrometheusHandle>) -> io::Result<Server> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = CancellationToken::new();
    let ended = end.clone();
    std::thread::Builder::new().name("health".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                served = serve(listener, Arc::new(Answers { panel, metrics })) => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the health server ended");
                    }
                }
                () = ended.cancelled() => {}
            }
        });
    })?;
    Ok(Server { addr, end })
}

async fn serve(listener: std::net::TcpListener, answers: Arc<Answers>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; the next try may find one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answers = Arc::clone(&answers);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let answer = answers.to(request.method(), request.uri().path());
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

struct Answers {
    panel: Panel,
    metrics: Option<PrometheusHandle>,
}

impl Answers {
    fn to(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let wanted = matches!(*method, Method::GET | Method::HEAD).then_some(path);
        let mut kind = "text/plain; charset=utf-8";
        let (status, text) = match wanted {
            Some("/healthz") => probe_response(self.panel.health.alive(), "alive"),
            Some("/readyz") => probe_response(self.panel.health.ready(), "ready"),
            Some("/status") => {
                kind = "application/json";
                (StatusCode::OK, format!("{:#}\n", self.panel.status()))
            }
            Some("/metrics") => match &self.metrics {
                Some(metrics) => {
                    self.panel.measure();
                    kind = "text/plain; version=0.0.4; charset=utf-8";
                    (StatusCode::OK, metrics.render())
                }
                None => (StatusCode::NOT_FOUND, "the metrics of this process are elsewhere\n".to_owned()),
            },
            _ => (StatusCode::NOT_FOUND, "there are /healthz, /readyz, /status and /metrics\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

fn probe_response(evaluated: Result<(), String>, good: &str) -> (StatusCode, String) {
    match evaluated {
        Ok(()) => (StatusCode::OK, format!("{good}\n")),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        control_plane::Health,
        dispatch::{Approvals, DiskGuard},
        execute::Registry,
        job::Job,
        observability::logging,
        telemetry, testing,
    };

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn panel(dir: &std::path::Path) -> Panel {
        Panel {
            facts: testing::config(dir).facts(),
            health: Health::default(),
            registry: Registry::default(),
            approvals: Approvals::default(),
            disk: DiskGuard::default(),
        }
    }

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn readiness_follows_the_heartbeat_and_the_drain() {
        let dir = tempfile::tempdir().unwrap();
        let panel = panel(dir.path());
        let server = start(any_port(), panel.clone(), None).unwrap();
        let addr = server.addr;
        assert!(get(addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 503"));
        panel.health.record_heartbeat();
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        panel.health.heartbeat_failed("HTTP 401");
        assert!(get(addr, "/readyz").await.contains("the last heartbeat failed: HTTP 401"));
        assert!(get(addr, "/healthz").await.starts_with("HTTP/1.1 200"), "it is alive all the same");
        panel.health.draining();
        assert!(get(addr, "/readyz").await.contains("stopping"));
        assert!(get(addr, "/else").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn status_and_metrics_tell_everything_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let panel = panel(dir.path());
        let config =
            serde_json::json!({"template": "greeting", "stack": "s", "variables": {"password": "hunter2"}});
        let job = Job {
            id: uuid::Uuid::from_u128(1),
            attempt: 3,
            claim_token: uuid::Uuid::from_u128(2),
            config: config.into(),
            state_key: None,
        };
        let _place = panel.registry.enter(&job);
        let server = start(any_port(), panel, logging::install_metrics()).unwrap();
        let status = get(server.addr, "/status").await;
        let body: serde_json::Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["jobs"][0]["deployment_id"], serde_json::json!(job.id));
        assert_eq!(
            (&body["jobs"][0]["phase"], &body["jobs"][0]["state"]),
            (&"CLAIMED".into(), &"greeting.s".into())
        );
        assert_eq!((&body["ready"], &body["state_backend"]), (&false.into(), &"local".into()));
        let metrics = get(server.addr, "/metrics").await;
        let shown = |name: &str| metrics.lines().any(|line| line.starts_with(name));
        for series in telemetry::ALL.iter().filter(|series| series.kind != telemetry::Kind::Histogram) {
            assert!(shown(series.name), "{} is not shown from the start", series.name);
        }
        let memory =
            metrics.lines().find_map(|line| line.strip_prefix("tendril_agent_memory_bytes ")).unwrap();
        assert!(memory.parse::<f64>().unwrap() > 1e6, "{memory}");
        let token = job.claim_token.to_string();
        for secret in ["hunter2", "the-machine-token", &token] {
            assert!(!status.contains(secret) && !metrics.contains(secret), "{secret}");
        }
    }

    #[tokio::test]
    async fn it_ends_with_its_owner_and_a_port_that_is_taken_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let server = start(any_port(), panel(dir.path()), None).unwrap();
        let addr = server.addr;
        assert!(start(addr, panel(dir.path()), None).is_err());
        drop(server);
        while std::net::TcpListener::bind(addr).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
