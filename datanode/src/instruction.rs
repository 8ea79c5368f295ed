//! Carrying out what metasrv says: instructions, and closings of regions that no route gives to this node.
//!
//! | instruction | done when | the keeper then |
//! | --- | --- | --- |
//! | open | the embedder has opened it | holds it under the epoch, without a lease |
//! | open as a candidate | the same | holds it, and takes no lease for it |
//! | flush | what was written is durable | |
//! | downgrade | no write is under way and the embedder has made all of them durable | refuses the epoch for good, from the arrival of the instruction on |
//! | catch up | the embedder has read up to the position | |
//! | upgrade | the embedder has raised the storage's epoch and read to the end | holds it under the epoch, without a lease |
//! | close | the embedder has closed it | forgets it, but not the epochs that it refuses |
//!
//! What an instruction changed is reported with a heartbeat at once, after its reply: for a region that moves, that
//! heartbeat's answer is the lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use metasrv_client::MetaClient;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{InstructionReply, RegionOutcome, RegionTarget, instruction};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::alive_keeper::RegionAliveKeeper;
use crate::mailbox::{HeartbeatMailbox, IncomingMessage};
use crate::orders::{Order, OrderReceiver};
use crate::region_server::{
    OpenAs, OpenOptions, RegionError, RegionEventSender, RegionServer, RegionServerEvent,
};
use crate::turns::Turns;

/// Regions of one instruction that are worked on at the same time.
const AT_ONCE: usize = 8;

/// Instructions for regions without a writer that are carried out at the same time; as many more wait.
const IN_GAP_AT_ONCE: usize = 64;

/// Regions of one instruction. metasrv sends at most a thousand.
const MOST_TARGETS: usize = 10_000;

/// A region that stops waits so long for the writes that are under way. Below the time after which metasrv undoes the
/// migration, so that it hears why.
const WRITES_END: Duration = Duration::from_secs(1);

/// Requests carry their time in milliseconds, rounded down.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// Carries orders out.
pub(crate) struct InstructionExecutor {
    pub(crate) server: Arc<dyn RegionServer>,
    pub(crate) keeper: Arc<RegionAliveKeeper>,
    /// Kept, because the keeper ends when nobody can tell it of openings any more.
    pub(crate) _events: RegionEventSender,
    pub(crate) mailbox: HeartbeatMailbox,
    pub(crate) client: MetaClient,
    /// Names this process among those of its node.
    pub(crate) nonce: u64,
    pub(crate) turns: Turns,
}

/// What is done with each region of an instruction.
#[derive(Clone, Copy, Debug)]
enum Action {
    Open,
    Close,
    Flush,
    Downgrade,
    CatchUp,
    Upgrade,
}

impl InstructionExecutor {
    /// Works until nobody can give orders any more.
    pub(crate) async fn run(self, orders: OrderReceiver) {
        let OrderReceiver { one_by_one, in_gap } = orders;
        let this = Arc::new(self);
        tokio::join!(this.one_after_another(one_by_one), this.at_once(in_gap));
    }

    async fn at_once(self: &Arc<Self>, mut messages: mpsc::Receiver<IncomingMessage>) {
        let mut working = JoinSet::new();
        while let Some(message) = messages.recv().await {
            while working.len() >= IN_GAP_AT_ONCE {
                working.join_next().await;
            }
            while working.try_join_next().is_some() {}
            let this = Arc::clone(self);
            working.spawn(async move { this.obey(message).await });
        }
    }

    async fn one_after_another(&self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Close(regions, sent_at) => self.close_unrouted(&regions, sent_at).await,
                Order::Instruction(message) => self.obey(message).await,
            }
        }
    }

    async fn obey(&self, message: IncomingMessage) {
        let reply = self.carry_out(&message).await;
        // Without a heartbeat task there is nobody to reply to.
        let _ = self.mailbox.send(message.answer(reply)).await;
        // A heartbeat of the same millisecond could be older than what was done, so that its lease would not count.
        tokio::time::sleep(CLOCK_STEP).await;
        self.keeper.report_now();
    }

    async fn carry_out(&self, message: &IncomingMessage) -> InstructionReply {
        let (action, targets) = match &message.instruction.action {
            Some(instruction::Action::OpenRegions(open)) => (Action::Open, &open.regions),
            Some(instruction::Action::CloseRegions(close)) => (Action::Close, &close.regions),
            Some(instruction::Action::FlushRegions(flush)) => (Action::Flush, &flush.regions),
            Some(instruction::Action::DowngradeRegions(down)) => (Action::Downgrade, &down.regions),
            Some(instruction::Action::CatchUpRegions(catch_up)) => (Action::CatchUp, &catch_up.regions),
            Some(instruction::Action::UpgradeRegions(up)) => (Action::Upgrade, &up.regions),
            None => {
                tracing::warn!(
                    id = message.meta.id,
                    "an instruction that asks for nothing known here is left alone"
                );
                return InstructionReply::default();
            }
        };
        let term = message.instruction.term;
        let nonce = message.instruction.incarnation_nonce;
        let outcomes = futures_util::stream::iter(distinct(targets).into_values())
            .map(|target| async move {
                let region = RegionId(target.region_id);
                let done = match self.is_meant(term, nonce) {
                    Ok(()) => self.on_region(action, term, target).await,
                    Err(error) => Err(error),
                };
                let held = self.keeper.region(region).map_or(Epoch(0), |open| open.epoch());
                let epoch = if done.is_ok() { held.max(Epoch(target.epoch)) } else { held };
                let error = done.as_ref().err().map(|error| error.to_string()).unwrap_or_default();
                if !error.is_empty() {
                    tracing::warn!(term, %region, %epoch, ?action, error, "an instruction was not carried out");
                }
                let storage_epoch =
                    done.as_ref().err().and_then(|error| error.storage_epoch).unwrap_or_default().0;
                let position = done.unwrap_or(0);
                RegionOutcome { region_id: region.0, epoch: epoch.0, error, position, storage_epoch }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        InstructionReply { outcomes }
    }

    fn is_meant(&self, term: u64, nonce: u64) -> Result<(), RegionError> {
        let highest = self.client.highest_term();
        if term < highest {
            return Err(RegionError::new(format!(
                "the instruction is of term {term}, but term {highest} has been seen"
            )));
        }
        if nonce != 0 && nonce != self.nonce {
            return Err(RegionError::new("the instruction is meant for another process of this node"));
        }
        Ok(())
    }

    /// Does it; returns the position, where there is one.
    async fn on_region(&self, action: Action, term: u64, target: RegionTarget) -> Result<u64, RegionError> {
        let (region, epoch) = (RegionId(target.region_id), Epoch(target.epoch));
        self.not_older(region, epoch)?;
        if let Action::Downgrade = action {
            // At once, and before its turn: what is begun from here on would have to be waited for.
            self.keeper.stop(region, epoch);
        }
        let _turn = self.turns.take(region).await;
        // Something else may have been done meanwhile.
        self.is_meant(term, 0)?;
        let held = self.not_older(region, epoch)?;
        match action {
            Action::Open => {
                let kind = if target.candidate { OpenAs::Candidate } else { OpenAs::Leader };
                self.open(region, held, OpenOptions { epoch, kind }).await.map(|()| 0)
            }
            Action::Close => self.close(region).await.map(|()| 0),
            Action::Flush => self.server.flush(region).await.map(|()| 0),
            Action::Downgrade => self.downgrade(region, epoch).await,
            Action::CatchUp if held == Some(OpenOptions::candidate(epoch)) => {
                self.catch_up(region, target.position).await
            }
            Action::CatchUp => Err(RegionError::new(format!(
                "it is not open as a candidate beside the leader of epoch {epoch}"
            ))),
            Action::Upgrade => self.upgrade(region, held, epoch).await.map(|()| 0),
        }
    }

    /// How the region is held, unless that is under a higher epoch.
    fn not_older(&self, region: RegionId, epoch: Epoch) -> Result<Option<OpenOptions>, RegionError> {
        let held = self.keeper.region(region).map(|open| open.options());
        match held {
            Some(higher) if higher.epoch > epoch => Err(RegionError::new(format!(
                "it is held under epoch {}, which is higher than {epoch}",
                higher.epoch
            ))),
            held => Ok(held),
        }
    }

    async fn open(
        &self,
        region: RegionId,
        held: Option<OpenOptions>,
        options: OpenOptions,
    ) -> Result<(), RegionError> {
        let OpenOptions { epoch, kind } = options;
        let event = match kind {
            OpenAs::Leader => {
                self.not_stopped(region, epoch)?;
                RegionServerEvent::Registered(region, epoch)
            }
            OpenAs::Candidate => RegionServerEvent::RegisteredCandidate(region, epoch),
        };
        match held {
            Some(held) if held == options => return Ok(()),
            Some(OpenOptions { epoch: same, kind }) if same == epoch => {
                return Err(RegionError::new(format!("it is open as a {kind:?} under the same epoch")));
            }
            _ => {}
        }
        self.server.open(region, options).await?;
        self.keeper.take(event);
        Ok(())
    }

    fn not_stopped(&self, region: RegionId, epoch: Epoch) -> Result<(), RegionError> {
        let stopped = self.keeper.stopped(region);
        if epoch <= stopped {
            return Err(RegionError::new(format!("this process has stopped writing under epoch {stopped}")));
        }
        Ok(())
    }

    /// The keeper refuses the epoch already.
    async fn downgrade(&self, region: RegionId, epoch: Epoch) -> Result<u64, RegionError> {
        // Also where the region was closed since: a write may have outlived that.
        if let Some(writes) = self.keeper.writes(region)
            && tokio::time::timeout(WRITES_END, writes.ended()).await.is_err()
        {
            return Err(RegionError::new(format!("writes under way have not ended within {WRITES_END:?}")));
        }
        match self.keeper.region(region).map(|open| open.options().kind) {
            Some(OpenAs::Leader) => self.server.downgrade(region, epoch).await,
            // Nothing is written here, and nothing will be.
            Some(OpenAs::Candidate) | None => Ok(0),
        }
    }

    async fn catch_up(&self, region: RegionId, position: u64) -> Result<u64, RegionError> {
        let reached = self.server.catch_up(region, position).await?;
        if reached < position {
            return Err(RegionError::new(format!("it was read up to {reached}, and not to {position}")));
        }
        Ok(reached)
    }

    async fn upgrade(
        &self,
        region: RegionId,
        held: Option<OpenOptions>,
        epoch: Epoch,
    ) -> Result<(), RegionError> {
        match held {
            Some(held) if held.epoch < epoch => {
                self.not_stopped(region, epoch)?;
                self.server.upgrade(region, epoch).await?;
                self.keeper.take(RegionServerEvent::Registered(region, epoch));
                Ok(())
            }
            // Where it was closed meanwhile, opening it does the same, and more slowly.
            held => self.open(region, held, OpenOptions::leader(epoch)).await,
        }
    }

    async fn close_unrouted(&self, regions: &[RegionId], sent_at: BootTime) {
        for region in regions {
            let _turn = self.turns.take(*region).await;
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
        self.keeper.take(RegionServerEvent::Deregistered(region));
        Ok(())
    }
}

/// Each region once, under its highest epoch, in the order of ids.
fn distinct(targets: &[RegionTarget]) -> BTreeMap<u64, RegionTarget> {
    let mut regions: BTreeMap<u64, RegionTarget> = BTreeMap::new();
    for target in targets.iter().take(MOST_TARGETS) {
        let newest = regions.entry(target.region_id).or_insert(*target);
        if target.epoch > newest.epoch {
            *newest = *target;
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_is_named_twice_is_one_under_its_highest_epoch() {
        let target = |region_id, epoch| RegionTarget { region_id, epoch, ..RegionTarget::default() };
        let regions = distinct(&[target(3, 1), target(1, 5), target(3, 2), target(1, 4)]);
        assert_eq!(Vec::from_iter(regions.into_values()), [target(1, 5), target(3, 2)]);
    }
}
