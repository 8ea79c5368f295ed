//! A standby's eye on the leader's process: where it is gone, its lease is revoked instead of waited for.
//!
//! A standby holds a connection to the leader's port, and says nothing on it. If that connection ends **and** the port
//! refuses a new one, no process listens there any more: the kernel of the leader's machine says so itself. A leader
//! that hangs, or is cut off, keeps its connection or answers nothing, and is replaced when its TTL is over.
//!
//! This may be wrong (a proxy in between may refuse), and is safe all the same: a leader that was deposed can write
//! nothing, because every write compares the fence; and before a region changes hands, a successor of a leader that did
//! not resign waits for TTL + L·(1+ρ), so for everything that leader may have granted (design 03, "fast takeover").
//! It cannot go on for ever: each revocation needs a connection that was open to that very leader before.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::LeaseId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::etcd::election::EtcdElection;
use crate::handler::KnownLeader;
use crate::observer::View;

/// Deadline of one attempt to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// Between two attempts to connect to a leader that lives.
const RETRY: Duration = Duration::from_secs(1);

/// Between the end of a connection and the first attempt to make another.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// What became of an attempt to connect.
enum Port {
    /// Somebody listens.
    Open(TcpStream),
    /// Nobody does.
    Refuses,
    /// Nobody knows: the name does not resolve, or no answer came.
    Silent,
}

/// Watches whoever leads, until the process ends.
pub async fn watch(election: Arc<EtcdElection>, view: watch::Receiver<View>) {
    let mut changes = view.clone();
    loop {
        let leader = other_leader(&changes.borrow_and_update());
        let watched = async {
            match &leader {
                Some((leader, lease)) => watch_leader(&election, leader, *lease).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            // What is not about who leads is no news here.
            let news = changes.wait_for(|view| other_leader(view) != leader).await;
            news.is_ok()
        };
        tokio::select! {
            biased;
            // The sender is gone only when the replica is.
            news = changed => if !news { return },
            () = watched => {}
        }
    }
}

/// The leader, if it is another replica, and the lease under its key.
fn other_leader(view: &View) -> Option<(KnownLeader, LeaseId)> {
    let leader = view.leader.clone().filter(|leader| Some(&leader.addr) != view.own_addr.as_ref())?;
    Some((leader, view.leader_lease?))
}

/// Comes back when there is reason to look who leads again.
async fn watch_leader(election: &EtcdElection, leader: &KnownLeader, lease: LeaseId) {
    let (mut was_open, mut pause) = (false, FIRST_PAUSE);
    loop {
        match connect(&leader.addr).await {
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
            Port::Refuses if was_open => break,
            Port::Refuses | Port::Silent => tokio::time::sleep(RETRY).await,
        }
    }
    tracing::warn!(
        term = %leader.term, leader = leader.name, addr = leader.addr,
        "the leader's process is gone: its connection ended and its port refuses; revoking its lease"
    );
    if let Err(error) = election.revoke(lease.0).await {
        tracing::warn!(%error, "the lease could not be revoked; it expires by itself");
    }
    // Its key is gone, and the view will say so; if not, there is no hurry to look again.
    tokio::time::sleep(RETRY).await;
}

async fn connect(addr: &str) -> Port {
    match tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await {
        Ok(Ok(connection)) => Port::Open(connection),
        // Where a name has several addresses, this is the last one's error: all of them failed.
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Port::Refuses,
        Ok(Err(_)) | Err(_) => Port::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::Term;

    fn view(leader: &str, own: &str, lease: Option<i64>) -> View {
        let known = KnownLeader { addr: leader.to_owned(), name: "x".to_owned(), term: Term(1) };
        View {
            leader: Some(known),
            own_addr: Some(own.to_owned()),
            leader_lease: lease.map(LeaseId),
            ..View::default()
        }
    }

    #[test]
    fn only_another_replica_whose_lease_is_known_is_watched() {
        assert!(other_leader(&view("a:1", "b:1", Some(7))).is_some());
        assert!(other_leader(&view("a:1", "a:1", Some(7))).is_none(), "not ourselves");
        assert!(other_leader(&view("a:1", "b:1", None)).is_none());
        assert!(other_leader(&View::default()).is_none());
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_told_from_one_that_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        assert!(matches!(connect(&addr).await, Port::Open(_)));
        drop(listener);
        assert!(matches!(connect(&addr).await, Port::Refuses));
        assert!(matches!(connect("no such name:1").await, Port::Silent));
    }
}
