//! The history is kept short, and observations get into it.
//!
//! | kept | why so much |
//! | --- | --- |
//! | the last 10,000 entries; one for each transaction | days of a busy cluster |
//! | no more than 32 MiB of them | a filter reads it whole, a part at a time: the creation of a hundred regions is one entry of 10 KiB |
//!
//! Both is done on one task at a time, about once a minute or when there is something to tell. A store that does not answer
//! holds up nothing but the history.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::StoredEvent;

use super::Control;
use crate::leader::{Entry, Leader};
use crate::store::fenced::CommitError;

/// Entries that are kept.
pub const KEPT: usize = 10_000;

/// Bytes of keys and values that are kept.
pub const KEPT_BYTES: usize = 32 << 20;

/// Time from one trimming to the next.
const INTERVAL: Duration = Duration::from_secs(60);

/// A new leader has more urgent things to do.
const FIRST: Duration = Duration::from_secs(10);

/// What the loop knows of the history.
pub struct Timeline {
    trim_at: BootTime,
    busy: bool,
}

impl Timeline {
    /// Of a leader that begins now.
    pub fn new(now: BootTime) -> Timeline {
        Timeline { trim_at: now + FIRST, busy: false }
    }
}

/// Begins what is due.
pub(super) fn turn(control: &mut Control, now: BootTime) {
    if control.timeline.busy {
        return;
    }
    let leader = Arc::clone(&control.leader);
    let untold = leader.take_untold();
    if !untold.is_empty() {
        control.timeline.busy = true;
        control.work.spawn(write(leader, untold));
    } else if now >= control.timeline.trim_at {
        control.timeline.busy = true;
        control.timeline.trim_at = now + INTERVAL;
        control.work.spawn(trim_and_say(leader));
    }
}

/// A task has ended.
pub(super) fn done(control: &mut Control) {
    control.timeline.busy = false;
}

async fn write(leader: Arc<Leader>, events: Vec<StoredEvent>) -> super::Done {
    let count = events.len();
    if let Err(error) = leader.write_events(events).await {
        tracing::warn!(term = %leader.term(), %error, count, "observations are missing in the history");
    }
    super::Done::Timeline
}

async fn trim_and_say(leader: Arc<Leader>) -> super::Done {
    match trim(&leader).await {
        Ok(0) => {}
        Ok(deleted) => tracing::info!(term = %leader.term(), deleted, "the oldest history was deleted"),
        Err(error) => tracing::warn!(term = %leader.term(), %error, "the history could not be trimmed"),
    }
    super::Done::Timeline
}

/// Deletes the oldest entries beyond what is kept. Says how many.
///
/// # Errors
/// [`CommitError`] where the history could not be read or an entry not be deleted; the next one goes on from there.
pub async fn trim(leader: &Leader) -> Result<usize, CommitError> {
    let entries = leader.measure_timeline().await.map_err(CommitError::Refused)?;
    let kept = kept(&entries, KEPT, KEPT_BYTES);
    let surplus = entries.get(..entries.len().saturating_sub(kept)).unwrap_or_default();
    leader.delete_entries(surplus).await?;
    Ok(surplus.len())
}

/// How many of these are kept, counted from the last one: so many as both limits allow, and one at least.
fn kept(entries: &[Entry], most: usize, bytes: usize) -> usize {
    let mut left = bytes;
    let fits = |entry: &&Entry| {
        let fits = entry.bytes <= left;
        left = left.saturating_sub(entry.bytes);
        fits
    };
    entries.iter().rev().take(most).take_while(fits).count().max(entries.len().min(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sizes: &[usize]) -> Vec<Entry> {
        let one = |size: &usize| Entry { key: "k".to_owned(), revision: 1, bytes: *size };
        sizes.iter().map(one).collect()
    }

    #[test]
    fn no_more_entries_are_kept_than_the_limit() {
        assert_eq!(kept(&records(&[10; 7]), 5, 1_000), 5);
        assert_eq!(kept(&records(&[10; 4]), 5, 1_000), 4);
        assert_eq!(kept(&[], 5, 1_000), 0);
    }

    #[test]
    fn large_entries_are_fewer_and_the_last_one_always_stays() {
        assert_eq!(
            kept(&records(&[1, 40, 30, 30]), 5, 100),
            3,
            "the small one before them is older than the limit"
        );
        assert_eq!(
            kept(&records(&[1, 41, 30, 30]), 5, 100),
            2,
            "nothing is kept that is older than what goes"
        );
        assert_eq!(kept(&records(&[1, 200]), 5, 100), 1);
    }
}
