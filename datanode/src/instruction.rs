//! Carrying out what metasrv says: instructions, and closings of regions that no route gives to this node.
//!
//! Orders wait in a bounded queue and are carried out one after another, beside the stream: opening a region may take
//! long, and the next response must not wait for it. An order that finds no room is dropped; metasrv judges by what is
//! reported and repeats what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use metasrv_client::MetaClient;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{InstructionReply, RegionOutcome, RegionTarget, instruction};
use tokio::sync::mpsc;

use crate::alive_keeper::RegionAliveKeeper;
use crate::mailbox::{HeartbeatMailbox, IncomingMessage};
use crate::region_server::{RegionError, RegionEventSender, RegionServer, RegionServerEvent};
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};

/// Orders that wait: metasrv sends one per heartbeat and a few beside them.
const ORDERS: usize = 64;

/// Regions of one instruction that are opened, closed or flushed at the same time.
const AT_ONCE: usize = 8;

/// Regions of one instruction. metasrv sends at most a thousand.
const MOST_TARGETS: usize = 10_000;

/// Something to be done beside the stream.
#[derive(Debug)]
pub(crate) enum Order {
    /// An instruction, whose reply goes into the mailbox.
    Instruction(IncomingMessage),
    /// Close these regions, unless they were opened after this instant: no route gave them to this node then.
    Close(Vec<RegionId>, BootTime),
}

/// Both ends of the queue of orders.
pub(crate) fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS)
}

/// Puts the instruction of a response into the queue.
pub(crate) struct InstructionHandler {
    pub(crate) orders: mpsc::Sender<Order>,
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
        let full =
            |_| HandlerError { handler: self.name(), why: format!("no room for instruction {}", message.id) };
        self.orders.try_send(Order::Instruction(incoming)).map_err(full)?;
        Ok(HandleControl::Continue)
    }
}

/// Orders the closing of regions that no route gives to this node.
pub(crate) struct CloseRegionsHandler {
    pub(crate) orders: mpsc::Sender<Order>,
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
            let _ = self.orders.try_send(Order::Close(regions, sent_at));
        }
        Ok(HandleControl::Continue)
    }
}

/// Carries orders out.
pub(crate) struct InstructionExecutor {
    pub(crate) server: Arc<dyn RegionServer>,
    pub(crate) keeper: Arc<RegionAliveKeeper>,
    pub(crate) events: RegionEventSender,
    pub(crate) mailbox: HeartbeatMailbox,
    pub(crate) client: MetaClient,
}

/// What is done with each region of an instruction.
#[derive(Clone, Copy, Debug)]
enum Action {
    Open,
    Close,
    Flush,
}

impl InstructionExecutor {
    /// Works until nobody can give orders any more.
    pub(crate) async fn run(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Close(regions, sent_at) => self.close_unrouted(&regions, sent_at).await,
                Order::Instruction(message) => {
                    let reply = self.carry_out(&message).await;
                    if self.mailbox.send(message.answer(reply)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn carry_out(&self, message: &IncomingMessage) -> InstructionReply {
        let (action, targets) = match &message.instruction.action {
            Some(instruction::Action::OpenRegions(open)) => (Action::Open, &open.regions),
            Some(instruction::Action::CloseRegions(close)) => (Action::Close, &close.regions),
            Some(instruction::Action::FlushRegions(flush)) => (Action::Flush, &flush.regions),
            None => {
                tracing::warn!(
                    id = message.meta.id,
                    "an instruction that asks for nothing known here is left alone"
                );
                return InstructionReply::default();
            }
        };
        let term = message.instruction.term;
        let outcomes = futures_util::stream::iter(distinct(targets))
            .map(|(region, epoch)| async move {
                let done = self.on_region(action, term, region, epoch).await;
                let held = self.keeper.region(region).map_or(Epoch(0), |open| open.epoch());
                // The keeper hears of an opening a moment later than the reply is made.
                let epoch = if done.is_ok() { epoch.max(held) } else { held };
                let error = done.err().map(|error| error.to_string()).unwrap_or_default();
                if !error.is_empty() {
                    tracing::warn!(term, %region, %epoch, ?action, error, "an instruction was not carried out");
                }
                RegionOutcome { region_id: region.0, epoch: epoch.0, error }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        InstructionReply { outcomes }
    }

    async fn on_region(
        &self,
        action: Action,
        term: u64,
        region: RegionId,
        epoch: Epoch,
    ) -> Result<(), RegionError> {
        let highest = self.client.highest_term();
        if term < highest {
            return Err(RegionError(format!(
                "the instruction is of term {term}, but term {highest} has been seen"
            )));
        }
        let held = self.keeper.region(region).map(|open| open.epoch());
        if let Some(held) = held.filter(|held| *held > epoch) {
            return Err(RegionError(format!("it is held under epoch {held}, which is higher than {epoch}")));
        }
        match action {
            Action::Open if held == Some(epoch) => Ok(()),
            Action::Open => {
                self.server.open(region, epoch).await?;
                self.tell(RegionServerEvent::Registered(region, epoch)).await
            }
            Action::Close => self.close(region).await,
            Action::Flush => self.server.flush(region).await,
        }
    }

    async fn close_unrouted(&self, regions: &[RegionId], sent_at: BootTime) {
        for region in regions {
            let Some(open) = self.keeper.region(*region).filter(|open| !open.is_newer_than(sent_at)) else {
                continue;
            };
            tracing::info!(%region, epoch = %open.epoch(), "no route gives this region to this node: closing it");
            if let Err(error) = self.close(*region).await {
                tracing::warn!(%region, %error, "a region could not be closed; metasrv names it again");
            }
        }
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        self.server.close(region).await?;
        self.tell(RegionServerEvent::Deregistered(region)).await
    }

    async fn tell(&self, event: RegionServerEvent) -> Result<(), RegionError> {
        self.events.send(event).await.map_err(|_| RegionError("the heartbeat task has ended".to_owned()))
    }
}

/// Each region once, under its highest epoch, in the order of ids.
fn distinct(targets: &[RegionTarget]) -> BTreeMap<RegionId, Epoch> {
    let mut regions = BTreeMap::new();
    for target in targets.iter().take(MOST_TARGETS) {
        let epoch: &mut Epoch = regions.entry(RegionId(target.region_id)).or_default();
        *epoch = (*epoch).max(Epoch(target.epoch));
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_is_named_twice_is_one_under_its_highest_epoch() {
        let target = |region_id, epoch| RegionTarget { region_id, epoch };
        let regions = distinct(&[target(3, 1), target(1, 5), target(3, 2), target(1, 4)]);
        assert_eq!(Vec::from_iter(regions), [(RegionId(1), Epoch(5)), (RegionId(3), Epoch(2))]);
    }
}
