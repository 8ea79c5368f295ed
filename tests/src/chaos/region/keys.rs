//! What one writer put, and what must be found therefore: exactly the values that were acknowledged last.
//!
//! A writer puts numbers under a ring of keys, one after another, so that a region stays small however long it is written
//! to. A put whose outcome is unknown is sent again, the same number under the same key, until it is acknowledged. Some
//! copy of it may then still be on its way, and arrive at any time. It does no harm: the key is *retired*, nothing else is
//! ever put under it, so that a late copy finds what it brings.
//!
//! | key | what is found under it |
//! | --- | --- |
//! | of the ring, or retired | the number that was acknowledged last under it |
//! | of the put that is under way | the same, or the number that is under way |
//! | any other | nothing |

use std::collections::BTreeMap;

/// Keys of the ring.
const RING: u64 = 64;

/// A put that is not acknowledged yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Under this key.
    pub key: String,
    /// This number.
    pub number: u64,
    /// An attempt of it ended with an unknown outcome.
    pub doubtful: bool,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Keys {
    number: u64,
    generations: BTreeMap<u64, u64>,
    acknowledged: BTreeMap<String, u64>,
    pending: Option<Pending>,
}

impl Keys {
    /// The put to be tried now: that which is under way, or the next one.
    pub fn due(&mut self) -> Pending {
        if let Some(pending) = &self.pending {
            return pending.clone();
        }
        self.number += 1;
        let slot = self.number % RING;
        let generation = self.generations.get(&slot).copied().unwrap_or(0);
        let pending =
            Pending { key: format!("{slot:02}.{generation:06}"), number: self.number, doubtful: false };
        self.pending = Some(pending.clone());
        pending
    }

    /// An attempt of it ended, and nobody knows how.
    pub fn doubt(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.doubtful = true;
        }
    }

    /// It is acknowledged.
    pub fn acknowledge(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        if pending.doubtful {
            *self.generations.entry(pending.number % RING).or_default() += 1;
        }
        self.acknowledged.insert(pending.key, pending.number);
    }

    /// How many puts were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.number - u64::from(self.pending.is_some())
    }

    /// What is wrong with what is there. Empty: nothing.
    pub fn lost(&self, found: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<String> {
        let value = |key: &str| found.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value));
        let mut lost = Vec::new();
        for (key, number) in &self.acknowledged {
            let pending = self.pending.as_ref().filter(|pending| pending.key == *key);
            let allowed = [Some(*number), pending.map(|pending| pending.number)];
            let there = value(key);
            let is_allowed = |text: &str| allowed.iter().flatten().any(|number| number.to_string() == text);
            if !there.as_deref().is_some_and(is_allowed) {
                lost.push(format!("{key}: {number} was acknowledged, there is {there:?}"));
            }
        }
        let pending = self.pending.as_ref().map(|pending| pending.key.as_str());
        for key in found.keys() {
            let key = String::from_utf8_lossy(key);
            if !self.acknowledged.contains_key(key.as_ref()) && pending != Some(key.as_ref()) {
                lost.push(format!("{key}: nobody put anything under it, there is {:?}", value(&key)));
            }
        }
        lost
    }
}
