//! Which etcd, and how it is spoken to: the same for every connection of a replica.

use std::sync::Arc;

use crate::dial::Dialer;
use crate::metrics::Metrics;

/// The members of one etcd cluster.
#[derive(Clone, Default)]
pub struct Members {
    /// Their addresses, such as `http://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// How connections are opened, and secured where the addresses begin with `https://`.
    pub dialer: Dialer,
    /// Where requests are counted.
    pub metrics: Option<Arc<Metrics>>,
}

impl From<&Vec<String>> for Members {
    fn from(endpoints: &Vec<String>) -> Members {
        Members { endpoints: endpoints.clone(), ..Members::default() }
    }
}

impl From<&Members> for Members {
    fn from(members: &Members) -> Members {
        members.clone()
    }
}
