//! The client against small replicas that say what each test needs.

mod admin;
mod ask;
mod certificate;
mod frontend;
mod heartbeat;
mod operations;
mod routes;
mod standby;
mod suspicion;

use std::time::Duration;

use metasrv_proto::meta::Role;

use crate::{MetaClient, MetaClientConfig};

/// A client of datanode 7 with short deadlines.
fn client<'a>(peers: impl IntoIterator<Item = &'a str>) -> MetaClient {
    client_with(peers, Role::Datanode, |_| {})
}

fn client_with<'a>(
    peers: impl IntoIterator<Item = &'a str>,
    role: Role,
    change: impl FnOnce(&mut MetaClientConfig),
) -> MetaClient {
    let mut config = MetaClientConfig::new(peers, role, if role == Role::Frontend { 0 } else { 7 });
    config.timeouts.ask = Duration::from_millis(500);
    config.timeouts.handshake = Duration::from_millis(800);
    change(&mut config);
    MetaClient::try_new(config).expect("a valid configuration")
}
