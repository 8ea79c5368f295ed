//! `datanode health`: asks the datanode on this machine, as an image's health check does that has no shell.
//!
//! The question is the standard one of gRPC, so a probe that speaks it can ask the same without this command. Whether
//! regions may be written to is not asked: that is their leases' business, and restarting a node gives it none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What to ask, and how long to wait.
#[derive(Args)]
pub struct HealthOptions {
    /// Where the datanode listens for gRPC
    #[arg(long, env = "DATANODE_GRPC_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:4001")]
    grpc_addr: SocketAddr,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Asks once.
///
/// # Errors
/// Why the answer is not yes.
pub async fn ask(options: &HealthOptions) -> Result<(), String> {
    let addr = here(options.grpc_addr);
    let because = |why: String| format!("{addr}: {why}; does the datanode run, and is this its --grpc-addr?");
    let answer = async {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = HealthClient::new(channel).check(request).await;
        Ok::<_, String>(answer.map_err(|status| status.message().to_owned())?.into_inner().status())
    };
    match tokio::time::timeout(options.timeout, answer).await {
        Ok(Ok(ServingStatus::Serving)) => Ok(()),
        Ok(Ok(other)) => Err(format!("{addr} answers {}", other.as_str_name())),
        Ok(Err(why)) => Err(because(why)),
        Err(_) => Err(because(format!("no answer within {}", humantime::format_duration(options.timeout)))),
    }
}

/// Where a process on this machine reaches what listens on this address.
fn here(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_by_way_of_loopback() {
        let asked = |addr: &str| here(addr.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:4001"), "127.0.0.1:4001");
        assert_eq!(asked("[::]:4001"), "[::1]:4001");
        assert_eq!(asked("127.0.0.7:1"), "127.0.0.7:1");
    }
}
