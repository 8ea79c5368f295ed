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
    taking_over: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

/// What the election's loop keeps of it.
pub(super) struct Loop {
    /// What is wanted of it.
    pub(super) inbox: mpsc::Receiver<Leave>,
    /// When it turned last.
    pub(super) turned: watch::Sender<BootTime>,
    /// Whether it has won, as far as it knows, and does not lead yet.
    pub(super) taking_over: watch::Sender<bool>,
}

impl ElectionHandle {
    /// A handle, and what the loop keeps.
    pub(super) fn new(candidate: &Candidate) -> (ElectionHandle, Loop) {
        // Two askers at most: an administrator and a signal.
        let (leave, inbox) = mpsc::channel(4);
        let clock = Arc::clone(&candidate.clock);
        let (turning, turned) = watch::channel(clock.now());
        let (taking, taking_over) = watch::channel(false);
        // The loop has something to do five times a TTL; the longest that it waits for is one whole TTL.
        let patience = candidate.timing.election_ttl * 2;
        let handle = ElectionHandle { leave, turned, taking_over, clock, patience };
        (handle, Loop { inbox, turned: turning, taking_over: taking })
    }

    /// Asks the replica to give leadership up. Asking twice changes nothing.
    pub async fn leave(&self, leave: Leave) {
        // The election has ended already where nobody listens.
        let _ = self.leave.send(leave).await;
    }

    /// Resolves once this replica is not taking over: at once where it is not, else when it leads or has given up, and
    /// after so long in any case.
    pub async fn taken_over(&self, patience: Duration) {
        let mut taking_over = self.taking_over.clone();
        // The sender is gone only when the replica is; and whatever has become of it, the caller looks.
        let _ = tokio::time::timeout(patience, taking_over.wait_for(|taking| !taking))
            .await
            .map(|seen| seen.is_ok());
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
        let (_taking, taking_over) = watch::channel(false);
        let patience = Duration::from_secs(10);
        let handle = ElectionHandle { leave, turned, taking_over, clock: clock.clone(), patience };
        clock.0.store(10_999, Ordering::SeqCst);
        assert_eq!(handle.turns(), Ok(()));
        clock.0.store(11_000, Ordering::SeqCst);
        assert!(handle.turns().unwrap_err().contains("10.0s"));
        turning.send_replace(clock.now());
        assert_eq!(handle.turns(), Ok(()));
    }

    /// Goal: a node that comes between the win and the lead waits for the lead, and not for ever. Method: a takeover that
    /// ends after a second, and one that does not end, on a paused clock.
    #[tokio::test(start_paused = true)]
    async fn who_comes_during_a_takeover_waits_for_its_end_and_not_for_ever() {
        let (taking, taking_over) = watch::channel(false);
        let (leave, _inbox) = mpsc::channel(1);
        let clock = Arc::new(Manual(AtomicU64::new(0)));
        let (_turning, turned) = watch::channel(clock.now());
        let handle = ElectionHandle { leave, turned, taking_over, clock, patience: Duration::ZERO };
        let took = async |patience: u64| {
            let began = tokio::time::Instant::now();
            handle.taken_over(Duration::from_millis(patience)).await;
            began.elapsed().as_millis()
        };
        assert_eq!(took(500).await, 0, "nothing is taken over");
        taking.send_replace(true);
        assert_eq!(took(500).await, 500);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            taking.send_replace(false);
        };
        assert_eq!(tokio::join!(took(5_000), ends).0, 1_000);
    }
}
