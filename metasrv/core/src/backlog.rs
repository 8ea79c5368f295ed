//! What waits to be written behind: the latest value of each key, in the order in which the keys came.
//!
//! A value that is replaced before it was written is never written; a value that is being written when a newer one
//! comes is followed by it, and never follows it. So per key the store sees values in the order in which they were
//! offered, some of them left out, and the last one always.

use std::collections::{BTreeMap, VecDeque};

use crate::time::BootTime;

/// How much may wait, and how much goes into one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Keys that may wait.
    pub keys: usize,
    /// Bytes of keys and values that may wait.
    pub bytes: usize,
    /// Changes in one batch.
    pub batch_changes: usize,
    /// Bytes of keys and values in one batch.
    pub batch_bytes: usize,
}

/// Why a value is not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is no room.
    Full,
    /// It would not fit into any batch.
    TooLarge,
}

/// A value on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Its key.
    pub key: String,
    /// The value; `None`: the key is to be removed.
    pub value: Option<Vec<u8>>,
    /// When the key began to wait.
    pub since: BootTime,
}

impl Item {
    fn bytes(&self) -> usize {
        size(&self.key, self.value.as_deref())
    }
}

/// Bytes of key and value.
fn size(key: &str, value: Option<&[u8]>) -> usize {
    key.len().saturating_add(value.map_or(0, <[u8]>::len))
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Waiting {
    value: Option<Vec<u8>>,
    since: BootTime,
}

/// See the module. At most one batch is under way at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backlog {
    limits: Limits,
    order: VecDeque<String>,
    waiting: BTreeMap<String, Waiting>,
    bytes: usize,
}

impl Backlog {
    /// Empty.
    pub fn new(limits: Limits) -> Backlog {
        Backlog { limits, order: VecDeque::new(), waiting: BTreeMap::new(), bytes: 0 }
    }

    /// Takes a value, or `None` to remove the key. What waits under the same key is replaced and keeps its place.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn offer(&mut self, key: String, value: Option<Vec<u8>>, now: BootTime) -> Result<(), Refused> {
        let size = size(&key, value.as_deref());
        if size > self.limits.batch_bytes {
            return Err(Refused::TooLarge);
        }
        let before = self.waiting.get(&key).map(|waiting| self::size(&key, waiting.value.as_deref()));
        let bytes = self.bytes.saturating_sub(before.unwrap_or(0)).saturating_add(size);
        if bytes > self.limits.bytes || (before.is_none() && self.waiting.len() >= self.limits.keys) {
            return Err(Refused::Full);
        }
        self.bytes = bytes;
        match self.waiting.get_mut(&key) {
            Some(waiting) => waiting.value = value,
            None => {
                self.order.push_back(key.clone());
                self.waiting.insert(key, Waiting { value, since: now });
            }
        }
        Ok(())
    }

    /// Takes the next batch out, the longest-waiting first. Empty where nothing waits.
    pub fn next_batch(&mut self) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        while batch.len() < self.limits.batch_changes
            && let Some(key) = self.order.front()
        {
            let size = self.waiting.get(key).map_or(0, |waiting| size(key, waiting.value.as_deref()));
            bytes = bytes.saturating_add(size);
            if bytes > self.limits.batch_bytes {
                break;
            }
            let Some(key) = self.order.pop_front() else { break };
            if let Some(Waiting { value, since }) = self.waiting.remove(&key) {
                self.bytes = self.bytes.saturating_sub(size);
                batch.push(Item { key, value, since });
            }
        }
        batch
    }

    /// Takes a batch back that was not written, in front of everything. Where a newer value waits, that one takes the
    /// older one's place. What was taken before is taken back whatever the limits say.
    pub fn put_back(&mut self, batch: Vec<Item>) {
        for item in batch.into_iter().rev() {
            match self.waiting.get_mut(&item.key) {
                Some(newer) => {
                    newer.since = item.since;
                    self.order.retain(|key| *key != item.key);
                }
                None => {
                    self.bytes = self.bytes.saturating_add(item.bytes());
                    self.waiting.insert(item.key.clone(), Waiting { value: item.value, since: item.since });
                }
            }
            self.order.push_front(item.key);
        }
    }

    /// Since when the first of the order has waited.
    pub fn oldest(&self) -> Option<BootTime> {
        self.order.front().and_then(|key| self.waiting.get(key)).map(|waiting| waiting.since)
    }

    /// Keys that wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether what waits fills a batch.
    pub fn fills_a_batch(&self) -> bool {
        self.order.len() >= self.limits.batch_changes || self.bytes >= self.limits.batch_bytes
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { keys: 8, bytes: 200, batch_changes: 3, batch_bytes: 40 };

    fn offer(backlog: &mut Backlog, key: &str, value: &str) -> Result<(), Refused> {
        backlog.offer(key.to_owned(), Some(value.as_bytes().to_vec()), BootTime::ZERO)
    }

    fn shown_value(item: &Item) -> String {
        item.value.as_ref().map_or("removed".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
    }

    fn shown(batch: &[Item]) -> Vec<(String, String)> {
        batch.iter().map(|item| (item.key.clone(), shown_value(item))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_newer_value_replaces_an_older_one_in_its_place() {
        let mut backlog = Backlog::new(LIMITS);
        offer(&mut backlog, "a", "1").unwrap();
        offer(&mut backlog, "b", "1").unwrap();
        offer(&mut backlog, "a", "2").unwrap();
        assert_eq!(shown(&backlog.next_batch()), pairs(&[("a", "2"), ("b", "1")]));
        assert!(backlog.is_empty());
        assert_eq!(backlog.bytes(), 0);
    }

    #[test]
    fn a_removal_takes_the_place_of_a_value_and_a_value_that_of_a_removal() {
        let mut backlog = Backlog::new(LIMITS);
        offer(&mut backlog, "a", "1").unwrap();
        backlog.offer("a".to_owned(), None, BootTime::ZERO).unwrap();
        backlog.offer("b".to_owned(), None, BootTime::ZERO).unwrap();
        offer(&mut backlog, "b", "1").unwrap();
        assert_eq!(backlog.bytes(), 3);
        assert_eq!(shown(&backlog.next_batch()), pairs(&[("a", "removed"), ("b", "1")]));
        assert_eq!(backlog.bytes(), 0);
    }

    #[test]
    fn a_batch_that_was_not_written_never_overtakes_newer_values() {
        let mut backlog = Backlog::new(LIMITS);
        offer(&mut backlog, "a", "1").unwrap();
        offer(&mut backlog, "b", "1").unwrap();
        let batch = backlog.next_batch();
        offer(&mut backlog, "c", "1").unwrap();
        offer(&mut backlog, "b", "2").unwrap();
        backlog.put_back(batch);
        assert_eq!(shown(&backlog.next_batch()), pairs(&[("a", "1"), ("b", "2"), ("c", "1")]));
    }

    #[test]
    fn a_full_backlog_refuses_new_keys_and_takes_replacements() {
        let mut backlog = Backlog::new(LIMITS);
        for key in 0..8 {
            offer(&mut backlog, &key.to_string(), "x").unwrap();
        }
        assert_eq!(offer(&mut backlog, "new", "x"), Err(Refused::Full));
        assert_eq!(offer(&mut backlog, "3", "y"), Ok(()));
        assert_eq!(offer(&mut backlog, "3", &"y".repeat(39)), Ok(()));
        assert_eq!(offer(&mut backlog, "3", &"y".repeat(40)), Err(Refused::TooLarge));
    }

    proptest! {
        /// Whatever is offered, cut, failed and repeated: per key the values written are a subsequence of those that
        /// were accepted, and the last one written is the last one accepted.
        #[test]
        fn nothing_is_lost_and_nothing_goes_back(
            script in proptest::collection::vec((0_u8..6, 0_u32..30, any::<bool>()), 0..120),
        ) {
            let mut backlog = Backlog::new(LIMITS);
            let mut accepted: BTreeMap<String, Vec<Option<Vec<u8>>>> = BTreeMap::new();
            let mut written: BTreeMap<String, Vec<Option<Vec<u8>>>> = BTreeMap::new();
            for (number, (key, size, fails)) in script.into_iter().enumerate() {
                let key = key.to_string();
                let mut value = number.to_string().into_bytes();
                value.resize(value.len().max(usize::try_from(size).unwrap()), b'.');
                let value = if size == 0 { None } else { Some(value) };
                if backlog.offer(key.clone(), value.clone(), BootTime::ZERO).is_ok() {
                    accepted.entry(key).or_default().push(value);
                }
                if number % 3 == 0 {
                    let batch = backlog.next_batch();
                    prop_assert!(batch.len() <= 3 && batch.iter().map(Item::bytes).sum::<usize>() <= 40);
                    if fails {
                        backlog.put_back(batch);
                    } else {
                        for item in batch {
                            written.entry(item.key).or_default().push(item.value);
                        }
                    }
                }
            }
            while !backlog.is_empty() {
                for item in backlog.next_batch() {
                    written.entry(item.key).or_default().push(item.value);
                }
            }
            prop_assert_eq!(backlog.bytes(), 0);
            for (key, accepted) in accepted {
                let written = written.remove(&key).unwrap_or_default();
                prop_assert_eq!(written.last(), accepted.last());
                let mut rest = accepted.iter();
                prop_assert!(written.iter().all(|value| rest.any(|other| other == value)), "out of order");
            }
        }
    }
}
