//! What one writer was told: when each put was acknowledged, by whom, under which epoch, and the longest time between two.

use std::time::Duration;

use metasrv_core::time::BootTime;

/// An acknowledged put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// When its acknowledgement arrived.
    pub at: BootTime,
    /// Who wrote it.
    pub node: u64,
    /// Under which epoch.
    pub epoch: u64,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Track {
    last: Option<Acknowledged>,
    longest: Duration,
    acknowledged: u64,
    attempts: u64,
}

impl Track {
    /// A put is sent.
    pub fn sent(&mut self) {
        self.attempts += 1;
    }

    /// A put is acknowledged.
    pub fn acknowledge(&mut self, put: Acknowledged) {
        if let Some(last) = self.last {
            self.longest = self.longest.max(put.at.since(last.at));
        }
        self.last = Some(put);
        self.acknowledged += 1;
    }

    /// A fault is about to happen: gaps of before are forgotten. One that is open counts from its beginning.
    pub fn begin_round(&mut self) {
        self.longest = Duration::ZERO;
    }

    /// The last acknowledged put.
    pub fn last(&self) -> Option<Acknowledged> {
        self.last
    }

    /// The longest time between two acknowledged puts since the round began, with the one that is open.
    pub fn gap(&self, now: BootTime) -> Duration {
        self.longest.max(self.last.map_or(Duration::ZERO, |last| now.since(last.at)))
    }

    /// Puts that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Puts that were sent, as often as they were: at least as many are there as were acknowledged, at most so many.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }
}
