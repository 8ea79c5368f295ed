//! One connection per endpoint, each with its own health; calls with deadlines; what an error means.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, Error};
use metasrv_core::time::Clock as _;
use tonic::transport::Endpoint;

use super::members::Members;
use crate::clock::SystemClock;
use crate::dial::Dialer;
use crate::metrics::Metrics;
use crate::store::StoreError;

/// A connection that is not made within this time is not made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd drops connections that ping more often than every five seconds.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// A ping without answer for so long means that the connection is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Deadline of a read or a write, over all endpoints that are tried.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A read that has no answer from one endpoint after this time is sent to the next.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);
/// Pages of a list are larger than gRPC's usual limit of 4 MiB.
const DECODE_LIMIT: usize = 64 << 20;

/// Connections to the members of one etcd cluster.
pub struct EtcdConnection {
    endpoints: Vec<Endpoint>,
    dialer: Dialer,
    clients: Vec<tokio::sync::OnceCell<Client>>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    metrics: Option<Arc<Metrics>>,
}

impl EtcdConnection {
    /// Connects lazily: an endpoint that is down now is found when it is needed.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL, or there is none.
    pub fn new(members: &Members) -> Result<EtcdConnection, StoreError> {
        let parsed: Result<Vec<Endpoint>, StoreError> = members
            .endpoints
            .iter()
            .map(|url| {
                let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| StoreError::Invalid {
                    why: format!("etcd endpoint {url:?}: {error}"),
                })?;
                Ok(endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .keep_alive_while_idle(true))
            })
            .collect();
        let endpoints = parsed?;
        if endpoints.is_empty() {
            return Err(StoreError::Invalid { why: "there is no etcd endpoint".to_owned() });
        }
        let clients = endpoints.iter().map(|_| tokio::sync::OnceCell::new()).collect();
        // Replicas begin with different members, so that they do not all hang on one.
        let current = AtomicUsize::new(rand::random_range(0..endpoints.len()));
        let (dialer, metrics) = (members.dialer.clone(), members.metrics.clone());
        Ok(EtcdConnection { endpoints, dialer, clients, current, metrics })
    }

    async fn client(&self, index: usize) -> Result<Client, Error> {
        let client = self.clients[index].get_or_try_init(|| self.connect(index)).await?;
        Ok(client.clone())
    }

    /// A client of one endpoint; connects when it is used.
    async fn connect(&self, index: usize) -> Result<Client, Error> {
        Client::from_channel(Channel::Tonic(self.dialer.channel(&self.endpoints[index])), None).await
    }

    /// A client of its own on the endpoint that answered last, for a call that may take for ever.
    ///
    /// # Errors
    /// As the client has them.
    pub async fn dedicated(&self) -> Result<(usize, Client), Error> {
        let index = self.current.load(Ordering::Relaxed);
        Ok((index, self.connect(index).await?))
    }

    /// The next call goes to another endpoint, unless somebody has moved on already.
    pub fn rotate(&self, from: usize) {
        let next = from.wrapping_add(1).checked_rem(self.endpoints.len()).unwrap_or(0);
        let moved = self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && next != from {
            tracing::debug!(from = %self.endpoints[from].uri(), to = %self.endpoints[next].uri(), "next etcd endpoint");
        }
    }

    /// Counts a request and its time, from the first attempt to its outcome.
    async fn measured<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = SystemClock.now();
        let result = request.await;
        if let Some(metrics) = &self.metrics {
            let label = operation.replace(' ', "_");
            let outcome = match &result {
                Ok(_) => "ok",
                Err(StoreError::Unavailable { .. }) => "unavailable",
                Err(StoreError::Unknown { .. }) => "unknown",
                Err(_) => "refused",
            };
            metrics.etcd_requests.with_label_values(&[label.as_str(), outcome]).inc();
            let took = SystemClock.now().since(started).as_secs_f64();
            metrics.etcd_request_duration.with_label_values(&[label.as_str()]).observe(took);
        }
        result
    }

    /// A read, or anything that may be repeated: tried on one endpoint after another until the deadline.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`]: there is nothing to be unsure of.
    pub async fn repeatable<T, F>(
        &self,
        operation: &'static str,
        deadline: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let limited = async {
            let mut last = StoreError::Unavailable { operation, why: "no answer in time".to_owned() };
            let attempts = async {
                loop {
                    let index = self.current.load(Ordering::Relaxed);
                    let attempt = async { call(self.client(index).await?).await };
                    let error = match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
                        Ok(Ok(value)) => return Ok(value),
                        Ok(Err(error)) => classify(operation, &error),
                        Err(_) => StoreError::Unknown {
                            operation,
                            why: format!("no answer within {ATTEMPT_TIMEOUT:?}"),
                        },
                    };
                    last = match error {
                        StoreError::Unknown { why, .. } | StoreError::Unavailable { why, .. } => {
                            let why = format!("{}: {why}", self.endpoints[index].uri());
                            StoreError::Unavailable { operation, why }
                        }
                        certain => return Err(certain),
                    };
                    self.rotate(index);
                    // Endpoints that refuse at once are not to be asked in a tight loop.
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
            };
            match tokio::time::timeout(deadline, attempts).await {
                Ok(result) => result,
                Err(_) => Err(last),
            }
        };
        self.measured(operation, limited).await
    }

    /// A write: sent once. Only an endpoint that was certainly not reached is followed by the next.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] where it may have happened.
    pub async fn once<T, F>(
        &self,
        operation: &'static str,
        deadline: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let attempts = async {
            let mut last = StoreError::Unavailable { operation, why: "no endpoint".to_owned() };
            for _ in 0..self.endpoints.len() {
                let index = self.current.load(Ordering::Relaxed);
                let result = async { call(self.client(index).await?).await }.await;
                let error = match result {
                    Ok(value) => return Ok(value),
                    Err(error) => classify(operation, &error),
                };
                if matches!(error, StoreError::Unknown { .. } | StoreError::Unavailable { .. }) {
                    self.rotate(index);
                }
                last = error;
                if !matches!(last, StoreError::Unavailable { .. }) {
                    break;
                }
            }
            Err(last)
        };
        let asked = self.current.load(Ordering::Relaxed);
        let limited = async {
            match tokio::time::timeout(deadline, attempts).await {
                Ok(result) => result,
                Err(_) => {
                    self.rotate(asked);
                    Err(StoreError::Unknown { operation, why: format!("no answer within {deadline:?}") })
                }
            }
        };
        self.measured(operation, limited).await
    }
}

/// The key-value client of a connection, ready for large pages.
pub fn kv(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(DECODE_LIMIT)
}

/// What an error of etcd or of the way there means. In doubt the outcome is unknown.
pub fn classify(operation: &'static str, error: &Error) -> StoreError {
    let why = describe(error);
    let Error::GRpcStatus(status) = error else {
        return match error {
            Error::InvalidArgs(_) | Error::InvalidUri(_) => StoreError::Invalid { why },
            _ if refused(error.source()) => StoreError::Unavailable { operation, why },
            _ => StoreError::Unknown { operation, why },
        };
    };
    let message = status.message();
    match status.code() {
        tonic::Code::ResourceExhausted if message.contains("space exceeded") => StoreError::OutOfSpace,
        tonic::Code::InvalidArgument
            if message.contains("too many operations") || message.contains("too large") =>
        {
            StoreError::TooLarge { what: message.to_owned() }
        }
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange | tonic::Code::NotFound => {
            StoreError::Invalid { why: message.to_owned() }
        }
        _ if refused(status.source()) => StoreError::Unavailable { operation, why },
        _ => StoreError::Unknown { operation, why },
    }
}

/// An error in one line, with its innermost cause: "transport error" says nothing, "connection refused" does.
fn describe(error: &Error) -> String {
    let (mut text, mut next) = match error {
        Error::GRpcStatus(status) => (format!("{:?}: {}", status.code(), status.message()), status.source()),
        error => (error.to_string(), error.source()),
    };
    let mut innermost = None;
    while let Some(cause) = next {
        innermost = Some(cause.to_string());
        next = cause.source();
    }
    if let Some(cause) = innermost.filter(|cause| !text.contains(cause)) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// Whether the connection was refused before anything could be sent.
fn refused(error: Option<&(dyn std::error::Error + 'static)>) -> bool {
    let mut next = error;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        next = error.source();
    }
    false
}
