//! The way back to each connected node: one pusher per node, the sending half of its stream's responses.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use metasrv_core::id::{Incarnation, NodeKey, Role};
use metasrv_proto::meta::HeartbeatResponse;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// What a stream sends to its node. Boxed, because a channel keeps room for 32 of them, also where it is empty: 20 kB for each
/// quiet node.
pub type ResponseSender = mpsc::Sender<Result<Box<HeartbeatResponse>, Status>>;

/// The identity of one registration: the end of an old stream never unregisters a newer stream of the same node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PusherId(u64);

/// Tells a stream which process of its node has registered another stream since.
pub type Replaced = oneshot::Receiver<Incarnation>;

/// Why a response was not handed to a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PushError {
    /// The node has no stream to this replica.
    #[error("not connected")]
    NotConnected,
    /// Its stream is full: the node does not read.
    #[error("busy: the node does not read its responses")]
    Busy,
}

struct Pusher {
    id: PusherId,
    sender: ResponseSender,
    process: Incarnation,
    replaced: Option<oneshot::Sender<Incarnation>>,
}

impl Drop for Pusher {
    fn drop(&mut self) {
        // A pusher that is unregistered by its own stream has nobody left to tell.
        self.replaced.take();
    }
}

/// Every connected node's pusher. No lock is held while sending, and sending never waits.
#[derive(Default)]
pub struct Pushers {
    by_node: DashMap<NodeKey, Pusher>,
    next: AtomicU64,
}

impl Pushers {
    /// Makes this stream the one that reaches the node, in the place of any before it, which is told.
    pub fn register(
        &self,
        node: NodeKey,
        process: Incarnation,
        sender: ResponseSender,
    ) -> (PusherId, Replaced) {
        let id = PusherId(self.next.fetch_add(1, Ordering::Relaxed));
        let (replaced, told) = oneshot::channel();
        let pusher = Pusher { id, sender, process, replaced: Some(replaced) };
        if let Some(mut before) = self.by_node.insert(node, pusher)
            && let Some(replaced) = before.replaced.take()
        {
            // The stream may have ended meanwhile; then nobody listens.
            let _ = replaced.send(process);
        }
        (id, told)
    }

    /// Removes this registration, if it still is the node's; says whether it was.
    pub fn unregister(&self, node: &NodeKey, id: PusherId) -> bool {
        self.by_node.remove_if(node, |_, pusher| pusher.id == id).is_some()
    }

    /// Hands a response to the node's stream.
    ///
    /// # Errors
    /// [`PushError::NotConnected`] without a stream, [`PushError::Busy`] where it is full.
    pub fn push(&self, node: &NodeKey, response: HeartbeatResponse) -> Result<(), PushError> {
        let sender =
            self.by_node.get(node).map(|pusher| pusher.sender.clone()).ok_or(PushError::NotConnected)?;
        sender.try_send(Ok(Box::new(response))).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => PushError::Busy,
            mpsc::error::TrySendError::Closed(_) => PushError::NotConnected,
        })
    }

    /// The process that is connected as this node.
    pub fn process(&self, node: &NodeKey) -> Option<Incarnation> {
        self.by_node.get(node).map(|pusher| pusher.process)
    }

    /// Names the stream of this process to this replica. `None`: it has none.
    pub fn stream(&self, node: &NodeKey, process: Incarnation) -> Option<u64> {
        self.by_node.get(node).filter(|pusher| pusher.process == process).map(|pusher| pusher.id.0)
    }

    /// Whether the node has a stream to this replica.
    pub fn is_connected(&self, node: &NodeKey) -> bool {
        self.by_node.contains_key(node)
    }

    /// The connected nodes of a role.
    pub fn nodes(&self, role: Role) -> Vec<NodeKey> {
        self.by_node.iter().map(|entry| *entry.key()).filter(|node| node.role == role).collect()
    }

    /// How many nodes are connected.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    /// Whether no node is connected.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{ClusterId, NodeId};

    fn node(id: u64) -> NodeKey {
        NodeKey::datanode(ClusterId(0), NodeId(id))
    }

    fn process(epoch: u64) -> Incarnation {
        Incarnation { epoch, nonce: 0 }
    }

    #[tokio::test]
    async fn the_end_of_an_old_stream_leaves_the_newer_one_registered() {
        let pushers = Pushers::default();
        let (old, _old_end) = mpsc::channel(1);
        let (new, mut new_end) = mpsc::channel(1);
        let (old_id, told) = pushers.register(node(1), process(1), old);
        let (_, _kept) = pushers.register(node(1), process(2), new);
        assert_eq!(told.await, Ok(process(2)), "the old stream learns by whom it was replaced");
        assert!(!pushers.unregister(&node(1), old_id));
        assert_eq!(pushers.push(&node(1), HeartbeatResponse::default()), Ok(()));
        assert!(new_end.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_node_that_does_not_read_is_busy_and_delays_nobody() {
        let pushers = Pushers::default();
        let (stalled, _never_read) = mpsc::channel(1);
        let (fine, mut read) = mpsc::channel(1);
        let _first = pushers.register(node(1), process(1), stalled);
        let _second = pushers.register(node(2), process(1), fine);
        assert_eq!(pushers.push(&node(1), HeartbeatResponse::default()), Ok(()));
        assert_eq!(pushers.push(&node(1), HeartbeatResponse::default()), Err(PushError::Busy));
        assert_eq!(pushers.push(&node(2), HeartbeatResponse::default()), Ok(()));
        assert!(read.recv().await.is_some());
        assert_eq!(pushers.push(&node(3), HeartbeatResponse::default()), Err(PushError::NotConnected));
    }
}
