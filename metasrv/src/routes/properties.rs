//! Goal: whatever happens between, a reader ends with what the store has, and never goes back.
//! Method: random changes, boards that hear of them at their own pace and with a short memory, a reader that wanders
//! between them and checks each message, and a store that is set back.

use proptest::prelude::*;

use super::cursor::Next;
use super::reader::{Events, Reader, keys};
use super::tests::board;

#[derive(Clone, Debug)]
enum Step {
    Route {
        region: u64,
        node: u64,
        group: &'static str,
    },
    Drop {
        region: u64,
    },
    Address {
        node: u64,
        port: u64,
    },
    Migrate {
        region: u64,
        node: u64,
    },
    Migrated {
        region: u64,
    },
    End {
        node: u64,
    },
    /// A board hears what has happened.
    Hear {
        board: usize,
    },
    /// A board has lost its watch, and lists.
    List {
        board: usize,
    },
    /// The reader takes some messages.
    Read {
        messages: usize,
    },
    /// The reader goes to a board.
    Connect {
        board: usize,
    },
    /// The store is set back to what it was before these last changes.
    SetBack {
        changes: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..6_u64, 1..4_u64, prop_oneof![Just(""), Just("a"), Just("b")]).prop_map(|(region, node, group)| Step::Route { region, node, group }),
        2 => (1..6_u64).prop_map(|region| Step::Drop { region }),
        1 => (1..4_u64, 1..3_u64).prop_map(|(node, port)| Step::Address { node, port }),
        3 => (1..6_u64, 1..4_u64).prop_map(|(region, node)| Step::Migrate { region, node }),
        2 => (1..6_u64).prop_map(|region| Step::Migrated { region }),
        1 => (1..4_u64).prop_map(|node| Step::End { node }),
        6 => (0..2_usize).prop_map(|board| Step::Hear { board }),
        1 => (0..2_usize).prop_map(|board| Step::List { board }),
        4 => (1..4_usize).prop_map(|messages| Step::Read { messages }),
        2 => (0..2_usize).prop_map(|board| Step::Connect { board }),
        1 => (1..20_usize).prop_map(|changes| Step::SetBack { changes }),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Two boards hear of the changes at their own pace, one reader wanders between them; in the end it knows what the
    /// store has. On the way its revision goes back only after the store has.
    #[test]
    fn snapshot_and_changes_lead_to_what_the_store_has(steps in steps()) {
        let mut events = Events::new();
        let mut boards = [board(&events), board(&events)];
        let (mut reader, mut at, mut epoch) = (Reader::default(), 0, 0);
        let mut cursor = reader.connect(&boards[at]);
        let mut set_back = false;
        for step in steps {
            match step {
                Step::Route { region, node, group } => {
                    epoch += 1;
                    events.route(region, node, epoch, group);
                }
                Step::Drop { region } => events.drop_route(region),
                Step::Address { node, port } => events.address(node, &format!("n{node}:{port}")),
                Step::Migrate { region, node } => events.migrate(region, node),
                Step::Migrated { region } => events.migrated(region),
                Step::End { node } => events.end(node),
                Step::Hear { board } => events.tell(&mut boards[board]),
                Step::List { board } => drop(boards[board].install(&keys(), &events.page())),
                Step::Read { messages } => {
                    for _ in 0..messages {
                        let before = reader.revision;
                        match boards[at].advance(&mut cursor) {
                            Next::Message(message) => reader.take(&message),
                            Next::Nothing => break,
                            Next::FellBehind => cursor = reader.connect(&boards[at]),
                        }
                        prop_assert!(set_back || reader.revision >= before);
                    }
                }
                Step::Connect { board } => {
                    // As the service has it: it waits for a board that has not come as far.
                    at = board;
                    events.tell(&mut boards[at]);
                    cursor = reader.connect(&boards[at]);
                }
                Step::SetBack { changes } => {
                    set_back = true;
                    for board in &mut boards {
                        events.tell(board);
                    }
                    let keep = events.log.len().saturating_sub(changes).max(1);
                    let log = events.log[..keep].to_vec();
                    events = Events::default();
                    events.replay(&log);
                    for board in &mut boards {
                        // Each notices, by a list that shows a lower revision or by a broken watch.
                        board.install(&keys(), &events.page());
                    }
                }
            }
        }
        events.tell(&mut boards[at]);
        while reader.drain(&boards[at], &mut cursor) == Next::FellBehind {
            cursor = reader.connect(&boards[at]);
        }
        prop_assert_eq!(&reader.routes, &events.truth());
        prop_assert!(reader.complete);
    }
}
