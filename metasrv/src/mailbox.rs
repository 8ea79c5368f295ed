//! Instructions to nodes, and their replies. Both travel on the heartbeat streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use metasrv_core::grant::Reported;
use metasrv_core::id::{NodeKey, Role};
use metasrv_proto::meta::{HeartbeatResponse, MailboxMessage, ResponseHeader, mailbox_message};
use tokio::sync::oneshot;

use crate::clock::wall_clock_ms;
use crate::leader::Leader;
use crate::pusher::{PushError, Pushers};
use crate::wire;

/// Why an instruction has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MailboxError {
    /// It was not sent.
    #[error("{node}: {why}")]
    NotSent {
        /// To whom.
        node: NodeKey,
        /// Why not.
        why: PushError,
    },
    /// It was sent; whether it was carried out is unknown.
    #[error("{node} did not reply within {waited:?}; whether it carried the instruction out is unknown")]
    TimedOut {
        /// To whom.
        node: NodeKey,
        /// How long the reply was waited for.
        waited: Duration,
    },
}

struct Pending {
    node: NodeKey,
    reply: oneshot::Sender<MailboxMessage>,
}

/// Sends messages to nodes and resolves each with its reply.
pub struct HeartbeatMailbox {
    pushers: Arc<Pushers>,
    pending: DashMap<u64, Pending>,
    next_id: AtomicU64,
}

impl HeartbeatMailbox {
    /// A mailbox over these pushers. Ids begin at a random number, so that a late reply to another leader's
    /// message is not taken for a reply to one of ours.
    pub fn new(pushers: Arc<Pushers>) -> HeartbeatMailbox {
        let first = u64::from(rand::random::<u32>()) << 24;
        HeartbeatMailbox { pushers, pending: DashMap::new(), next_id: AtomicU64::new(first) }
    }

    /// A message of ours, with an id of its own.
    pub fn message(
        &self,
        node: &NodeKey,
        subject: &str,
        payload: mailbox_message::Payload,
    ) -> MailboxMessage {
        MailboxMessage {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            subject: subject.to_owned(),
            from: "metasrv".to_owned(),
            to: node.to_string(),
            timestamp_millis: i64::try_from(wall_clock_ms()).unwrap_or(i64::MAX),
            payload: Some(payload),
            header: None,
        }
    }

    /// Pushes a message to one node and waits for its reply.
    ///
    /// # Errors
    /// [`MailboxError::NotSent`] where the node is not connected or does not read, [`MailboxError::TimedOut`]
    /// where no reply came in time: a reply that comes later changes nothing.
    pub async fn send(
        &self,
        node: &NodeKey,
        header: ResponseHeader,
        message: MailboxMessage,
        timeout: Duration,
    ) -> Result<MailboxMessage, MailboxError> {
        let id = message.id;
        let (reply, replied) = oneshot::channel();
        self.pending.insert(id, Pending { node: *node, reply });
        let _forget = Forget { mailbox: self, id };
        self.push(node, header, message)?;
        match tokio::time::timeout(timeout, replied).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(_)) | Err(_) => Err(MailboxError::TimedOut { node: *node, waited: timeout }),
        }
    }

    /// Pushes a message to one node and waits for nothing: what it caused shows in the node's reports.
    ///
    /// # Errors
    /// [`MailboxError::NotSent`] where the node is not connected or does not read.
    pub fn push(
        &self,
        node: &NodeKey,
        header: ResponseHeader,
        message: MailboxMessage,
    ) -> Result<(), MailboxError> {
        let response = HeartbeatResponse {
            header: Some(header),
            mailbox_message: Some(message),
            ..HeartbeatResponse::default()
        };
        self.pushers.push(node, response).map_err(|why| MailboxError::NotSent { node: *node, why })
    }

    /// Tells a node of regions that its routes give it, at once; whatever is lost here is repeated with a heartbeat.
    pub fn open_regions(&self, leader: &Leader, node: &NodeKey, regions: &[Reported]) {
        // A peer that knows nothing of our extensions would not understand it. And a process that waits for its predecessor's
        // end would claim the region's epoch at the storage, and could not be granted it: nobody could write then.
        let process = self.pushers.process(node).filter(|process| process.nonce != 0);
        if !process.is_some_and(|process| leader.may_be_granted(node, process)) {
            return;
        }
        let payload = mailbox_message::Payload::Instruction(wire::open_regions(leader.term(), regions));
        let message = self.message(node, "open regions", payload);
        let header = wire::response_header(node, leader.term(), leader.installation());
        let outcome = match self.push(node, header, message) {
            Ok(()) => "sent",
            Err(error) => {
                tracing::debug!(%error, "an instruction waits for the node's next heartbeat");
                "not_sent"
            }
        };
        leader.count_instruction("open_regions", outcome);
    }

    /// The way to each connected node.
    pub fn pushers(&self) -> &Arc<Pushers> {
        &self.pushers
    }

    /// Pushes a message to every connected node of a role; `header` makes each one's header. Says to how many.
    pub fn broadcast(
        &self,
        role: Role,
        header: impl Fn(&NodeKey) -> ResponseHeader,
        subject: &str,
        payload: &mailbox_message::Payload,
    ) -> usize {
        let nodes = self.pushers.nodes(role);
        nodes
            .iter()
            .filter(|node| {
                self.push(node, header(node), self.message(node, subject, payload.clone())).is_ok()
            })
            .count()
    }

    /// Takes a reply. `false` where nobody waits for it, or where it comes from another node than it was sent to.
    pub fn reply(&self, node: &NodeKey, message: MailboxMessage) -> bool {
        let Some((_, pending)) = self.pending.remove_if(&message.id, |_, pending| pending.node == *node)
        else {
            return false;
        };
        pending.reply.send(message).is_ok()
    }

    /// How many replies are waited for.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }
}

/// Forgets a message when its sender stops waiting, also when it is cancelled.
struct Forget<'a> {
    mailbox: &'a HeartbeatMailbox,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.mailbox.pending.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{ClusterId, Incarnation, NodeId};
    use tokio::sync::mpsc;

    fn node(id: u64) -> NodeKey {
        NodeKey::datanode(ClusterId(0), NodeId(id))
    }

    fn json(text: &str) -> mailbox_message::Payload {
        mailbox_message::Payload::Json(text.to_owned())
    }

    fn mailbox() -> (Arc<Pushers>, Arc<HeartbeatMailbox>) {
        let pushers = Arc::new(Pushers::default());
        (Arc::clone(&pushers), Arc::new(HeartbeatMailbox::new(pushers)))
    }

    #[tokio::test]
    async fn a_message_resolves_with_the_reply_of_the_node_it_was_sent_to() {
        let (pushers, mailbox) = mailbox();
        let (sender, mut stream) = mpsc::channel(4);
        let _registered = pushers.register(node(1), Incarnation::default(), sender);
        let message = mailbox.message(&node(1), "test", json("ping"));
        let sending = {
            let mailbox = Arc::clone(&mailbox);
            tokio::spawn(async move {
                mailbox.send(&node(1), ResponseHeader::default(), message, Duration::from_secs(5)).await
            })
        };
        let Some(Ok(pushed)) = stream.recv().await else { panic!("nothing was pushed") };
        let id = pushed.mailbox_message.map(|message| message.id).unwrap_or_default();
        let reply = MailboxMessage { id, payload: Some(json("pong")), ..MailboxMessage::default() };
        assert!(!mailbox.reply(&node(2), reply.clone()), "another node's reply counts for nothing");
        assert!(mailbox.reply(&node(1), reply.clone()));
        assert_eq!(sending.await.unwrap(), Ok(reply.clone()));
        assert!(!mailbox.reply(&node(1), reply), "a repeated reply changes nothing");
        assert_eq!(mailbox.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_reply_times_out_and_is_forgotten() {
        let (pushers, mailbox) = mailbox();
        let (sender, _stream) = mpsc::channel(4);
        let _registered = pushers.register(node(1), Incarnation::default(), sender);
        let message = mailbox.message(&node(1), "test", json("ping"));
        let id = message.id;
        let result = mailbox.send(&node(1), ResponseHeader::default(), message, Duration::from_secs(5)).await;
        assert!(matches!(result, Err(MailboxError::TimedOut { .. })));
        assert!(!mailbox.reply(&node(1), MailboxMessage { id, ..MailboxMessage::default() }), "too late");
        assert_eq!(mailbox.waiting(), 0);
    }

    #[tokio::test]
    async fn a_node_without_stream_is_not_connected() {
        let (_, mailbox) = mailbox();
        let message = mailbox.message(&node(1), "test", json("ping"));
        let result = mailbox.send(&node(1), ResponseHeader::default(), message, Duration::from_secs(5)).await;
        assert_eq!(result, Err(MailboxError::NotSent { node: node(1), why: PushError::NotConnected }));
        assert_eq!(mailbox.waiting(), 0);
    }

    #[tokio::test]
    async fn a_broadcast_reaches_the_nodes_of_its_role_only() {
        let (pushers, mailbox) = mailbox();
        let (datanode, mut to_datanode) = mpsc::channel(4);
        let (frontend, mut to_frontend) = mpsc::channel(4);
        let frontend_key = NodeKey { role: Role::Frontend, cluster: ClusterId(0), id: NodeId(1) };
        let _first = pushers.register(node(1), Incarnation::default(), datanode);
        let _second = pushers.register(frontend_key, Incarnation::default(), frontend);
        let reached =
            mailbox.broadcast(Role::Frontend, |_| ResponseHeader::default(), "test", &json("routes"));
        assert_eq!(reached, 1);
        assert!(to_frontend.recv().await.is_some());
        assert!(to_datanode.try_recv().is_err());
    }
}
