//! The watch under a mirror and under the board of routes, on connections of its own: a member that is silent here costs the store nothing.
//!
//! etcd says nothing on a watch on which nothing changes, so an answer is asked for. What it answers is the revision of
//! the member that was asked; whether the watch has delivered everything up to there is another question, to which
//! 3.4.23 gives a wrong answer at times (etcd issue 15220).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Interval, MissedTickBehavior};

use super::connection::{CALL_TIMEOUT, EtcdConnection, classify, kv};
use super::store::{EtcdStore, to_record};
use crate::dial::Dialer;
use crate::keys::Keys;
use crate::mirror::follow::{Heard, Source, Watch, WatchEnd};
use crate::mirror::state::Event;
use crate::store::{Page, StoreError};

/// Time between two questions for a sign of life: a third of the silence that ends a watch.
const ASKING: Duration = Duration::from_secs(1);

/// One message of a watch that catches up may hold thousands of changes.
const DECODE_LIMIT: usize = 64 << 20;

/// A range of the keys of one etcd cluster.
pub struct EtcdSource {
    from: String,
    end: String,
    /// Lists.
    store: EtcdStore,
    /// Watches, and reads of the revision.
    connection: EtcdConnection,
    /// The endpoint of the last watch.
    watched: AtomicUsize,
}

impl EtcdSource {
    /// The mirrored range on these endpoints; connects when it is used.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn new(endpoints: &[String], keys: &Keys) -> Result<EtcdSource, StoreError> {
        EtcdSource::over(endpoints, keys.mirrored())
    }

    /// The keys from the first one up to, and without, the second.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn over(endpoints: &[String], range: (String, String)) -> Result<EtcdSource, StoreError> {
        EtcdSource::through(endpoints, range, &Dialer::default())
    }

    /// The same, reached by this dialer.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn through(
        endpoints: &[String],
        (from, end): (String, String),
        dialer: &Dialer,
    ) -> Result<EtcdSource, StoreError> {
        Ok(EtcdSource {
            from,
            end,
            store: EtcdStore::through(endpoints, dialer)?,
            connection: EtcdConnection::new(endpoints, dialer)?,
            watched: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Source for EtcdSource {
    async fn list(&self) -> Result<Page, StoreError> {
        self.store.range(&self.from, self.end.as_bytes()).await
    }

    async fn watch(&self, after: i64) -> Result<Box<dyn Watch>, StoreError> {
        let broken = |error| classify("watch", &error);
        let (index, client) = self.connection.dedicated().await.map_err(broken)?;
        self.watched.store(index, Ordering::Relaxed);
        let options =
            WatchOptions::new().with_range(self.end.as_bytes()).with_start_revision(after.saturating_add(1));
        let mut watcher = client.watch_client().max_decoding_message_size(DECODE_LIMIT);
        let opening = watcher.watch(self.from.as_bytes(), Some(options));
        let stream = match tokio::time::timeout(CALL_TIMEOUT, opening).await {
            Ok(opened) => opened.map_err(broken)?,
            Err(_) => {
                let why = format!("no answer within {CALL_TIMEOUT:?}");
                return Err(StoreError::Unavailable { operation: "watch", why });
            }
        };
        let mut asking = tokio::time::interval_at(tokio::time::Instant::now() + ASKING, ASKING);
        asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Box::new(EtcdWatch { stream, asking }))
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        let read = self.connection.repeatable("read the revision", CALL_TIMEOUT, |client| {
            let key = self.from.clone();
            async move { kv(&client).get(key, Some(GetOptions::new().with_count_only())).await }
        });
        Ok(read.await?.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    fn move_on(&self) {
        self.connection.rotate(self.watched.load(Ordering::Relaxed));
    }
}

struct EtcdWatch {
    stream: WatchStream,
    asking: Interval,
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Heard, WatchEnd> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.stream.message() => message,
                _ = self.asking.tick() => {
                    // Where the connection takes no more questions, silence ends the watch all the same.
                    self.stream.request_progress().await.map_err(|error| classify("watch", &error))?;
                    continue;
                }
            };
            return match message {
                Ok(Some(response)) => heard(&response),
                Ok(None) => Err(ended("etcd closed it")),
                Err(error) => Err(classify("watch", &error).into()),
            };
        }
    }
}

fn heard(response: &WatchResponse) -> Result<Heard, WatchEnd> {
    if response.compact_revision() > 0 {
        return Err(WatchEnd::Compacted);
    }
    if response.canceled() {
        return Err(ended(response.cancel_reason()));
    }
    let mut events = Vec::with_capacity(response.events().len());
    for event in response.events() {
        let Some(stored) = event.kv() else { continue };
        let record = to_record(stored)?;
        events.push(match event.event_type() {
            EventType::Put => Event::Put(record),
            EventType::Delete => Event::Deleted { key: record.key, revision: record.mod_revision },
        });
    }
    let member_revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    Ok(Heard { member_revision, events })
}

fn ended(why: &str) -> WatchEnd {
    WatchEnd::Broken(StoreError::Unavailable { operation: "watch", why: format!("the watch ended: {why}") })
}
