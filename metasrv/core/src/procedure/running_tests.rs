//! Goal: which procedures may run beside each other. Method: those at work, one more that is wanted, and the answer.

use super::*;

const LIMITS: Limits = Limits { migrations: 3, migrations_per_node: 2, gaps_per_node: 1, drains: 1 };

fn migration(region: u64, nodes: [u64; 2]) -> InFlight {
    InFlight {
        kind: Kind::Migration,
        claim: Claim::Route(RegionId(region)),
        nodes: nodes.map(NodeId).to_vec(),
        in_gap: false,
    }
}

fn failover(region: u64) -> InFlight {
    InFlight { kind: Kind::Failover, ..migration(region, [1, 2]) }
}

#[test]
fn one_region_has_one_procedure_and_only_a_failover_passes_a_clean_up() {
    let mut running = Running::default();
    running.insert(ProcedureId(1), migration(7, [1, 2]));
    let busy = Err(Refusal::RegionBusy(ProcedureId(1)));
    assert_eq!(running.admits(&migration(7, [3, 4]), &LIMITS), busy);
    assert_eq!(running.admits(&failover(7), &LIMITS), busy);
    assert_eq!(running.admits(&migration(8, [3, 4]), &LIMITS), Ok(()));

    let remains = InFlight { claim: Claim::Remains(RegionId(7)), ..migration(7, [1, 2]) };
    running.insert(ProcedureId(1), remains);
    assert_eq!((running.count(Kind::Migration), running.load(NodeId(1))), (1, 1), "counted once");
    assert_eq!(running.admits(&migration(7, [3, 4]), &LIMITS), busy, "its close could hit the new candidate");
    assert_eq!(running.admits(&failover(7), &LIMITS), Ok(()));
    running.insert(ProcedureId(2), failover(7));
    assert_eq!(running.admits(&failover(7), &LIMITS), Err(Refusal::RegionBusy(ProcedureId(2))));

    running.remove(ProcedureId(1));
    running.remove(ProcedureId(2));
    assert_eq!(running.admits(&migration(7, [3, 4]), &LIMITS), Ok(()));
}

#[test]
fn limits_count_both_sides_of_a_migration_and_what_was_resumed() {
    let mut running = Running::default();
    running.insert(ProcedureId(1), migration(1, [1, 2]));
    running.insert(ProcedureId(2), migration(2, [3, 2]));
    assert_eq!(running.load(NodeId(2)), 2);
    let full = Err(Refusal::NodeFull { node: NodeId(2), at_most: 2 });
    assert_eq!(running.admits(&migration(3, [2, 4]), &LIMITS), full);
    assert_eq!(running.admits(&migration(3, [4, 2]), &LIMITS), full);
    assert_eq!(running.admits(&failover(3), &LIMITS), Ok(()), "the brake limits failovers");
    running.insert(ProcedureId(3), migration(3, [4, 5]));
    running.insert(ProcedureId(4), migration(4, [4, 5]));
    assert_eq!(running.count(Kind::Migration), 4, "four were stored: they go on above the limit");
    let full = Err(Refusal::Full { kind: Kind::Migration, at_most: 3 });
    assert_eq!(running.admits(&migration(5, [8, 9]), &LIMITS), full);
    running.remove(ProcedureId(4));
    running.remove(ProcedureId(4));
    running.remove(ProcedureId(3));
    assert_eq!((running.count(Kind::Migration), running.load(NodeId(4))), (2, 0));
    assert_eq!(running.admits(&migration(5, [8, 9]), &LIMITS), Ok(()));
}

#[test]
fn one_node_has_one_region_without_a_writer_at_a_time() {
    let mut running = Running::default();
    let in_gap = |region, nodes| InFlight { in_gap: true, ..migration(region, nodes) };
    let room = |running: &Running, nodes: [u64; 2]| running.has_room_for_gap(&nodes.map(NodeId), &LIMITS);
    running.insert(ProcedureId(1), migration(1, [1, 2]));
    assert!(room(&running, [1, 3]), "it still has its writer");
    running.insert(ProcedureId(1), in_gap(1, [1, 2]));
    assert!(!room(&running, [1, 3]) && !room(&running, [3, 1]) && !room(&running, [3, 2]));
    assert!(room(&running, [3, 4]), "others have nothing to do with it");
    assert_eq!(running.admits(&migration(2, [1, 3]), &LIMITS), Ok(()), "it may prepare");
    running.insert(ProcedureId(1), migration(1, [1, 2]));
    assert!(room(&running, [1, 3]));
    running.insert(ProcedureId(2), in_gap(2, [1, 3]));
    running.remove(ProcedureId(2));
    assert!(room(&running, [1, 3]));
    let none = Limits { gaps_per_node: 0, ..LIMITS };
    assert!(running.has_room_for_gap(&[NodeId(1)], &none), "a limit of none would stop everything for ever");
}

#[test]
fn a_node_has_one_drain_and_drains_are_limited() {
    let drain = |node| InFlight {
        kind: Kind::Drain,
        claim: Claim::Node(NodeId(node)),
        nodes: vec![NodeId(node)],
        in_gap: false,
    };
    let mut running = Running::default();
    running.insert(ProcedureId(1), drain(1));
    assert_eq!(running.admits(&drain(1), &LIMITS), Err(Refusal::NodeBusy(ProcedureId(1))));
    assert_eq!(running.admits(&drain(2), &LIMITS), Err(Refusal::Full { kind: Kind::Drain, at_most: 1 }));
    assert_eq!(running.load(NodeId(1)), 0, "a drain itself moves nothing");
}
