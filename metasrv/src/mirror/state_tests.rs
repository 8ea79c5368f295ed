//! Goal: with everything delivered, what is held is what a list shows, and what would lose a change is refused.
//! Method: random changes of readable, unreadable and foreign keys, with random deliveries and lists.

use std::collections::BTreeMap;

use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId};
use metasrv_proto::admin::{CounterRecord, NodeLeaseRecord, NodeRecord, RouteRecord};
use proptest::prelude::*;

use super::state::{Difference, Event, State};
use crate::keys::Keys;
use crate::record::encode;
use crate::store::Record;

fn keys() -> Keys {
    Keys::new("/m")
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(0), NodeId(id))
}

fn route(node_id: u64, epoch: u64) -> Vec<u8> {
    encode(&RouteRecord { node_id, epoch, ..RouteRecord::default() })
}

/// A key of each kind, one that nobody understands, and one that is nobody's business.
fn a_key(choice: usize, id: u64) -> String {
    match choice {
        0 => keys().region(RegionId(id)),
        1 => keys().lease(&node(id)),
        2 => keys().node(&node(id)),
        3 => keys().region_sequence(),
        4 => format!("{}/{id:x}", keys().election()),
        5 => format!("{}{id}", keys().regions()),
        _ => keys().installation(),
    }
}

fn a_value(choice: usize, number: u64) -> Vec<u8> {
    match choice {
        _ if number.is_multiple_of(7) => b"\xffgarbage".to_vec(),
        1 => encode(&NodeLeaseRecord { term: number, ..NodeLeaseRecord::default() }),
        2 => encode(&NodeRecord { node_epoch: number, ..NodeRecord::default() }),
        3 => encode(&CounterRecord { value: number }),
        _ => route(number, number),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Puts, and deletes, in one revision.
    Change(Vec<(usize, u64, Option<u64>)>),
    /// The watch delivers so many revisions of those that wait.
    Deliver(usize),
    /// The watch is lost; the state is listed.
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0_usize..7, 0_u64..4, prop::option::weighted(0.7, 0_u64..50));
    prop_oneof![
        4 => prop::collection::vec(change, 1..4).prop_map(Step::Change),
        3 => (1_usize..4).prop_map(Step::Deliver),
        1 => Just(Step::List),
    ]
}

proptest! {
    /// However changes, deliveries and lists are mixed: with everything delivered, the mirror is what a list shows.
    #[test]
    fn any_mixture_of_lists_and_watches_gives_what_the_store_has(steps in prop::collection::vec(step(), 1..60)) {
        let (mut stored, mut revision) = (BTreeMap::<String, Record>::new(), 0_i64);
        let (mut mirror, mut waiting) = (State::default(), Vec::<Vec<Event>>::new());
        for step in steps.into_iter().chain([Step::Deliver(usize::MAX)]) {
            match step {
                Step::Change(changes) => {
                    revision += 1;
                    let mut events = BTreeMap::new();
                    for (choice, id, value) in changes {
                        let key = a_key(choice, id);
                        events.insert(key.clone(), match value {
                            Some(number) => Event::Put(Record {
                                key, value: a_value(choice, number), create_revision: 1, mod_revision: revision,
                            }),
                            None => Event::Deleted { key, revision },
                        });
                    }
                    for event in events.values() {
                        match event {
                            Event::Put(record) => drop(stored.insert(record.key.clone(), record.clone())),
                            Event::Deleted { key, .. } => drop(stored.remove(key)),
                        }
                    }
                    waiting.push(events.into_values().collect());
                }
                Step::Deliver(count) => {
                    let events: Vec<Event> = waiting.drain(..count.min(waiting.len())).flatten().collect();
                    prop_assert_eq!(mirror.apply(&keys(), &events), Ok(()));
                }
                Step::List => {
                    mirror = State::of(&keys(), revision, stored.values());
                    waiting.clear();
                }
            }
        }
        let listed = State::of(&keys(), revision, stored.values());
        prop_assert_eq!(mirror.difference(&listed), Difference::default());
        prop_assert_eq!(mirror, listed);
    }
}

#[test]
fn events_that_do_not_follow_are_refused() {
    let deleted = |revision| Event::Deleted { key: keys().region(RegionId(1)), revision };
    let state = State::of(&keys(), 5, &[]);
    for (events, event) in
        [(vec![deleted(5)], 5), (vec![deleted(7), deleted(6)], 6), (vec![deleted(4), deleted(6)], 4)]
    {
        let refused = state.clone().apply(&keys(), &events).unwrap_err();
        assert_eq!(refused.event, event);
    }
    let mut state = state;
    assert_eq!(state.apply(&keys(), &[deleted(6), deleted(6), deleted(9)]), Ok(()));
    assert_eq!((state.revision, state.apply(&keys(), &[])), (9, Ok(())));
}
