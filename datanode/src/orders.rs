//! Orders: instructions, and closings of regions that no route gives to this node, on their way from a response to
//! whoever carries them out.
//!
//! They wait in two bounded queues, beside the stream: opening a region may take long, and the next response must not wait
//! for it. Nor may those instructions wait during which nobody can write to a region: they have a queue of their own. An
//! order that finds no room is dropped; metasrv judges by what is reported and repeats what is missing.

use metasrv_core::id::RegionId;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::instruction::Action;
use tokio::sync::mpsc;

use crate::mailbox::IncomingMessage;
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};

/// Orders that wait in each queue: metasrv sends one per heartbeat and a few beside them, and a few for each region
/// that is being moved.
const ORDERS: usize = 64;

/// Something to be done beside the stream.
#[derive(Debug)]
pub(crate) enum Order {
    /// An instruction, whose reply goes into the mailbox.
    Instruction(IncomingMessage),
    /// Close these regions, unless they were opened after this instant: no route gave them to this node then.
    Close(Vec<RegionId>, BootTime),
}

/// Where orders are put.
#[derive(Clone)]
pub(crate) struct OrderSender {
    one_by_one: mpsc::Sender<Order>,
    in_gap: mpsc::Sender<IncomingMessage>,
}

/// Where they come out.
pub(crate) struct OrderReceiver {
    /// What may take long: carried out one after another.
    pub(crate) one_by_one: mpsc::Receiver<Order>,
    /// What a region without a writer waits for: carried out at once.
    pub(crate) in_gap: mpsc::Receiver<IncomingMessage>,
}

/// Both ends.
pub(crate) fn orders() -> (OrderSender, OrderReceiver) {
    let (one_by_one, slow) = mpsc::channel(ORDERS);
    let (in_gap, quick) = mpsc::channel(ORDERS);
    (OrderSender { one_by_one, in_gap }, OrderReceiver { one_by_one: slow, in_gap: quick })
}

/// Puts the instruction of a response into the queue that it belongs to.
pub(crate) struct InstructionHandler {
    pub(crate) orders: OrderSender,
}

impl HeartbeatResponseHandler for InstructionHandler {
    fn name(&self) -> &'static str {
        "Instruction"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        let Some(message) = &context.response.mailbox_message else { return Ok(HandleControl::Continue) };
        let Some(incoming) = IncomingMessage::from_wire(message) else {
            let why = format!(
                "message {} ({:?}) carries no instruction that is known here",
                message.id, message.subject
            );
            return Err(HandlerError { handler: self.name(), why });
        };
        let in_gap = matches!(
            &incoming.instruction.action,
            Some(Action::DowngradeRegions(_) | Action::CatchUpRegions(_) | Action::UpgradeRegions(_))
        );
        let taken = if in_gap {
            self.orders.in_gap.try_send(incoming).is_ok()
        } else {
            self.orders.one_by_one.try_send(Order::Instruction(incoming)).is_ok()
        };
        if !taken {
            let why = format!("no room for instruction {}", message.id);
            return Err(HandlerError { handler: self.name(), why });
        }
        Ok(HandleControl::Continue)
    }
}

/// Orders the closing of regions that no route gives to this node.
pub(crate) struct CloseRegionsHandler {
    pub(crate) orders: OrderSender,
}

impl HeartbeatResponseHandler for CloseRegionsHandler {
    fn name(&self) -> &'static str {
        "CloseRegions"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        let lease =
            context.response.region_lease.as_ref().filter(|lease| !lease.closeable_region_ids.is_empty());
        if let (Some(lease), Some(sent_at)) = (lease, context.sent_at) {
            let regions = lease.closeable_region_ids.iter().copied().map(RegionId).collect();
            // Where there is no room they are named again with the next answer.
            let _ = self.orders.one_by_one.try_send(Order::Close(regions, sent_at));
        }
        Ok(HandleControl::Continue)
    }
}
