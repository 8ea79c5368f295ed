//! A model of etcd: what metasrv relies on, on etcd's own wire, with its faults.
//!
//! One state stands for the whole cluster, since etcd is linearizable; its members differ only in whether they reach the
//! others. The contract suite (`tests/tests/store_contract.rs`) holds the model to what a real etcd does.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the members, and what befalls them |
//! | `state.rs` | keys and their history, transactions, compaction, leases |
//! | `txn.rs` | what a transaction compares, does and answers |
//! | `kv.rs` | the KV service |
//! | `lease.rs` | the Lease service |
//! | `watch.rs` | the Watch service |
//! | `election.rs` | the Election service: the queue of a campaign |
//! | `served.rs` | the model over TCP, for the contract |

mod election;
mod kv;
mod lease;
pub mod served;
mod state;
mod txn;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch as value;
use tonic::Status;
use tonic::transport::server::Router;

use crate::plant::Plant;
use state::State;
pub use state::{Change, Commit};

/// Generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::panic)]
pub(crate) mod pb {
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod v3electionpb {
        tonic::include_proto!("v3electionpb");
    }
}

/// A request that finds no quorum is answered after so long.
const NO_QUORUM: Duration = Duration::from_secs(7);

/// A cluster of so many members, one of which a client chooses by its endpoint.
pub const MEMBERS: usize = 3;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct ModelEtcd {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    health: Mutex<Health>,
    /// Raised with each change of the state or of what is served.
    changed: value::Sender<u64>,
}

/// What befalls the members.
struct Health {
    random: StdRng,
    /// Members that do not reach the others.
    alone: [bool; MEMBERS],
    /// Nobody leads them until then.
    leaderless_until: u64,
    /// Of a thousand writes so many are done and not answered, and as many are answered with an error.
    lost_per_mille: u32,
    /// Longest time that a write takes, in milliseconds.
    write_ms: u64,
}

/// What becomes of the answer to a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reply {
    Sent,
    /// The write is done, and nobody says so.
    Swallowed,
    /// The write is done, and an error says that it may not be.
    Denied,
}

impl ModelEtcd {
    /// An empty cluster.
    pub fn new(seed: u64) -> ModelEtcd {
        let health = Health {
            random: StdRng::seed_from_u64(seed),
            alone: [false; MEMBERS],
            leaderless_until: 0,
            lost_per_mille: 0,
            write_ms: 2,
        };
        let shared = Shared {
            state: Mutex::new(State::new(seed)),
            health: Mutex::new(health),
            changed: value::channel(0).0,
        };
        ModelEtcd { shared: Arc::new(shared) }
    }

    /// The services of one member, to be served at its address.
    pub fn member(&self, index: usize) -> Router {
        let member = Member { etcd: self.clone(), index };
        tonic::transport::Server::builder()
            .add_service(pb::etcdserverpb::kv_server::KvServer::new(member.clone()))
            .add_service(pb::etcdserverpb::lease_server::LeaseServer::new(member.clone()))
            .add_service(pb::etcdserverpb::watch_server::WatchServer::new(member.clone()))
            .add_service(pb::v3electionpb::election_server::ElectionServer::new(member))
    }

    /// Makes a mistake from now on.
    pub fn plant(&self, plant: Option<Plant>) {
        self.state().plant = plant;
    }

    /// It is now, in nanoseconds of etcd's clock: leases that are over expire.
    pub fn advance(&self, now: u64) {
        let expired = {
            let serving = self.health().serves_anybody(now);
            let mut state = self.state();
            state.advance(now);
            serving && state.expire()
        };
        let back = {
            let mut health = self.health();
            let back = health.leaderless_until > 0 && health.leaderless_until <= now;
            if back {
                health.leaderless_until = 0;
            }
            back
        };
        if back {
            // Whoever leads them now gives every lease its whole TTL again.
            self.state().extend_leases();
        }
        if expired || back {
            self.changed();
        }
    }

    /// The members elect another leader, and serve nothing for so long.
    pub fn change_leader(&self, takes: Duration) {
        let now = self.state().now();
        let nanos = u64::try_from(takes.as_nanos()).unwrap_or(0);
        self.health().leaderless_until = now + nanos.max(1);
        self.changed();
    }

    /// A member reaches the others, or does not; without two that reach each other nothing is served.
    pub fn isolate(&self, member: usize, alone: bool) {
        let regained = {
            let mut health = self.health();
            let before = health.has_quorum();
            health.alone[member] = alone;
            !before && health.has_quorum()
        };
        if regained {
            // Without a quorum nobody led them.
            self.change_leader(Duration::from_millis(500));
        }
        self.changed();
    }

    /// Of a thousand writes so many lose their answers from now on.
    pub fn lose_answers(&self, per_mille: u32) {
        self.health().lost_per_mille = per_mille;
    }

    /// Writes take up to so long.
    pub fn slow_writes(&self, millis: u64) {
        self.health().write_ms = millis;
    }

    /// Puts and new leases are refused, or taken again.
    pub fn out_of_space(&self, full: bool) {
        self.state().set_alarm(full);
    }

    /// Forgets the history up to the present revision.
    pub fn compact(&self) {
        let mut state = self.state();
        let present = state.revision();
        // It can only be refused where it is compacted already.
        let _ = state.compact(present);
        drop(state);
        self.changed();
    }

    /// Everything is healthy again.
    pub fn heal(&self) {
        for member in 0..MEMBERS {
            self.isolate(member, false);
        }
        self.lose_answers(0);
        self.slow_writes(2);
        self.out_of_space(false);
    }

    /// What was committed since this was asked last.
    pub fn commits(&self) -> Vec<Commit> {
        self.state().take_commits()
    }

    /// Every key below a prefix and its value, in order.
    pub fn stored(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.state().stored(prefix)
    }

    /// The value of the oldest key below a prefix.
    pub fn oldest(&self, prefix: &str) -> Option<Vec<u8>> {
        self.state().oldest(prefix)
    }

    /// How many leases expired so far.
    pub fn expired(&self) -> u64 {
        self.state().expired
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.shared.changed.send_modify(|changes| *changes += 1);
    }
}

impl Health {
    fn has_quorum(&self) -> bool {
        self.alone.iter().filter(|alone| !**alone).count() * 2 > MEMBERS
    }

    fn serves_anybody(&self, now: u64) -> bool {
        self.has_quorum() && self.leaderless_until <= now
    }
}

/// A member, as its services know it.
#[derive(Clone)]
struct Member {
    etcd: ModelEtcd,
    index: usize,
}

impl Member {
    fn serves(&self) -> bool {
        let now = self.etcd.state().now();
        let health = self.etcd.health();
        health.serves_anybody(now) && !health.alone[self.index]
    }

    /// Comes back when this member can serve.
    async fn ready(&self) -> Result<(), Status> {
        let mut changes = self.etcd.shared.changed.subscribe();
        let served = async {
            while !self.serves() {
                // The sender is ours.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(NO_QUORUM, served).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Status::unavailable("etcdserver: request timed out")),
        }
    }

    /// Does a write when its turn has come, and answers, or does not.
    async fn write<T>(&self, write: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<T, Status> {
        let (pause, reply) = {
            let mut health = self.etcd.health();
            let most = health.write_ms;
            let pause = health.random.random_range(0..=most);
            let lost = health.lost_per_mille;
            let reply = match health.random.random_range(0..1_000) {
                drawn if drawn < lost => Reply::Swallowed,
                drawn if drawn < 2 * lost => Reply::Denied,
                _ => Reply::Sent,
            };
            (pause, reply)
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.ready().await?;
        let done = write(&mut self.etcd.state());
        self.etcd.changed();
        match reply {
            Reply::Sent => done,
            Reply::Swallowed => std::future::pending().await,
            Reply::Denied => Err(Status::unavailable("etcdserver: leader changed")),
        }
    }
}
