//! `metactl cert`: certificates to try TLS out with.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// Which certificates to make.
#[derive(Subcommand)]
pub enum CertCommand {
    /// Make an authority of one's own, and a set of certificates: to try out with, and for nothing else
    Dev(Dev),
}

/// What the set is for.
#[derive(Args)]
pub struct Dev {
    /// Where to write them. An authority that is there already signs on; all else is made anew
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    /// Host names and addresses of replicas, etcd and datanodes
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', default_value = "localhost,127.0.0.1")]
    pub hosts: Vec<String>,
    /// Ids of datanodes
    #[arg(long, value_name = "ID,…", value_delimiter = ',', default_value = "1,2,3")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub nodes: Vec<u64>,
    /// The namespace of their ids
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cluster: u64,
    /// The domain in the names of certificates: spiffe://DOMAIN/metasrv/…
    #[arg(long, value_name = "DOMAIN", default_value = "metasrv.example")]
    pub domain: String,
    /// How long they are valid, from now
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
    pub valid_for: Duration,
}
