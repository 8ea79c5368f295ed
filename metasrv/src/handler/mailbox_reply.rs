//! Replies to instructions reach whoever waits for them.

use std::sync::Arc;

use metasrv_core::id::Role;
use metasrv_proto::meta::HeartbeatRequest;

use super::{Context, HandleControl, HandlerError, HeartbeatAccumulator, HeartbeatHandler};
use crate::mailbox::HeartbeatMailbox;

/// Hands a reply to the mailbox. One that nobody waits for (it came too late) changes nothing.
pub struct MailboxHandler {
    mailbox: Arc<HeartbeatMailbox>,
}

impl MailboxHandler {
    /// For this mailbox.
    pub fn new(mailbox: Arc<HeartbeatMailbox>) -> MailboxHandler {
        MailboxHandler { mailbox }
    }
}

impl HeartbeatHandler for MailboxHandler {
    fn name(&self) -> &'static str {
        "Mailbox"
    }

    fn is_acceptable(&self, _: Role) -> bool {
        true
    }

    fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
        _: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError> {
        if let Some(message) = &request.mailbox_message {
            let awaited = self.mailbox.reply(&context.node, message.clone());
            let outcome = if awaited { "reply" } else { "reply_unawaited" };
            context.metrics.mailbox_messages.with_label_values(&[outcome]).inc();
        }
        Ok(HandleControl::Continue)
    }
}
