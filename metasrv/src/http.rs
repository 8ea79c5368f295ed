//! `/livez`, `/readyz`, `/metrics`: what probes and Prometheus ask, over plain HTTP/1.
//!
//! `/livez` says whether the process still turns; an orchestrator restarts it when not, so nothing outside the
//! process may fail it. `/readyz` says whether requests should be sent here. Both are judged by a [`HealthSource`];
//! this module only puts the answers on the wire, within limits: whoever reaches this port sends at most a page of
//! headers, in a bounded time, over a bounded number of connections.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metasrv_core::time::Clock as _;
use metasrv_tls::{Clients, ServerTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clock::SystemClock;
use crate::faults::Faults;
use crate::metrics::Metrics;

/// Connections at a time: a few probes, a few scrapers, a person. Further ones wait in the listener's queue.
const CONNECTIONS: usize = 64;

/// Request line and headers together. hyper takes no buffer smaller than 8 KiB.
const HEADER_BYTES: usize = 16 * 1024;

/// Headers of one request; a browser sends about twenty.
const HEADERS: usize = 64;

/// Time to send the next request's headers, from the connection's first moment or the last response.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection ends after this time, so that a reader who never reads does not keep one of the few for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);

/// Responses under way at shutdown get this long. They are small.
const DRAIN: Duration = Duration::from_millis(500);

/// Pause after the system refused to hand out a connection, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One thing that readiness depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// What was found, or what is wrong.
    pub outcome: Result<String, String>,
}

/// Who knows whether this replica is well.
pub trait HealthSource: Send + Sync {
    /// Whether the process still does its work. Nothing outside the process may decide it.
    ///
    /// # Errors
    /// What does not turn any more.
    fn live(&self) -> Result<(), String>;

    /// Everything that readiness depends on.
    fn checks(&self) -> Vec<Check>;
}

/// Where it is served: plain, or with TLS; then whether a client's certificate is looked at.
pub struct Port {
    /// The port.
    pub listener: TcpListener,
    /// How hands are shaken on it.
    pub tls: Option<(ServerTls, Clients)>,
}

struct Shared {
    source: Arc<dyn HealthSource>,
    metrics: Arc<Metrics>,
}

/// Serves until `shutdown` resolves, then lets responses under way end.
pub async fn serve<S: HealthSource + 'static>(
    port: Port,
    source: Arc<S>,
    metrics: Arc<Metrics>,
    faults: Option<Faults>,
    shutdown: impl Future<Output = ()>,
) {
    let Port { listener, tls } = port;
    let mut router = router(source, metrics);
    if let Some(faults) = faults {
        router = router.merge(faults_router(faults));
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepted => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => {
                    let (router, tls) = (router.clone(), tls.clone());
                    connections.spawn(async move {
                        match tls {
                            None => answer(stream, router).await,
                            Some((tls, clients)) => answer_securely(&tls, clients, stream, router).await,
                        }
                        drop(place);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // Nobody closes the semaphore.
                (Err(_), Ok(_)) => break,
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is left after that is idle or does not read; dropping the set ends it.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

fn router<S: HealthSource + 'static>(source: Arc<S>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .fallback(not_found)
        .with_state(Arc::new(Shared { source, metrics }))
}

/// What a replica offers that was started with `--fault-injection`, and no other.
fn faults_router(faults: Faults) -> Router {
    Router::new()
        .route(
            "/faults/block-loop",
            post(async |State(faults): State<Faults>, query| fault(&query, |time| faults.block_loop(time))),
        )
        .route(
            "/faults/hold-heartbeats",
            post(async |State(faults): State<Faults>, query| {
                fault(&query, |time| faults.hold_heartbeats(time, SystemClock.now()))
            }),
        )
        .with_state(faults)
}

fn fault(query: &Query<HashMap<String, String>>, begin: impl FnOnce(Duration)) -> Response {
    let Some(Ok(millis)) = query.get("ms").map(|millis| millis.parse::<u64>()) else {
        return text(StatusCode::BAD_REQUEST, "ms: for how long, in milliseconds\n".to_owned());
    };
    begin(Duration::from_millis(millis));
    text(StatusCode::OK, "ok\n".to_owned())
}

/// Shakes hands first. Whoever shows no certificate where they are looked at is told whether this replica is well, and no more.
async fn answer_securely(tls: &ServerTls, clients: Clients, stream: TcpStream, router: Router) {
    let (stream, identity) = match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return tracing::debug!(%error, "an HTTP connection: no handshake"),
        Err(_) => return tracing::debug!("an HTTP connection: no handshake in time"),
    };
    let is_known = clients == Clients::None || identity.is_some();
    answer(stream, if is_known { router } else { router.layer(from_fn(only_probes)) }).await;
}

async fn only_probes(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/livez" | "/readyz" => next.run(request).await,
        _ => text(StatusCode::FORBIDDEN, "a client certificate is needed here\n".to_owned()),
    }
}

/// One connection, to its end. How it ends concerns only the one who made it.
async fn answer<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: IO, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection failed"),
        Err(_) => tracing::debug!("an HTTP connection was ended: it was open for too long"),
    }
}

async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    match shared.source.live() {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not live: {why}\n")),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let checks = shared.source.checks();
    let ready = checks.iter().all(|check| check.outcome.is_ok());
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.get("verbose").is_some_and(|value| value != "false" && value != "0");
    let mut body = String::new();
    for check in &checks {
        match &check.outcome {
            Ok(found) if verbose => body.push_str(&format!("[ok]     {}: {found}\n", check.name)),
            Ok(_) => {}
            Err(wrong) if verbose => body.push_str(&format!("[failed] {}: {wrong}\n", check.name)),
            Err(wrong) => body.push_str(&format!("not ready: {}: {wrong}\n", check.name)),
        }
    }
    if ready || verbose {
        body.push_str(if ready { "ok\n" } else { "not ready\n" });
    }
    text(code, body)
}

async fn render_metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render() {
        Ok(body) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be rendered: {error}\n"))
        }
    }
}

async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /readyz?verbose and /metrics\n".to_owned())
}

fn text(code: StatusCode, body: String) -> Response {
    (code, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    /// A source whose readiness can be switched.
    #[derive(Default)]
    struct Switch {
        ready: AtomicBool,
    }

    impl HealthSource for Switch {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn checks(&self) -> Vec<Check> {
            let store = if self.ready.load(Ordering::Relaxed) {
                Ok("answers".to_owned())
            } else {
                Err("silent".to_owned())
            };
            vec![
                Check { name: "store", outcome: store },
                Check { name: "leaving", outcome: Ok("no".to_owned()) },
            ]
        }
    }

    struct Server {
        addr: SocketAddr,
        source: Arc<Switch>,
        _stop: oneshot::Sender<()>,
    }

    async fn server() -> Server {
        server_with(None).await
    }

    async fn server_with(faults: Option<Faults>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let source = Arc::new(Switch::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let port = Port { listener, tls: None };
        tokio::spawn(serve(port, Arc::clone(&source), Arc::new(Metrics::new()), faults, async {
            let _ = stopped.await;
        }));
        Server { addr, source, _stop: stop }
    }

    async fn exchange(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        // The other side may close before it has read everything.
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8(response).unwrap()
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        exchange(addr, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn readiness_follows_its_checks_and_liveness_does_not() {
        let server = server().await;
        let answer = get(server.addr, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready: store: silent\n"),
            "{answer}"
        );
        assert!(get(server.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        let verbose = get(server.addr, "/readyz?verbose").await;
        assert!(verbose.ends_with("[failed] store: silent\n[ok]     leaving: no\nnot ready\n"), "{verbose}");
        server.source.ready.store(true, Ordering::Relaxed);
        let answer = get(server.addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_text_format() {
        let server = server().await;
        let answer = get(server.addr, "/metrics").await;
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("\nmetasrv_build_info{version=\""), "{answer}");
        assert!(get(server.addr, "/").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn faults_are_offered_only_by_a_replica_that_was_started_for_them() {
        let ask = |query: &str| {
            format!("POST /faults/block-loop{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        };
        let usual = server().await;
        assert!(exchange(usual.addr, &ask("?ms=5")).await.starts_with("HTTP/1.1 404 "));
        let faulty = server_with(Some(Faults::default())).await;
        assert!(exchange(faulty.addr, &ask("?ms=5")).await.starts_with("HTTP/1.1 200 "));
        assert!(exchange(faulty.addr, &ask("?ms=x")).await.starts_with("HTTP/1.1 400 "));
        assert!(get(faulty.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn too_many_or_too_large_headers_are_refused() {
        let server = server().await;
        let many: String = (0..100).map(|i| format!("x-{i}: 1\r\n")).collect();
        let answer = exchange(server.addr, &format!("GET /livez HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let large = "x".repeat(2 * HEADER_BYTES);
        let answer = exchange(server.addr, &format!("GET /livez HTTP/1.1\r\nhost: {large}\r\n\r\n")).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_the_server_though_a_connection_is_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(
            Port { listener, tls: None },
            Arc::new(Switch::default()),
            Arc::new(Metrics::new()),
            None,
            async {
                let _ = stopped.await;
            },
        ));
        let _idle = TcpStream::connect(addr).await.unwrap();
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    }
}
