//! Free ports of 127.0.0.1, kept for children that may be killed and started again.
//!
//! Asking the kernel for a free port and closing it again is not enough: before the child binds it, an outgoing
//! connection or another playground may get it. So ports come from above the range that Linux gives to outgoing
//! connections, and each one is claimed by a socket of an abstract name. Such a name belongs to the network namespace,
//! as the port does, and is gone with the process that holds it, however that ends.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rand::seq::SliceRandom as _;

/// Linux gives ports up to 60,999 to outgoing connections.
const RANGE: std::ops::Range<u16> = 61_000..65_500;

/// The ports of one playground, from when they are taken until this value is dropped.
pub struct Ports {
    /// Those not tried yet, in random order, so that two playgrounds seldom meet.
    untried: Vec<u16>,
    claims: Vec<UnixDatagram>,
}

impl Ports {
    /// None is taken yet.
    pub fn new() -> Ports {
        let mut untried: Vec<u16> = RANGE.collect();
        untried.shuffle(&mut rand::rng());
        Ports { untried, claims: Vec::new() }
    }

    /// Takes a port on which nobody listens and which no other playground has taken.
    ///
    /// # Errors
    /// All of them are in use.
    pub fn take(&mut self) -> Result<u16, String> {
        while let Some(port) = self.untried.pop() {
            let Some(claim) = claim(port) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                continue;
            }
            self.claims.push(claim);
            return Ok(port);
        }
        Err(format!("no free port on 127.0.0.1 from {} to {}", RANGE.start, RANGE.end - 1))
    }
}

/// The socket that says that this port is taken; none if another process said so before.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("metasrv-playground-port-{port}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_until_its_holder_is_gone() {
        let mut ports = Ports::new();
        let port = ports.take().unwrap();
        assert!(RANGE.contains(&port));
        assert!(claim(port).is_none(), "it is taken");
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "its user can bind it");
        drop(ports);
        assert!(claim(port).is_some(), "it is free again");
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let mut first = Ports::new();
        let port = first.take().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(first);
        let mut second = Ports { untried: vec![port], claims: Vec::new() };
        assert!(second.take().is_err());
        drop(listener);
    }
}
