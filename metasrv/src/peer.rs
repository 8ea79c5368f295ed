//! The way to another replica, or to this one's own listener.

use tonic::transport::{Channel, Endpoint};

use crate::dial::Dialer;

/// A connection to the gRPC service at `host:port`. The caller bounds the time that this may take.
///
/// # Errors
/// Why there is none, for the log.
pub async fn connect(dialer: &Dialer, addr: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|error| error.to_string())?;
    dialer.connected(&endpoint.tcp_nodelay(true)).await.map_err(|error| error.to_string())
}
