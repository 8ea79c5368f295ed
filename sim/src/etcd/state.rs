//! Keys with their history, and leases: what etcd keeps, and what it answers, without time and without a network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tonic::Status;

use super::pb::mvccpb::event::EventType;
use super::pb::mvccpb::{Event, KeyValue};
use crate::plant::Plant;

const SECOND: u64 = 1_000_000_000;

/// etcd looks for leases that are over twice a second.
const EXPIRY_LOOK: u64 = 500_000_000;

/// Less is not granted, in seconds.
const LEAST_TTL: i64 = 2;

/// One change, as whoever checks the history sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value afterwards; none where it was deleted.
    pub value: Option<Vec<u8>>,
    /// Its value before.
    pub before: Option<Vec<u8>>,
}

/// What changed at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// The revision.
    pub revision: i64,
    /// The keys whose create revisions were compared, with these. Empty for what no transaction did.
    pub guards: Vec<(String, i64)>,
    /// The host that asked for it; none where a lease ended.
    pub by: Option<String>,
    /// The changes.
    pub changes: Vec<Change>,
}

/// A key's values by the revisions at which they were set; none where it was deleted.
type Versions = Vec<(i64, Option<KeyValue>)>;

pub struct Lease {
    pub ttl: i64,
    pub until: u64,
    pub keys: BTreeSet<Vec<u8>>,
}

pub struct State {
    now: u64,
    looked_at: u64,
    revision: i64,
    compacted: i64,
    versions: BTreeMap<Vec<u8>, Versions>,
    history: VecDeque<(i64, Event)>,
    leases: BTreeMap<i64, Lease>,
    next_lease: i64,
    full: bool,
    commits: Vec<Commit>,
    pub expired: u64,
    /// A mistake that is made to see whether it is found.
    pub plant: Option<Plant>,
}

impl State {
    pub fn new(seed: u64) -> State {
        State {
            now: 0,
            looked_at: 0,
            revision: 1,
            compacted: 0,
            versions: BTreeMap::new(),
            history: VecDeque::new(),
            leases: BTreeMap::new(),
            next_lease: 0x7000_0000_0000_0000 | i64::try_from(seed & 0xffff_ff00).unwrap_or(0),
            full: false,
            commits: Vec::new(),
            expired: 0,
            plant: None,
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn advance(&mut self, now: u64) {
        self.now = now;
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn set_alarm(&mut self, full: bool) {
        self.full = full;
    }

    pub fn take_commits(&mut self) -> Vec<Commit> {
        std::mem::take(&mut self.commits)
    }

    pub fn stored(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let from = self.versions.range(prefix.as_bytes().to_vec()..);
        from.take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter_map(|(key, versions)| {
                let (_, value) = versions.last()?;
                Some((String::from_utf8_lossy(key).into_owned(), value.as_ref()?.value.clone()))
            })
            .collect()
    }

    pub fn oldest(&self, prefix: &str) -> Option<Vec<u8>> {
        let from = self.versions.range(prefix.as_bytes().to_vec()..);
        from.take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter_map(|(_, versions)| versions.last()?.1.as_ref())
            .min_by_key(|kv| kv.create_revision)
            .map(|kv| kv.value.clone())
    }

    /// A key as it is now.
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.versions.get(key)?.last()?.1.as_ref()
    }

    /// A key as it was at this revision.
    fn get_at(versions: &[(i64, Option<KeyValue>)], revision: i64) -> Option<&KeyValue> {
        let until = versions.partition_point(|(at, _)| *at <= revision);
        versions.get(until.checked_sub(1)?)?.1.as_ref()
    }

    /// The keys of a range in order, as they were at this revision (0: as they are).
    pub fn range<'a>(&'a self, key: &[u8], end: &[u8], revision: i64) -> Vec<&'a KeyValue> {
        let at = if revision > 0 { revision } else { self.revision };
        let pick = |(_, versions): (&Vec<u8>, &'a Versions)| State::get_at(versions, at);
        match end {
            [] => self.versions.get_key_value(key).and_then(pick).into_iter().collect(),
            [0] => self.versions.range(key.to_vec()..).filter_map(pick).collect(),
            end if key >= end => Vec::new(),
            end => self.versions.range(key.to_vec()..end.to_vec()).filter_map(pick).collect(),
        }
    }

    /// Begins a change, which gets the next revision where it changes anything.
    pub fn begin(&mut self, guards: Vec<(String, i64)>, by: Option<String>) -> Write<'_> {
        Write { commit: Commit { revision: self.revision + 1, guards, by, changes: Vec::new() }, state: self }
    }

    /// Events of a range after this revision, with the next revision to go on from.
    pub fn events(&self, key: &[u8], end: &[u8], from: i64) -> Vec<Event> {
        let start = self.history.partition_point(|(revision, _)| *revision < from);
        let inside = |event: &&Event| {
            let name = event.kv.as_ref().map_or(&[][..], |kv| kv.key.as_slice());
            match end {
                [] => name == key,
                [0] => name >= key,
                end => name >= key && name < end,
            }
        };
        self.history.range(start..).map(|(_, event)| event).filter(inside).cloned().collect()
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Status> {
        if revision <= self.compacted {
            return Err(compacted());
        }
        if revision > self.revision {
            return Err(future());
        }
        self.compacted = revision;
        while self.history.front().is_some_and(|(at, _)| *at <= revision) {
            self.history.pop_front();
        }
        self.versions.retain(|_, versions| {
            let until = versions.partition_point(|(at, _)| *at <= revision);
            versions.drain(..until.saturating_sub(1));
            versions.len() > 1 || versions.first().is_some_and(|(_, value)| value.is_some())
        });
        Ok(())
    }

    pub fn grant(&mut self, ttl: i64) -> Result<(i64, i64), Status> {
        if self.full {
            return Err(no_space());
        }
        self.next_lease += 0x101;
        let (id, ttl) = (self.next_lease, ttl.max(LEAST_TTL));
        let until = self.now + u64::try_from(ttl).unwrap_or(0) * SECOND;
        self.leases.insert(id, Lease { ttl, until, keys: BTreeSet::new() });
        Ok((id, ttl))
    }

    /// The TTL, or 0 for a lease that there is not.
    pub fn keep_alive(&mut self, id: i64) -> i64 {
        let now = self.now;
        self.leases.get_mut(&id).map_or(0, |lease| {
            lease.until = now + u64::try_from(lease.ttl).unwrap_or(0) * SECOND;
            lease.ttl
        })
    }

    pub fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn revoke(&mut self, id: i64, by: Option<String>) -> Result<(), Status> {
        let lease = self.leases.remove(&id).ok_or_else(no_lease)?;
        let mut write = self.begin(Vec::new(), by);
        for key in &lease.keys {
            write.delete(key);
        }
        write.end();
        Ok(())
    }

    pub fn extend_leases(&mut self) {
        for lease in self.leases.values_mut() {
            lease.until = self.now + u64::try_from(lease.ttl).unwrap_or(0) * SECOND;
        }
    }

    /// Ends leases that are over; says whether there was one.
    pub fn expire(&mut self) -> bool {
        if self.now < self.looked_at + EXPIRY_LOOK {
            return false;
        }
        self.looked_at = self.now;
        let early = match self.plant {
            Some(Plant::LeaseEndsEarly) => 2 * SECOND,
            _ => 0,
        };
        let over = |(id, lease): (&i64, &Lease)| (lease.until <= self.now + early).then_some(*id);
        let over: Vec<i64> = self.leases.iter().filter_map(over).collect();
        for id in &over {
            self.expired += 1;
            // It was there a moment ago.
            let _ = self.revoke(*id, None);
        }
        !over.is_empty()
    }
}

/// A change that is under way. Dropped before its end it has changed keys without a revision, which nobody does.
pub struct Write<'a> {
    state: &'a mut State,
    commit: Commit,
}

impl Write<'_> {
    pub fn state(&self) -> &State {
        self.state
    }

    /// The revision as it is for whoever reads within the change.
    pub fn present(&self) -> i64 {
        if self.commit.changes.is_empty() { self.state.revision } else { self.commit.revision }
    }

    /// Sets a value; `lease` 0: on no lease.
    pub fn put(&mut self, key: &[u8], value: Vec<u8>, lease: i64) {
        let revision = self.commit.revision;
        let before = self.state.get(key).cloned();
        if let Some(old) = before.as_ref().map(|before| before.lease).filter(|old| *old != lease)
            && let Some(old) = self.state.leases.get_mut(&old)
        {
            old.keys.remove(key);
        }
        if let Some(lease) = self.state.leases.get_mut(&lease) {
            lease.keys.insert(key.to_vec());
        }
        let kv = KeyValue {
            key: key.to_vec(),
            create_revision: before.as_ref().map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(1, |before| before.version + 1),
            value,
            lease,
        };
        self.record(key, before, Some(kv.clone()));
        self.state.history.push_back((revision, Event { r#type: EventType::Put.into(), kv: Some(kv) }));
    }

    /// Removes a key; says whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let Some(before) = self.state.get(key).cloned() else { return false };
        if let Some(lease) = self.state.leases.get_mut(&before.lease) {
            lease.keys.remove(key);
        }
        let revision = self.commit.revision;
        self.record(key, Some(before), None);
        let kv = KeyValue { key: key.to_vec(), mod_revision: revision, ..KeyValue::default() };
        self.state.history.push_back((revision, Event { r#type: EventType::Delete.into(), kv: Some(kv) }));
        true
    }

    fn record(&mut self, key: &[u8], before: Option<KeyValue>, after: Option<KeyValue>) {
        let name = String::from_utf8_lossy(key).into_owned();
        self.commit.changes.push(Change {
            key: name,
            value: after.as_ref().map(|after| after.value.clone()),
            before: before.map(|before| before.value),
        });
        self.state.versions.entry(key.to_vec()).or_default().push((self.commit.revision, after));
    }

    /// Ends the change; returns the revision afterwards.
    pub fn end(self) -> i64 {
        if !self.commit.changes.is_empty() {
            self.state.revision = self.commit.revision;
            self.state.commits.push(self.commit);
        }
        self.state.revision
    }
}

pub fn no_space() -> Status {
    Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
}

pub fn no_lease() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub fn compacted() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
}

pub fn future() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
}
