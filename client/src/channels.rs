//! One HTTP/2 connection per address, shared by all calls to it, and dropped after a transport error: a connection that
//! failed once is not trusted to heal by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::config::{KeepAlive, Timeouts, parse_address};
use crate::dialer::Dialer;
use crate::error::ClientError;

/// There are a handful of replicas. More addresses than this come from hints that lead nowhere.
const MOST_CACHED: usize = 64;

/// Connections by address.
pub(crate) struct Channels {
    connect_timeout: Duration,
    keep_alive: KeepAlive,
    dialer: Dialer,
    cached: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    next_serial: u64,
    by_address: HashMap<String, Lent>,
}

/// A connection as it was handed out. Its serial number tells it apart from a later one to the same address.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) channel: Channel,
    addr: String,
    serial: u64,
}

impl Channels {
    pub(crate) fn new(timeouts: Timeouts, keep_alive: KeepAlive, dialer: Dialer) -> Channels {
        Channels { connect_timeout: timeouts.connect, keep_alive, dialer, cached: Mutex::default() }
    }

    /// Whether there is a connection to an address already.
    pub(crate) fn has(&self, addr: &str) -> bool {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).by_address.contains_key(addr)
    }

    /// The connection to an address. It is opened by the first call on it.
    pub(crate) fn get(&self, addr: &str) -> Result<Lent, ClientError> {
        let mut cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lent) = cache.by_address.get(addr) {
            return Ok(lent.clone());
        }
        let channel = self.dialer.channel(&self.endpoint(addr)?);
        if cache.by_address.len() >= MOST_CACHED {
            cache.by_address.clear();
        }
        cache.next_serial += 1;
        let lent = Lent { channel, addr: addr.to_owned(), serial: cache.next_serial };
        cache.by_address.insert(addr.to_owned(), lent.clone());
        Ok(lent)
    }

    /// Gives up the connections to all other addresses than these. Calls that are under way on them go on.
    pub(crate) fn keep_only(&self, addresses: &[String]) {
        let mut cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cache.by_address.retain(|addr, _| addresses.contains(addr));
    }

    /// A connection of its own, open when this returns: for calls that must know whether anything was sent.
    pub(crate) async fn connect(&self, addr: &str) -> Result<Channel, ClientError> {
        let endpoint = self.endpoint(addr)?;
        let failed = |why: String| ClientError::Transport { addr: addr.to_owned(), why };
        match tokio::time::timeout(self.connect_timeout, self.dialer.connected(&endpoint)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(failed(root_cause(&error))),
            Err(_) => Err(failed(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// Gives a connection up, if it is still the one in use.
    pub(crate) fn forget(&self, lent: &Lent) {
        let mut cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.by_address.get(&lent.addr).is_some_and(|present| present.serial == lent.serial) {
            cache.by_address.remove(&lent.addr);
        }
    }

    fn endpoint(&self, addr: &str) -> Result<Endpoint, ClientError> {
        let failed = |why: String| ClientError::Transport { addr: addr.to_owned(), why };
        let authority = parse_address(addr).map_err(failed)?;
        let scheme = self.dialer.scheme();
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .map_err(|error| failed(root_cause(&error)))?;
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keep_alive.interval)
            .keep_alive_timeout(self.keep_alive.timeout)
            .keep_alive_while_idle(true))
    }
}

/// The innermost cause: "transport error" says nothing, "connection refused" does.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
