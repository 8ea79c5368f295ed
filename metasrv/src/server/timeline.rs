//! What was decided, from the store: so that any replica answers, whoever leads.
//!
//! | asked for | answered |
//! | --- | --- |
//! | nothing to begin after | the latest `limit` events, oldest first; fewer where those would be more than 2 MiB |
//! | those after an id | the first ones after it. A transaction's events share one id and are never torn: fewer than `limit`, and than 2 MiB, where the next would not fit whole; more where a single one is larger. None: there are no more |
//! | a region | events that name it |
//! | a node | events about it, and those in which a region left it |
//! | a record that cannot be read | an event of the kind `unreadable` in its place, where nothing is filtered |

use std::collections::VecDeque;

use metasrv_proto::admin::{Event, EventsRecord, ListEventsRequest, ListEventsResponse, StoredEvent};
use prost::Message as _;
use tonic::Status;

use crate::keys::Keys;
use crate::record;
use crate::store::{Place, Record, Store, StoreError, each};

/// Events of one answer, where nothing else is asked for.
const USUAL: usize = 1_000;

/// The most events of one answer.
const MOST: usize = 10_000;

/// Bytes of one answer: half of what the usual client takes. One transaction's events are no more than a request of etcd's.
const ANSWER_BYTES: usize = 2 << 20;

/// Entries that are read at a time, going up.
const PART: usize = 256;

/// Entries that are read at first, going down; four times as many each time, because the store reads all for each part.
const FIRST_PART: usize = 64;

/// Answers from what is stored, of which no more is held at a time than a part.
///
/// # Errors
/// `INVALID_ARGUMENT` for a limit that is too high, `UNAVAILABLE` where the store cannot be read.
pub async fn list_events(
    store: &dyn Store,
    keys: &Keys,
    request: &ListEventsRequest,
) -> Result<ListEventsResponse, Status> {
    let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
        0 => USUAL,
        limit @ 1..=MOST => limit,
        _ => return Err(Status::invalid_argument(format!("limit: {MOST} is the most"))),
    };
    let history = History { store, keys, prefix: keys.timeline(), request };
    let events = match request.after {
        0 if request.region_id == 0 && request.node_id == 0 => history.latest(limit).await,
        0 => history.latest_of_all(limit).await,
        after => history.after(after, limit).await,
    };
    let events =
        events.map_err(|error| Status::unavailable(format!("the history cannot be read: {error}")))?;
    Ok(ListEventsResponse { events })
}

/// What is asked for, and where it is.
struct History<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    prefix: String,
    request: &'a ListEventsRequest,
}

impl History<'_> {
    /// The last ones, where nearly every entry has one that is asked for.
    async fn latest(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        let mut events = Latest::new(limit);
        let (mut part, mut before) = (FIRST_PART, None::<String>);
        while !events.is_full() {
            let place = before.as_deref().map_or(Place::Last, Place::Before);
            let records = self.store.list_part(&self.prefix, place, part).await?;
            let Some(last) = records.last() else { break };
            before = Some(last.key.clone());
            for record in &records {
                self.read(record).into_iter().rev().for_each(|event| events.put_before(event));
            }
            part = part.saturating_mul(4);
        }
        Ok(events.into_list())
    }

    /// The last ones, where few entries may have one: all are looked at, upwards.
    async fn latest_of_all(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        let mut events = Latest::new(limit);
        let see = |record: &Record| self.read(record).into_iter().for_each(|event| events.put_behind(event));
        each(self.store, &self.prefix, PART, see).await?;
        Ok(events.into_list())
    }

    /// The first ones after an id.
    async fn after(&self, id: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let (mut events, mut bytes) = (Vec::new(), 0_usize);
        let mut after = self.keys.timeline_entry(id);
        loop {
            let records = self.store.list_part(&self.prefix, Place::After(&after), PART).await?;
            let Some(last) = records.last() else { return Ok(events) };
            after.clone_from(&last.key);
            for record in &records {
                let found = self.read(record);
                bytes = bytes.saturating_add(found.iter().map(size).sum());
                let full = events.len().saturating_add(found.len()) > limit || bytes > ANSWER_BYTES;
                if !events.is_empty() && full {
                    return Ok(events);
                }
                events.extend(found);
            }
            if events.len() >= limit {
                return Ok(events);
            }
        }
    }

    /// The events of one entry that are asked for.
    fn read(&self, stored: &Record) -> Vec<Event> {
        let id = self.keys.parse_timeline_entry(&stored.key);
        id.map_or_else(Vec::new, |id| read(id, stored, self.request))
    }
}

/// The latest events, as far as the limits allow.
struct Latest {
    events: VecDeque<Event>,
    bytes: usize,
    limit: usize,
    /// An older one did not fit.
    full: bool,
}

impl Latest {
    fn new(limit: usize) -> Latest {
        Latest { events: VecDeque::new(), bytes: 0, limit, full: false }
    }

    fn is_full(&self) -> bool {
        self.full || self.events.len() >= self.limit
    }

    /// One that is older than all of them.
    fn put_before(&mut self, event: Event) {
        let bytes = self.bytes.saturating_add(size(&event));
        self.full = self.is_full() || (bytes > ANSWER_BYTES && !self.events.is_empty());
        if !self.full {
            self.bytes = bytes;
            self.events.push_front(event);
        }
    }

    /// One that is newer than all of them.
    fn put_behind(&mut self, event: Event) {
        self.bytes = self.bytes.saturating_add(size(&event));
        self.events.push_back(event);
        while self.events.len() > self.limit || (self.bytes > ANSWER_BYTES && self.events.len() > 1) {
            let oldest = self.events.pop_front().map_or(0, |oldest| size(&oldest));
            self.bytes = self.bytes.saturating_sub(oldest);
        }
    }

    fn into_list(self) -> Vec<Event> {
        self.events.into()
    }
}

/// Bytes of an event in an answer.
fn size(event: &Event) -> usize {
    event.encoded_len().saturating_add(MESSAGE_OVERHEAD)
}

/// Tag and length of an event in its list.
const MESSAGE_OVERHEAD: usize = 6;

/// The events of one record that are asked for.
fn read(id: u64, stored: &Record, request: &ListEventsRequest) -> Vec<Event> {
    match record::decode::<EventsRecord>(stored) {
        Ok(EventsRecord { term, at_ms, events }) => {
            let asked = events.into_iter().filter(|event| is_asked_for(event, request));
            asked.map(|event| shown(id, term, at_ms, event)).collect()
        }
        Err(error) if request.region_id == 0 && request.node_id == 0 => {
            vec![Event { id, kind: "unreadable".to_owned(), why: error.to_string(), ..Event::default() }]
        }
        Err(_) => Vec::new(),
    }
}

fn is_asked_for(event: &StoredEvent, request: &ListEventsRequest) -> bool {
    let region = request.region_id == 0 || event.region_id == request.region_id;
    let node =
        request.node_id == 0 || event.node_id == request.node_id || event.from_node_id == request.node_id;
    region && node
}

fn shown(id: u64, term: u64, at_ms: u64, event: StoredEvent) -> Event {
    let StoredEvent { kind, cluster_id, region_id, node_id, from_node_id, epoch, procedure_id, why } = event;
    Event { id, term, at_ms, kind, cluster_id, region_id, node_id, from_node_id, epoch, procedure_id, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, Txn};

    async fn put(store: &MemoryStore, key: String, value: Vec<u8>) {
        let changes = vec![Change::Put { key, value }];
        store.commit(Txn { compares: Vec::new(), changes }).await.unwrap();
    }

    /// Entries 1, 2, 3, … with an event for each of these regions; region R goes from node R to node R + 1.
    async fn history(entries: &[&[u64]]) -> (MemoryStore, Keys) {
        let (store, keys) = (MemoryStore::default(), Keys::new("/m"));
        for (id, regions) in (1..).zip(entries) {
            let event = |region: &u64| StoredEvent {
                kind: "region_failed_over".to_owned(),
                region_id: *region,
                from_node_id: *region,
                node_id: *region + 1,
                ..StoredEvent::default()
            };
            let events = regions.iter().map(event).collect();
            let value = record::encode(&EventsRecord { term: 7, at_ms: 9, events });
            put(&store, keys.timeline_entry(id), value).await;
        }
        (store, keys)
    }

    async fn asked(store: &MemoryStore, keys: &Keys, request: ListEventsRequest) -> Vec<(u64, u64)> {
        let answer = list_events(store, keys, &request).await.unwrap();
        answer.events.iter().map(|event| (event.id, event.region_id)).collect()
    }

    #[tokio::test]
    async fn without_a_beginning_the_latest_events_are_listed_oldest_first() {
        let (store, keys) = history(&[&[1], &[2, 3, 4], &[5]]).await;
        let all = asked(&store, &keys, ListEventsRequest::default()).await;
        assert_eq!(all, [(1, 1), (2, 2), (2, 3), (2, 4), (3, 5)]);
        let limited = asked(&store, &keys, ListEventsRequest { limit: 3, ..Default::default() }).await;
        assert_eq!(limited, [(2, 3), (2, 4), (3, 5)]);
    }

    /// Goal: whoever goes on after the last id that it has seen misses nothing.
    #[tokio::test]
    async fn after_an_id_transactions_are_never_torn() {
        let (store, keys) = history(&[&[1], &[2], &[3, 4], &[5, 6, 7]]).await;
        let after = |after| ListEventsRequest { after, limit: 2, ..Default::default() };
        assert_eq!(asked(&store, &keys, after(1)).await, [(2, 2)], "the next two would not fit whole");
        assert_eq!(asked(&store, &keys, after(2)).await, [(3, 3), (3, 4)]);
        assert_eq!(asked(&store, &keys, after(3)).await, [(4, 5), (4, 6), (4, 7)], "larger than the limit");
        assert_eq!(asked(&store, &keys, after(4)).await, []);
    }

    /// Goal: no answer is larger than what the usual client takes, and whoever goes on after each has all in the end. Method: a
    /// history of 8 MiB, of which each way of asking brings a part; one entry is as large as a transaction may be.
    #[tokio::test]
    async fn an_answer_is_bounded_in_bytes_too() {
        let (store, keys) = (MemoryStore::default(), Keys::new("/m"));
        let event =
            |region_id, bytes| StoredEvent { region_id, why: "w".repeat(bytes), ..StoredEvent::default() };
        for id in 1..=800 {
            let region = 1 + id % 2;
            let events =
                if id == 400 { vec![event(region, 100_000); 10] } else { vec![event(region, 3_000); 3] };
            let value = record::encode(&EventsRecord { term: 7, at_ms: 9, events });
            put(&store, keys.timeline_entry(id), value).await;
        }
        let ask = async |request: ListEventsRequest| list_events(&store, &keys, &request).await.unwrap();
        let all = ListEventsRequest { limit: 10_000, ..Default::default() };
        let latest = ask(all).await;
        assert!(latest.encoded_len() <= ANSWER_BYTES, "{}", latest.encoded_len());
        assert_eq!(latest.events.last().map(|event| event.id), Some(800));
        assert!(latest.events.len() > 600, "{}", latest.events.len());
        let (mut after, mut seen) = (1, 3);
        loop {
            let answer = ask(ListEventsRequest { after, ..all }).await;
            let Some(last) = answer.events.last() else { break };
            assert!(answer.encoded_len() <= ANSWER_BYTES, "{}", answer.encoded_len());
            (after, seen) = (last.id, seen + answer.events.len());
        }
        assert_eq!((after, seen), (800, 799 * 3 + 10), "nothing is left out");
        let region = ask(ListEventsRequest { region_id: 1, ..all }).await;
        assert!(region.encoded_len() <= ANSWER_BYTES && region.events.len() > 600);
        assert_eq!(region.events.last().map(|event| (event.id, event.region_id)), Some((800, 1)));
    }

    #[tokio::test]
    async fn a_region_and_a_node_filter_events_on_either_side() {
        let (store, keys) = history(&[&[1, 2], &[3, 2]]).await;
        let region = ListEventsRequest { region_id: 2, ..Default::default() };
        assert_eq!(asked(&store, &keys, region).await, [(1, 2), (2, 2)]);
        let node = ListEventsRequest { node_id: 3, ..Default::default() };
        assert_eq!(asked(&store, &keys, node).await, [(1, 2), (2, 3), (2, 2)], "to node 3, and from it");
    }

    #[tokio::test]
    async fn an_unreadable_entry_is_an_event_and_hides_no_other() {
        let (store, keys) = history(&[&[1], &[2]]).await;
        put(&store, keys.timeline_entry(1), vec![9]).await;
        let answer = list_events(&store, &keys, &ListEventsRequest::default()).await.unwrap();
        assert_eq!(answer.events[0].kind, "unreadable");
        assert!(answer.events[0].why.contains("format 9"), "{:?}", answer.events[0]);
        assert_eq!((answer.events[1].id, answer.events[1].term, answer.events[1].at_ms), (2, 7, 9));
        assert_eq!(
            asked(&store, &keys, ListEventsRequest { region_id: 2, ..Default::default() }).await,
            [(2, 2)]
        );
    }

    #[tokio::test]
    async fn a_limit_that_is_too_high_is_refused_by_name() {
        let (store, keys) = history(&[]).await;
        let request = ListEventsRequest { limit: 10_001, ..Default::default() };
        let refused = list_events(&store, &keys, &request).await.unwrap_err();
        assert!(refused.message().starts_with("limit: "), "{refused}");
    }
}
