//! Where a process runs: its address, and the network namespace that it lives in.

/// An address of this machine, and the namespace that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// An IPv4 address.
    pub host: String,
    /// Name of the network namespace; absent: that of this process.
    pub namespace: Option<String>,
}

impl Place {
    /// Here: where this process runs, on the loopback address.
    pub fn here() -> Place {
        Place { host: "127.0.0.1".to_owned(), namespace: None }
    }
}
