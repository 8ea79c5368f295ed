//! Instructions from metasrv and the replies to them. Both travel on the heartbeat stream.

use metasrv_proto::admin::{Instruction, InstructionReply};
use metasrv_proto::meta::{MailboxMessage, mailbox_message};
use tokio::sync::mpsc;

/// Replies that wait for the stream. They come one per instruction, and instructions are carried out one by one.
const OUTGOING: usize = 64;

/// What ties a reply to its instruction.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MessageMeta {
    /// Number of the instruction.
    pub id: u64,
    /// What it is about.
    pub subject: String,
    /// Who sent it.
    pub from: String,
    /// To whom.
    pub to: String,
}

/// An instruction from metasrv.
#[derive(Clone, PartialEq, Debug)]
pub struct IncomingMessage {
    /// What its reply has to carry.
    pub meta: MessageMeta,
    /// What to do.
    pub instruction: Instruction,
}

/// A reply on its way to metasrv.
#[derive(Clone, PartialEq, Debug)]
pub struct OutgoingMessage {
    /// As in the instruction, with sender and receiver exchanged.
    pub meta: MessageMeta,
    /// What became of it.
    pub reply: InstructionReply,
}

impl IncomingMessage {
    /// The instruction in a message; `None` where it carries none that we know.
    pub fn from_wire(message: &MailboxMessage) -> Option<IncomingMessage> {
        let Some(mailbox_message::Payload::Instruction(instruction)) = &message.payload else { return None };
        let meta = MessageMeta {
            id: message.id,
            subject: message.subject.clone(),
            from: message.from.clone(),
            to: message.to.clone(),
        };
        Some(IncomingMessage { meta, instruction: instruction.clone() })
    }

    /// The message that answers this one.
    pub fn answer(self, reply: InstructionReply) -> OutgoingMessage {
        let MessageMeta { id, subject, from, to } = self.meta;
        OutgoingMessage { meta: MessageMeta { id, subject, from: to, to: from }, reply }
    }
}

impl OutgoingMessage {
    /// As it goes into a request.
    pub(crate) fn into_wire(self, timestamp_ms: u64) -> MailboxMessage {
        MailboxMessage {
            id: self.meta.id,
            subject: self.meta.subject,
            from: self.meta.from,
            to: self.meta.to,
            timestamp_millis: i64::try_from(timestamp_ms).unwrap_or(i64::MAX),
            payload: Some(mailbox_message::Payload::InstructionReply(self.reply)),
            header: None,
        }
    }
}

/// Where replies are put. Clones are cheap.
#[derive(Clone, Debug)]
pub struct HeartbeatMailbox {
    outgoing: mpsc::Sender<OutgoingMessage>,
}

/// The heartbeat task is gone: there is no stream to reply on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the heartbeat task has ended")]
pub struct Ended;

impl HeartbeatMailbox {
    /// A mailbox, and the end from which the heartbeat task takes its requests.
    pub fn new() -> (HeartbeatMailbox, mpsc::Receiver<OutgoingMessage>) {
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        (HeartbeatMailbox { outgoing }, requests)
    }

    /// Puts a reply into the mailbox; waits for room while there is no stream.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn send(&self, message: OutgoingMessage) -> Result<(), Ended> {
        self.outgoing.send(message).await.map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_goes_back_to_where_the_instruction_came_from() {
        let message = MailboxMessage {
            id: 9,
            subject: "open regions".to_owned(),
            from: "metasrv".to_owned(),
            to: "datanode-1".to_owned(),
            payload: Some(mailbox_message::Payload::Instruction(Instruction {
                term: 3,
                ..Instruction::default()
            })),
            ..MailboxMessage::default()
        };
        let incoming = IncomingMessage::from_wire(&message).unwrap();
        assert_eq!(incoming.instruction.term, 3);
        let (mailbox, mut requests) = HeartbeatMailbox::new();
        mailbox.send(incoming.answer(InstructionReply::default())).await.unwrap();
        let reply = requests.recv().await.unwrap().into_wire(5);
        assert_eq!((reply.id, reply.from.as_str(), reply.to.as_str()), (9, "datanode-1", "metasrv"));
        assert!(matches!(reply.payload, Some(mailbox_message::Payload::InstructionReply(_))));
        drop(requests);
        assert_eq!(
            mailbox
                .send(OutgoingMessage { meta: MessageMeta::default(), reply: InstructionReply::default() })
                .await,
            Err(Ended)
        );
    }

    #[test]
    fn what_is_no_instruction_is_none() {
        assert_eq!(IncomingMessage::from_wire(&MailboxMessage::default()), None);
        let json = MailboxMessage {
            payload: Some(mailbox_message::Payload::Json("{}".to_owned())),
            ..MailboxMessage::default()
        };
        assert_eq!(IncomingMessage::from_wire(&json), None);
    }
}
