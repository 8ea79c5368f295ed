//! The sharpest evidence: the leader's process is gone.
//!
//! A standby holds a connection to the leader's port, and says nothing on it. If that connection ends **and** the port
//! refuses a new one, no process listens there any more: the kernel of the leader's machine says so itself. A leader
//! that hangs, or is cut off, keeps its connection or answers nothing; that takes the longer way of `vote.rs`.
//!
//! This may be wrong (a proxy in between may refuse). It cannot go on for ever: each time needs a connection that was open
//! to that very leader before.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use crate::peer::Peers;

/// Deadline of one attempt to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// Between two attempts to connect to a leader that lives.
const RETRY: Duration = Duration::from_secs(1);

/// Between the end of a connection and the first attempt to make another.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// What became of an attempt to connect.
enum Port {
    /// Somebody listens.
    Open(Box<dyn AsyncRead + Send + Unpin>),
    /// Nobody does.
    Refuses,
    /// Nobody knows: the name does not resolve, or no answer came.
    Silent,
}

/// Comes back once a connection to this port was open, ended, and none can be made any more.
pub async fn gone(peers: &Peers, addr: &str) {
    let (mut was_open, mut pause) = (false, FIRST_PAUSE);
    loop {
        match connect(peers, addr).await {
            Port::Open(mut connection) => {
                was_open = true;
                let opened = Instant::now();
                // Nothing is said on it; whatever ends it, ends the read.
                let mut nothing = [0_u8; 256];
                while connection.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
                // A process that dies closes one thing after another, its port perhaps last. And where somebody ends
                // connections as soon as they are open, there is no hurry for the next one.
                pause = if opened.elapsed() < RETRY { RETRY.min(pause * 2) } else { FIRST_PAUSE };
                tokio::time::sleep(pause).await;
            }
            Port::Refuses if was_open => return,
            Port::Refuses | Port::Silent => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Hands are shaken where replicas do that: a connection without would be ended as soon as the leader has had enough of it.
async fn connect(peers: &Peers, addr: &str) -> Port {
    let connecting = async {
        let stream = peers.open(addr).await?;
        let Some(tls) = peers.tls() else { return Ok(Port::Open(Box::new(stream))) };
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        // Who listens and shakes no hands says nothing of whether it lives.
        Ok(tls.connect(host, stream).await.map_or(Port::Silent, |stream| Port::Open(Box::new(stream))))
    };
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok(port)) => port,
        // Where a name has several addresses, this is the last one's error: all of them failed.
        Ok::<Result<_, std::io::Error>, _>(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Port::Refuses
        }
        Ok(Err(_)) | Err(_) => Port::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_refuses_is_told_from_one_that_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        assert!(matches!(connect(&Peers::default(), &addr).await, Port::Open(_)));
        drop(listener);
        assert!(matches!(connect(&Peers::default(), &addr).await, Port::Refuses));
        assert!(matches!(connect(&Peers::default(), "no such name:1").await, Port::Silent));
    }
}
