//! Writes node leases and stats behind the heartbeats: grouped, coalesced, fenced, in order per key.
//!
//! `metasrv_core::backlog` decides what goes into which batch; this is the task that commits them, one at a time.
//! Every write names the revision that it replaces. The revisions are learnt: from the state that was loaded, from our
//! own commits, and from a refusal, which says what was found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::backlog::{Backlog, Item, Limits, Refused};
use metasrv_core::time::Clock;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::store::fenced::{CommitError, FencedStore, Write};
use crate::store::{Change, MAX_BYTES, MAX_CHANGES, StoreError};

/// A key waits so long for others to be written with it.
const LINGER: Duration = Duration::from_millis(100);

/// Time between two attempts while the store refuses.
const RETRY: Duration = Duration::from_millis(500);

/// Two keys for each of 32,768 nodes; beyond it new keys are refused and offered again with a later heartbeat.
/// 64 MiB hold a lease of 200 bytes and stats of 1.8 kB for each of them.
const LIMITS: Limits =
    Limits { keys: 65_536, bytes: 64 << 20, batch_changes: MAX_CHANGES, batch_bytes: MAX_BYTES };

/// Not everything was written in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} values were not written")]
pub struct NotDrained(pub usize);

struct State {
    backlog: Backlog,
    in_flight: usize,
    draining: bool,
    /// Nothing more is taken.
    last: bool,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something was offered, or there is no reason to linger any more.
    wake: Notify,
    /// Raised after each batch.
    progress: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The backlog is whole between any two statements that can panic: there are none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, state: &State) {
        let (keys, bytes) = (state.backlog.len(), state.backlog.bytes());
        self.metrics.write_behind_keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.metrics.write_behind_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Takes values now, writes them soon.
#[derive(Clone)]
pub struct WriteBehind {
    shared: Arc<Shared>,
}

impl WriteBehind {
    /// A write-behind and the work to be spawned for it, which ends when leadership does or when it is closed.
    /// `revisions` are the mod revisions of keys that exist, as far as they are known.
    pub fn new(
        fenced: FencedStore,
        revisions: HashMap<String, i64>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> (WriteBehind, impl Future<Output = ()> + Send + 'static) {
        let state = State {
            backlog: Backlog::new(LIMITS),
            in_flight: 0,
            draining: false,
            last: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Notify::new(),
            progress: watch::channel(0).0,
            metrics,
            clock,
        });
        let work = work(Arc::clone(&shared), fenced, revisions);
        (WriteBehind { shared }, work)
    }

    /// Takes a value, at once. It replaces one that waits under the same key.
    ///
    /// # Errors
    /// [`Refused`] where there is no room; offer it again with the next heartbeat.
    pub fn offer(&self, key: String, value: Vec<u8>) -> Result<(), Refused> {
        self.take(key, Some(value))
    }

    /// Has a key removed, at once. What waits under it is not written any more.
    ///
    /// # Errors
    /// [`Refused`] where there is no room.
    pub fn remove(&self, key: String) -> Result<(), Refused> {
        self.take(key, None)
    }

    fn take(&self, key: String, value: Option<Vec<u8>>) -> Result<(), Refused> {
        let mut state = self.shared.lock();
        if state.closed || state.last {
            return Err(Refused::Full);
        }
        let result = state.backlog.offer(key, value, self.shared.clock.now());
        self.shared.measure(&state);
        drop(state);
        match result {
            Ok(()) => self.shared.wake.notify_one(),
            Err(_) => self.shared.metrics.write_behind_refused.inc(),
        }
        result
    }

    /// Takes nothing more: a last drain among heartbeats that go on would have no end. What comes now is offered to the
    /// next leader again.
    pub fn take_no_more(&self) {
        self.shared.lock().last = true;
    }

    /// Writes all that waits, as far as the time allows.
    ///
    /// # Errors
    /// [`NotDrained`] says how much was left.
    pub async fn drain(&self, deadline: Duration) -> Result<(), NotDrained> {
        let mut progress = self.shared.progress.subscribe();
        self.shared.lock().draining = true;
        self.shared.wake.notify_one();
        let left = || {
            let state = self.shared.lock();
            let left = state.backlog.len().saturating_add(state.in_flight);
            (left, state.closed)
        };
        let drained = async {
            loop {
                let (left, closed) = left();
                if left == 0 || closed || progress.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whether it ended by itself or by the deadline, what counts is what is left.
        let _ = tokio::time::timeout(deadline, drained).await;
        match left() {
            (0, _) => Ok(()),
            (left, _) => Err(NotDrained(left)),
        }
    }

    /// Takes and writes nothing any more.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

/// What the work does next.
enum Next {
    Write(Vec<Item>),
    Linger,
    Wait,
    End,
}

async fn work(shared: Arc<Shared>, fenced: FencedStore, mut revisions: HashMap<String, i64>) {
    let mut lingered = false;
    loop {
        let next = {
            let mut state = shared.lock();
            if state.closed {
                Next::End
            } else if state.backlog.is_empty() {
                Next::Wait
            } else if !lingered && !state.draining && !state.backlog.fills_a_batch() {
                Next::Linger
            } else {
                let batch = state.backlog.next_batch();
                state.in_flight = batch.len();
                Next::Write(batch)
            }
        };
        match next {
            Next::End => return,
            Next::Wait => {
                shared.wake.notified().await;
                lingered = false;
            }
            Next::Linger => {
                tokio::time::sleep(LINGER).await;
                lingered = true;
            }
            Next::Write(batch) => {
                lingered = false;
                write(&shared, &fenced, &mut revisions, batch).await;
                shared.progress.send_modify(|batches| *batches = batches.wrapping_add(1));
            }
        }
    }
}

async fn write(
    shared: &Shared,
    fenced: &FencedStore,
    revisions: &mut HashMap<String, i64>,
    batch: Vec<Item>,
) {
    let writes = batch
        .iter()
        .map(|item| Write {
            change: match &item.value {
                Some(value) => Change::Put { key: item.key.clone(), value: value.clone() },
                None => Change::Delete { key: item.key.clone() },
            },
            expected_mod_revision: revisions.get(&item.key).copied().unwrap_or(0),
        })
        .collect();
    let result = fenced.commit(writes).await;
    let pause = settle(shared, revisions, batch, result);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Takes note of what became of a batch; says how long to wait before the next one.
fn settle(
    shared: &Shared,
    revisions: &mut HashMap<String, i64>,
    batch: Vec<Item>,
    result: Result<i64, CommitError>,
) -> Duration {
    let count = |outcome: &str| shared.metrics.write_behind_transactions.with_label_values(&[outcome]).inc();
    let mut state = shared.lock();
    state.in_flight = 0;
    let pause = match result {
        Ok(revision) => {
            count("done");
            shared.metrics.store_out_of_space.set(0);
            if let Some(oldest) = batch.iter().map(|item| item.since).min() {
                shared
                    .metrics
                    .write_behind_lag_seconds
                    .observe(shared.clock.now().since(oldest).as_secs_f64());
            }
            for item in batch {
                match item.value {
                    Some(_) => revisions.insert(item.key, revision),
                    None => revisions.remove(&item.key),
                };
            }
            Duration::ZERO
        }
        Err(CommitError::Conflict { found }) => {
            count("conflict");
            for (item, found) in batch.iter().zip(found) {
                revisions.insert(item.key.clone(), found.map_or(0, |found| found.mod_revision));
            }
            state.backlog.put_back(batch);
            Duration::ZERO
        }
        Err(CommitError::Refused(error)) if error.is_retryable() => {
            count("refused");
            if error == StoreError::OutOfSpace {
                shared.metrics.store_out_of_space.set(1);
            }
            tracing::warn!(%error, waiting = state.backlog.len(), "the write-behind is refused; heartbeats go on");
            state.backlog.put_back(batch);
            RETRY
        }
        Err(CommitError::Refused(error)) => {
            count("dropped");
            let keys: Vec<&str> = batch.iter().map(|item| item.key.as_str()).collect();
            tracing::error!(%error, ?keys, "a batch that can never be written is dropped");
            Duration::ZERO
        }
        Err(error @ (CommitError::FenceLost | CommitError::LeadershipEnded)) => {
            count("ended");
            tracing::info!(%error, "the write-behind ends with the term");
            state.backlog.put_back(batch);
            state.closed = true;
            Duration::ZERO
        }
    };
    shared.measure(&state);
    pause
}

#[cfg(test)]
#[path = "write_behind_tests.rs"]
mod tests;
