//! A datanode: what it holds, and how it carries out what it is told. It keeps the rules of the real one: a process that has
//! stopped writing under an epoch takes no grant for it any more, and nothing is done under a lower epoch than is held.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::id::{Epoch, Incarnation, RegionId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::instruction::Action;
use metasrv_proto::admin::{Instruction, InstructionReply, RegionOutcome, RegionTarget};
use metasrv_proto::meta::{RegionRole, RegionStat};

use super::FIRST;

/// How a region is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Copy {
    pub(super) epoch: Epoch,
    pub(super) is_candidate: bool,
    /// Until when it may be written to.
    pub(super) writable_until: BootTime,
}

/// See the module.
#[derive(Default)]
pub(super) struct Datanode {
    pub(super) process: Incarnation,
    pub(super) regions: BTreeMap<RegionId, Copy>,
    /// The epoch up to which it takes no grant any more.
    stopped: BTreeMap<RegionId, Epoch>,
    /// Instructions that it neither carries out nor answers.
    pub(super) ignores: BTreeSet<&'static str>,
    /// Instructions that it refuses.
    pub(super) refuses: BTreeSet<&'static str>,
    /// It sends no heartbeats and answers nothing.
    pub(super) is_silent: bool,
    /// What it was told, and when.
    pub(super) told: Vec<(BootTime, &'static str, RegionId)>,
}

impl Datanode {
    /// This process of it, with these regions open to lead them.
    pub(super) fn leading(regions: impl Iterator<Item = RegionId>, process: Incarnation) -> Datanode {
        let copy = Copy { epoch: Epoch(FIRST), is_candidate: false, writable_until: BootTime::ZERO };
        let regions = regions.map(|region| (region, copy)).collect();
        Datanode { process, regions, ..Datanode::default() }
    }

    /// What it says of its regions.
    pub(super) fn stats(&self) -> Vec<RegionStat> {
        let one = |(region, copy): (&RegionId, &Copy)| RegionStat {
            region_id: region.0,
            epoch: copy.epoch.0,
            candidate: copy.is_candidate,
            role: if copy.is_candidate { RegionRole::Follower.into() } else { RegionRole::Leader.into() },
            ..RegionStat::default()
        };
        self.regions.iter().map(one).collect()
    }

    /// Whether it writes to the region now.
    pub(super) fn writes(&self, region: RegionId, now: BootTime) -> bool {
        self.regions.get(&region).is_some_and(|copy| now < copy.writable_until)
    }

    /// A lease that lasts until then.
    pub(super) fn renewed(&mut self, region: RegionId, epoch: Epoch, until: BootTime) {
        let stopped = self.stopped.get(&region).copied().unwrap_or_default();
        if let Some(copy) = self.regions.get_mut(&region)
            && copy.epoch == epoch
            && !copy.is_candidate
            && epoch > stopped
        {
            copy.writable_until = until;
        }
    }

    /// Opens it to lead it, or raises its epoch.
    pub(super) fn open(&mut self, region: RegionId, epoch: Epoch) {
        let held = self.regions.get(&region).map_or(Epoch(0), |copy| copy.epoch);
        if epoch > held {
            let copy = Copy { epoch, is_candidate: false, writable_until: BootTime::ZERO };
            self.regions.insert(region, copy);
        }
    }

    /// Carries an instruction out, and says what came of it. `None`: it says nothing.
    pub(super) fn obey(&mut self, instruction: &Instruction, now: BootTime) -> Option<InstructionReply> {
        let (name, targets) = match instruction.action.as_ref()? {
            Action::OpenRegions(open) => match open.regions.first() {
                Some(target) if target.candidate => ("open_candidate", &open.regions),
                _ => ("open", &open.regions),
            },
            Action::CloseRegions(close) => ("close", &close.regions),
            Action::FlushRegions(flush) => ("flush", &flush.regions),
            Action::DowngradeRegions(downgrade) => ("downgrade", &downgrade.regions),
            Action::CatchUpRegions(catch_up) => ("catch_up", &catch_up.regions),
            Action::UpgradeRegions(upgrade) => ("upgrade", &upgrade.regions),
        };
        self.told.extend(targets.iter().map(|target| (now, name, RegionId(target.region_id))));
        if self.is_silent || self.ignores.contains(name) {
            return None;
        }
        let is_meant = [0, self.process.nonce].contains(&instruction.incarnation_nonce);
        let carry_out = |target: &RegionTarget| {
            let done = match is_meant && !self.refuses.contains(name) {
                true => self.on_region(name, target),
                false => Err("refused".to_owned()),
            };
            let (position, error) = match done {
                Ok(position) => (position, String::new()),
                Err(error) => (0, error),
            };
            RegionOutcome { region_id: target.region_id, position, error, ..RegionOutcome::default() }
        };
        Some(InstructionReply { outcomes: targets.iter().map(carry_out).collect() })
    }

    fn on_region(&mut self, name: &str, target: &RegionTarget) -> Result<u64, String> {
        let (region, epoch) = (RegionId(target.region_id), Epoch(target.epoch));
        if self.regions.get(&region).is_some_and(|copy| copy.epoch > epoch) {
            return Err("it is held under a higher epoch".to_owned());
        }
        match name {
            "open_candidate" => {
                let copy = Copy { epoch, is_candidate: true, writable_until: BootTime::ZERO };
                self.regions.insert(region, copy);
            }
            "open" | "upgrade" => self.open(region, epoch),
            "close" => {
                self.regions.remove(&region);
            }
            "downgrade" => {
                self.stopped.insert(region, epoch);
                if let Some(copy) = self.regions.get_mut(&region) {
                    copy.writable_until = BootTime::ZERO;
                }
                return Ok(42);
            }
            "catch_up" => match self.regions.get(&region) {
                Some(copy) if copy.is_candidate && copy.epoch == epoch => return Ok(target.position),
                _ => return Err("it is not open as a candidate".to_owned()),
            },
            _ => {}
        }
        Ok(0)
    }
}
