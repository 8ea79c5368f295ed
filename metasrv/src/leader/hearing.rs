//! What is heard of nodes: which process they are, that they live, how they are, and that a process has ended.

use std::time::Duration;

use metasrv_core::detector::{Health, Heartbeats, Listening, Stall};
use metasrv_core::failover::{Certificate, Proof};
use metasrv_core::id::{Incarnation, NodeKey, Role, Term};
use metasrv_core::incarnation::{Holds, Standing};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::DirectoryLock;
use metasrv_proto::meta::NodeInfo;
use tokio::sync::oneshot;

use super::Leader;
use super::node::Node;
use super::registrar::Request;
use crate::control::event;
use crate::record;

/// Where a process that names itself stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// It is the recorded process of its node.
    Current,
    /// It waits: for the store, or for what its predecessor was granted.
    Waiting,
    /// A newer one is known, of this epoch.
    Stale(u64),
}

/// The end of a process could not be recorded now.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("the end of the process could not be recorded now; say it again")]
pub struct NotStored;

impl Leader {
    /// Where this process of a datanode stands; has it recorded if its time has come, and waits for that up to
    /// `patience`. Frontends and flownodes hold nothing that two could write to: they are always current.
    pub async fn identify(
        &self,
        node: &NodeKey,
        process: Incarnation,
        addr: &str,
        lock: Option<&DirectoryLock>,
        patience: Duration,
    ) -> Identity {
        if node.role != Role::Datanode {
            return Identity::Current;
        }
        let recorded = {
            let mut entry = self.nodes.entry(*node).or_default();
            let now = self.clock.now();
            if lock_proves_end(&entry, process, lock) {
                let ended = entry.holder.current().unwrap_or_default();
                // A successor that has to wait for the store asks again with each heartbeat.
                let is_news = entry.certificate.is_none_or(|known| known.ended != ended);
                if is_news {
                    self.tell(event::process_ended(
                        node,
                        "its successor holds the lock of its data directory",
                    ));
                }
                entry.holder.certify_end(ended);
                entry.certificate = Some(Certificate { ended, proof: Proof::LockTaken { by: process } });
                if is_news {
                    tracing::info!(
                        term = %self.term, %node, node_epoch = process.epoch, ended = ended.epoch,
                        "a restarted process holds the lock of its predecessor, which has ended: it does not wait"
                    );
                }
            }
            let holds = if entry.regions.is_empty() { Holds::Nothing } else { Holds::Regions };
            match entry.holder.offer(process, holds, self.settled_at, self.timing.grant_wait(), now) {
                Standing::Current => return Identity::Current,
                Standing::Stale(known) => return Identity::Stale(known),
                Standing::Waits(until) => {
                    if entry.waits_for != Some(process) {
                        entry.waits_for = Some(process);
                        tracing::info!(
                            term = %self.term, %node, node_epoch = process.epoch, wait = ?until.since(now),
                            "a restarted process waits until what its predecessor was granted is over"
                        );
                    }
                    return Identity::Waiting;
                }
                Standing::Admissible if entry.recording => return Identity::Waiting,
                Standing::Admissible => {
                    let (done, recorded) = oneshot::channel();
                    let (addr, lock) = (addr.to_owned(), lock.cloned());
                    let request = Request::Record { node: *node, process, addr, lock, done };
                    if self.registrar.try_send(request).is_err() {
                        return Identity::Waiting;
                    }
                    entry.recording = true;
                    recorded
                }
            }
        };
        match tokio::time::timeout(patience, recorded).await {
            Ok(Ok(())) => Identity::Current,
            Ok(Err(_)) | Err(_) => Identity::Waiting,
        }
    }

    /// A node was heard of.
    pub fn heard_of(
        &self,
        node: &NodeKey,
        process: Option<Incarnation>,
        addr: &str,
        info: Option<&NodeInfo>,
        now: BootTime,
        wall_ms: u64,
    ) {
        let mut entry = self.nodes.entry(*node).or_default();
        entry.last_activity_ms = wall_ms;
        let changed = entry.addr != addr || (process.is_some() && entry.process != process);
        if changed {
            entry.addr = addr.to_owned();
            entry.process = process.or(entry.process);
        }
        if let Some(info) = info {
            entry.version.clone_from(&info.version);
            entry.hostname.clone_from(&info.hostname);
            entry.zone.clone_from(&info.zone);
            entry.host.clone_from(&info.host);
            entry.weight = info.weight;
        }
        if node.role == Role::Datanode {
            let listening = self.listening();
            let interval = self.heartbeat_interval();
            let known = entry.heartbeats.get_or_insert_with(|| Heartbeats::none_yet(interval, &listening));
            known.arrived(interval, &listening, now);
        }
        let first = !std::mem::replace(&mut entry.heard, true);
        if first && entry.offered_term > Term(0) {
            entry.lease_due_at = now + share(*node, self.timing.region_lease);
        }
        if changed || now >= entry.lease_due_at {
            let value = record::encode(&entry.lease_record(self.term));
            if self.write_behind.offer(self.keys.lease(node), value).is_ok() {
                entry.lease_due_at = now + self.timing.region_lease;
                entry.offered_term = self.term;
            }
        }
    }

    /// A node's stream has ended. A frontend that comes back brings its id, or gets another: nothing is lost with what
    /// is known of it, and kept for ever it would be one more record for each time that a frontend was started.
    pub fn left(&self, node: &NodeKey) {
        if let Some(heartbeats) =
            self.nodes.get_mut(node).as_mut().and_then(|entry| entry.heartbeats.as_mut())
        {
            heartbeats.stream_ended();
        }
        // Not where the term ended: the next leader shall know who was there.
        if node.role == Role::Frontend && self.leads(self.clock.now()) {
            self.forget(node);
        }
    }

    pub(super) fn forget(&self, node: &NodeKey) {
        if self.write_behind.remove(self.keys.lease(node)).is_ok() {
            self.nodes.remove(node);
        }
    }

    /// Forgets the frontends that were there under an earlier leader and have not come back under this one.
    pub(super) fn forget_lost_frontends(&self) {
        let lost = |node: &Node| !node.heard;
        let nodes = self.nodes.iter().filter(|entry| entry.key().role == Role::Frontend && lost(entry));
        let nodes: Vec<NodeKey> = nodes.map(|entry| *entry.key()).collect();
        for node in nodes {
            self.forget(&node);
        }
    }

    /// The clock by which silence is counted, as it stands.
    pub fn listening(&self) -> Listening {
        *self.listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The control loop turned. Says by how much too late, if it did.
    pub fn listened(&self, now: BootTime) -> Option<Stall> {
        self.listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner).turned(now)
    }

    /// How a node is, as far as one can hear.
    pub fn health(&self, node: &Node, listening: &Listening, now: BootTime) -> Health {
        let none_yet = || Heartbeats::none_yet(self.heartbeat_interval(), listening);
        node.heartbeats.unwrap_or_else(none_yet).judge(listening, now)
    }

    /// A supervisor has reaped the process with this nonce. Says which process that was, where it is the recorded one of
    /// its node: it is granted nothing any more, and that it has ended is stored.
    ///
    /// # Errors
    /// [`NotStored`]: the supervisor shall say it again.
    pub async fn certify_end(
        &self,
        node: &NodeKey,
        nonce: u64,
        how: &str,
    ) -> Result<Option<Incarnation>, NotStored> {
        let ended = {
            let Some(mut entry) = self.nodes.get_mut(node) else { return Ok(None) };
            // A process whose clock stepped back has another epoch than its supervisor gave it: the nonce tells it.
            let recorded = entry.holder.current().filter(|recorded| nonce != 0 && recorded.nonce == nonce);
            let Some(ended) = recorded else { return Ok(None) };
            entry.holder.certify_end(ended);
            ended
        };
        tracing::info!(
            term = %self.term, %node, node_epoch = ended.epoch, how, "a process has ended: its supervisor says so"
        );
        let (done, stored) = oneshot::channel();
        let request = Request::Ended { node: *node, ended, how: how.to_owned(), done };
        self.registrar.try_send(request).map_err(|_| NotStored)?;
        stored.await.map_err(|_| NotStored)?;
        Ok(Some(ended))
    }
}

/// The part of a period that is this node's: a thousand nodes come to a new leader within a second, and their leases are
/// not all written again in that second.
fn share(node: NodeKey, period: Duration) -> Duration {
    // Ids that follow each other come far apart: multiplied by the golden ratio of a whole turn (Knuth, 6.4).
    let turned = node.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    period.mul_f64(f64::from(u32::try_from(turned).unwrap_or(u32::MAX)) / f64::from(u32::MAX))
}

/// Whether the lock that a newer process holds proves that the recorded one has ended (design 03, rule 4c): the same lock, on
/// the same machine, not started again since.
fn lock_proves_end(node: &Node, process: Incarnation, lock: Option<&DirectoryLock>) -> bool {
    let (Some(recorded), Some(held), Some(lock)) = (node.holder.current(), &node.directory_lock, lock) else {
        return false;
    };
    process > recorded && held == lock && lock.directory_id != 0 && !lock.boot_id.is_empty()
}
