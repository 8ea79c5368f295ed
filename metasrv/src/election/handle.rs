//! What others have of a replica's election: its inbox, and its pulse.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::Leave;
use metasrv_core::time::{BootTime, Clock};
use tokio::sync::{mpsc, watch};

use crate::leader::Candidate;

/// The loop turns every 50 ms. One that took so long for a turn holds something up; one for a second is deposed.
const PACE: Duration = Duration::from_millis(250);

/// For whoever wants this replica to leave, or to know whether its election still works.
#[derive(Clone)]
pub struct ElectionHandle {
    leave: mpsc::Sender<Leave>,
    turned: watch::Receiver<BootTime>,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

impl ElectionHandle {
    /// A handle, and what the loop keeps: its inbox, and where it says that it turned.
    pub(super) fn new(
        candidate: &Candidate,
    ) -> (ElectionHandle, mpsc::Receiver<Leave>, watch::Sender<BootTime>) {
        // Two askers at most: an administrator and a signal.
        let (leave, inbox) = mpsc::channel(4);
        let clock = Arc::clone(&candidate.clock);
        let (turning, turned) = watch::channel(clock.now());
        // The loop has something to do five times a TTL; the longest that it waits for is one whole TTL.
        let patience = candidate.timing.election_ttl * 2;
        (ElectionHandle { leave, turned, clock, patience }, inbox, turning)
    }

    /// Asks the replica to give leadership up. Asking twice changes nothing.
    pub async fn leave(&self, leave: Leave) {
        // The election has ended already where nobody listens.
        let _ = self.leave.send(leave).await;
    }

    /// Whether the loop turned within the time in which it always does.
    ///
    /// # Errors
    /// For how long it has not.
    pub fn turns(&self) -> Result<(), String> {
        self.turned_within(self.patience)
    }

    /// Whether the loop turned at this pace: the sharper question, which probes ask.
    ///
    /// # Errors
    /// For how long it has not.
    pub fn keeps_pace(&self) -> Result<(), String> {
        self.turned_within(PACE)
    }

    fn turned_within(&self, bound: Duration) -> Result<(), String> {
        let still = self.clock.now().since(*self.turned.borrow());
        if still < bound {
            return Ok(());
        }
        Err(format!("the election's loop has not turned for {still:.1?}, where {bound:?} are too long"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Manual(AtomicU64);

    impl Clock for Manual {
        fn now(&self) -> BootTime {
            BootTime::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_loop_that_stands_still_is_noticed_and_one_that_turns_again_is_well() {
        let clock = Arc::new(Manual(AtomicU64::new(1_000)));
        let (turning, turned) = watch::channel(clock.now());
        let (leave, _inbox) = mpsc::channel(1);
        let handle =
            ElectionHandle { leave, turned, clock: clock.clone(), patience: Duration::from_secs(10) };
        clock.0.store(10_999, Ordering::SeqCst);
        assert_eq!(handle.turns(), Ok(()));
        clock.0.store(11_000, Ordering::SeqCst);
        assert!(handle.turns().unwrap_err().contains("10.0s"));
        turning.send_replace(clock.now());
        assert_eq!(handle.turns(), Ok(()));
    }
}
