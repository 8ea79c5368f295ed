//! What was decided, from the store: so that any replica answers, whoever leads.
//!
//! | asked for | answered |
//! | --- | --- |
//! | nothing to begin after | the latest `limit` events, oldest first |
//! | those after an id | the first ones after it. A transaction's events share one id and are never torn: fewer than `limit` where the next would not fit whole, more where a single one is larger |
//! | a region | events that name it |
//! | a node | events about it, and those in which a region left it |
//! | a record that cannot be read | an event of the kind `unreadable` in its place, where nothing is filtered |

use metasrv_proto::admin::{Event, EventsRecord, ListEventsRequest, ListEventsResponse, StoredEvent};
use tonic::Status;

use crate::keys::Keys;
use crate::record;
use crate::store::{Record, Store};

/// Events of one answer, where nothing else is asked for.
const USUAL: usize = 1_000;

/// The most events of one answer.
const MOST: usize = 10_000;

/// Answers from what is stored.
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
    let page = store.list(&keys.timeline()).await;
    let page = page.map_err(|error| Status::unavailable(format!("the history cannot be read: {error}")))?;
    let entries =
        page.records.iter().filter_map(|stored| Some((keys.parse_timeline_entry(&stored.key)?, stored)));
    let events = if request.after == 0 {
        latest(entries, request, limit)
    } else {
        first(entries.filter(|(id, _)| *id > request.after), request, limit)
    };
    Ok(ListEventsResponse { events })
}

fn latest<'a>(
    entries: impl DoubleEndedIterator<Item = (u64, &'a Record)>,
    request: &ListEventsRequest,
    limit: usize,
) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, stored) in entries.rev() {
        events.extend(read(id, stored, request).into_iter().rev());
        if events.len() >= limit {
            break;
        }
    }
    events.truncate(limit);
    events.reverse();
    events
}

fn first<'a>(
    entries: impl Iterator<Item = (u64, &'a Record)>,
    request: &ListEventsRequest,
    limit: usize,
) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, stored) in entries {
        let found = read(id, stored, request);
        if !events.is_empty() && events.len().saturating_add(found.len()) > limit {
            break;
        }
        events.extend(found);
    }
    events
}

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
