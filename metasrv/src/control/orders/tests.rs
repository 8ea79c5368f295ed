//! Goal: what operators want survives a change of leader, ends by itself at its time, and is written once. Method: orders
//! alone, with the writes that they ask for applied to nothing; a commit is a revision that is handed in.

use super::*;
use crate::record::decode;
use metasrv_core::brake::{Brake, Census, Hold, Limits, Verdict};
use metasrv_core::id::Term;

const WALL: u64 = 1_700_000_000_000;

fn keys() -> Keys {
    Keys::new("/test")
}

fn node(id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(0), NodeId(id))
}

fn at(seconds: u64) -> BootTime {
    BootTime::from_millis(seconds * 1_000)
}

fn given(seconds: u64, reason: &str) -> Given<'_> {
    Given { reason, term: Term(4), now: at(seconds), wall_ms: WALL + seconds * 1_000 }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The record that a write stores; `None`: it deletes.
fn stored<M: prost::Message + Default>(write: &Write) -> Option<M> {
    match &write.change {
        StoreChange::Put { key, value } => {
            let record =
                Record { key: key.clone(), value: value.clone(), create_revision: 1, mod_revision: 1 };
            Some(decode(&record).unwrap())
        }
        StoreChange::Delete { .. } => None,
        other @ StoreChange::Update { .. } => panic!("{other:?}"),
    }
}

fn commit(orders: &mut Orders, (write, change): (Write, Change), revision: i64) -> Write {
    orders.committed(change, revision);
    write
}

fn verdict(orders: &Orders, brake: &mut Brake, seconds: u64) -> Verdict {
    orders.apply_to(brake, at(seconds));
    brake.verdict(0, at(seconds))
}

#[test]
fn a_cordon_is_in_force_when_it_is_committed_and_asking_twice_writes_once() {
    let mut orders = Orders::default();
    let asked = orders.cordon(&keys(), node(3), true, given(1, "disk is dying")).unwrap();
    assert!(!orders.cordoned(&node(3)), "in force before it was committed");
    assert!(orders.is_changing(Subject::Node(node(3))) && !orders.is_changing(Subject::Node(node(4))));
    let write = commit(&mut orders, asked, 7);
    assert_eq!((write.change.key(), write.expected_mod_revision), (keys().node_order(&node(3)).as_str(), 0));
    let record: NodeOrderRecord = stored(&write).unwrap();
    assert_eq!((record.cordoned, record.reason.as_str(), record.term), (true, "disk is dying", 4));
    assert!(orders.cordoned(&node(3)) && !orders.is_changing(Subject::Node(node(3))));
    assert!(orders.cordon(&keys(), node(3), true, given(2, "again")).is_none(), "written twice");

    let asked = orders.cordon(&keys(), node(3), false, given(3, "new disk")).unwrap();
    let write = commit(&mut orders, asked, 8);
    assert_eq!((stored::<NodeOrderRecord>(&write), write.expected_mod_revision), (None, 7));
    assert!(!orders.cordoned(&node(3)));
    assert!(orders.cordon(&keys(), node(3), false, given(4, "again")).is_none());
}

/// Goal: the loop never turns without a pause. Seed 101 of the simulation: leadership had ended, the loop was not told yet, and each
/// attempt to remove a record whose time was over failed at once and was begun again at once.
#[test]
fn seed_101_a_record_that_cannot_be_removed_is_not_tried_again_at_once() {
    let mut orders = Orders::default();
    let asked = orders.announce_restart(&keys(), node(1), seconds(60), given(10, "kernel")).unwrap();
    commit(&mut orders, asked, 5);
    let (_, (_, change)) = orders.outlived(&keys(), at(70)).unwrap();
    orders.failed(change, at(70));
    assert!(orders.outlived(&keys(), at(70)).is_none());
    assert!(orders.outlived(&keys(), at(71)).is_some());
}

#[test]
fn an_announced_restart_ends_at_its_time_and_its_record_goes_but_a_cordon_stays() {
    let mut orders = Orders::default();
    for id in [1, 2] {
        let asked = orders.announce_restart(&keys(), node(id), seconds(60), given(10, "kernel")).unwrap();
        let write = commit(&mut orders, asked, 5);
        let record: NodeOrderRecord = stored(&write).unwrap();
        assert_eq!(record.restarting_until_ms, WALL + 70_000);
    }
    let asked = orders.cordon(&keys(), node(2), true, given(11, "")).unwrap();
    let write = commit(&mut orders, asked, 6);
    assert_eq!(write.expected_mod_revision, 5);
    let restarting = orders.restarting(ClusterId(0), at(69));
    assert_eq!(restarting, BTreeMap::from([(NodeId(1), at(70)), (NodeId(2), at(70))]));
    assert_eq!(orders.restarting(ClusterId(1), at(69)), BTreeMap::new(), "another cluster");
    assert_eq!(orders.restarts_until(&node(1), at(69)), Some(at(70)));
    assert!(orders.outlived(&keys(), at(69)).is_none());

    assert_eq!(orders.restarting(ClusterId(0), at(70)), BTreeMap::new());
    let (outlived, asked) = orders.outlived(&keys(), at(70)).unwrap();
    assert_eq!(outlived, node(1));
    assert!(orders.outlived(&keys(), at(70)).is_none(), "asked for twice while it is under way");
    let write = commit(&mut orders, asked, 9);
    assert_eq!((stored::<NodeOrderRecord>(&write), write.expected_mod_revision), (None, 5));
    assert!(orders.outlived(&keys(), at(70)).is_none() && orders.cordoned(&node(2)), "the cordon stays");
}

#[test]
fn an_announcement_that_is_taken_back_is_over_at_once() {
    let mut orders = Orders::default();
    assert!(orders.announce_restart(&keys(), node(1), Duration::ZERO, given(1, "")).is_none());
    let asked = orders.announce_restart(&keys(), node(1), seconds(60), given(1, "")).unwrap();
    commit(&mut orders, asked, 5);
    let asked = orders.announce_restart(&keys(), node(1), Duration::ZERO, given(2, "")).unwrap();
    commit(&mut orders, asked, 6);
    assert_eq!(orders.restarts_until(&node(1), at(2)), None);
}

#[test]
fn a_pause_holds_the_brake_and_ends_by_itself() {
    let (mut orders, mut brake) = (Orders::default(), Brake::new(Limits::default()));
    assert!(matches!(verdict(&orders, &mut brake, 1), Verdict::Proceed { .. }));
    let asked = orders.pause(&keys(), seconds(30), given(10, "maintenance of the network"));
    let write = commit(&mut orders, asked, 5);
    assert_eq!(stored::<FailoverOrderRecord>(&write).unwrap().paused_until_ms, WALL + 40_000);
    let why = Hold::Paused { until: at(40), reason: "maintenance of the network".to_owned() };
    assert_eq!(verdict(&orders, &mut brake, 39), Verdict::Hold { why });
    assert_eq!(orders.failovers(at(39)).paused_until_ms, WALL + 40_000);
    assert!(matches!(verdict(&orders, &mut brake, 40), Verdict::Proceed { .. }));
    assert_eq!(orders.failovers(at(40)), FailoverOrderRecord::default(), "said to last though it is over");
}

#[test]
fn a_resumption_ends_a_pause_and_overrides_the_brake_only_as_long_as_it_lasts() {
    let (mut orders, mut brake) = (Orders::default(), Brake::new(Limits::default()));
    brake.observe(Census { nodes: 6, silent: 6 }, at(1));
    let asked = orders.pause(&keys(), seconds(100), given(1, ""));
    commit(&mut orders, asked, 5);
    let asked = orders.resume(&keys(), seconds(20), given(10, "they are really dead"));
    let write = commit(&mut orders, asked, 6);
    assert_eq!(write.expected_mod_revision, 5);
    let record: FailoverOrderRecord = stored(&write).unwrap();
    assert_eq!((record.paused_until_ms, record.resumed_until_ms), (0, WALL + 30_000));
    assert!(matches!(verdict(&orders, &mut brake, 29), Verdict::Proceed { .. }));
    let held = verdict(&orders, &mut brake, 30);
    assert!(matches!(held, Verdict::Hold { why: Hold::TooManySilent { .. } }), "{held:?}");

    let asked = orders.resume(&keys(), Duration::ZERO, given(31, "only end the pause"));
    let write = commit(&mut orders, asked, 7);
    assert_eq!(stored::<FailoverOrderRecord>(&write).unwrap().resumed_until_ms, 0);
    assert!(matches!(verdict(&orders, &mut brake, 32), Verdict::Hold { .. }));
}

#[test]
fn maintenance_lasts_until_it_is_switched_off_and_leaves_a_pause_alone() {
    let mut orders = Orders::default();
    let asked = orders.pause(&keys(), seconds(100), given(1, ""));
    commit(&mut orders, asked, 5);
    let asked = orders.maintain(&keys(), true, given(2, "moving racks")).unwrap();
    commit(&mut orders, asked, 6);
    assert!(orders.maintenance() && orders.maintain(&keys(), true, given(3, "")).is_none());
    assert_eq!(orders.failovers(at(50)).paused_until_ms, WALL + 101_000);
    assert!(orders.failovers(at(1_000_000)).maintenance, "it ended by itself");
    let asked = orders.maintain(&keys(), false, given(4, "")).unwrap();
    commit(&mut orders, asked, 7);
    assert!(!orders.maintenance());
}

#[test]
fn a_new_leader_goes_on_with_what_is_left_by_the_wall_clock() {
    let nodes = vec![
        (node(1), NodeOrderRecord { cordoned: true, ..NodeOrderRecord::default() }),
        (node(2), NodeOrderRecord { restarting_until_ms: WALL + 30_000, ..NodeOrderRecord::default() }),
        (node(3), NodeOrderRecord { restarting_until_ms: WALL - 1, ..NodeOrderRecord::default() }),
        // Written by a leader whose clock was far ahead.
        (node(4), NodeOrderRecord { restarting_until_ms: u64::MAX, ..NodeOrderRecord::default() }),
    ];
    let nodes = nodes.into_iter().map(|(node, value)| (node, Held { value, revision: 5 })).collect();
    let value = FailoverOrderRecord {
        paused_until_ms: u64::MAX,
        maintenance: true,
        ..FailoverOrderRecord::default()
    };
    // This machine was started 100 s ago.
    let orders = Orders::load(nodes, Some(Held { value, revision: 9 }), at(100), WALL);
    assert!(orders.cordoned(&node(1)) && !orders.cordoned(&node(2)) && orders.maintenance());
    let longest = at(100) + LONGEST_RESTART;
    let restarting = BTreeMap::from([(NodeId(2), at(130)), (NodeId(4), longest)]);
    assert_eq!(orders.restarting(ClusterId(0), at(100)), restarting, "nothing lasts longer than it may");
    let mut brake = Brake::new(Limits::default());
    orders.apply_to(&mut brake, at(100));
    assert!(matches!(brake.verdict(0, at(100)), Verdict::Hold { .. }));
    let over = at(100) + LONGEST_PAUSE;
    orders.apply_to(&mut brake, over);
    assert!(matches!(brake.verdict(0, over), Verdict::Proceed { .. }), "a pause without an end");
}

#[test]
fn a_change_that_failed_changes_nothing_and_one_that_was_overtaken_takes_what_is_there() {
    let mut orders = Orders::default();
    let (_, change) = orders.cordon(&keys(), node(1), true, given(1, "")).unwrap();
    drop(change);
    assert!(!orders.cordoned(&node(1)) && !orders.is_changing(Subject::Node(node(1))));

    let (_, change) = orders.cordon(&keys(), node(1), true, given(1, "")).unwrap();
    let by_hand = NodeOrderRecord { restarting_until_ms: WALL + 20_000, ..NodeOrderRecord::default() };
    let found = |value: Vec<u8>| Record {
        key: keys().node_order(&node(1)),
        value,
        create_revision: 3,
        mod_revision: 33,
    };
    orders.overtaken(change, Some(&found(crate::record::encode(&by_hand))), at(1), WALL);
    assert_eq!(orders.restarts_until(&node(1), at(1)), Some(at(21)));
    let (write, change) = orders.cordon(&keys(), node(1), true, given(1, "")).unwrap();
    assert_eq!(write.expected_mod_revision, 33, "it would conflict for ever");

    orders.overtaken(change, Some(&found(b"\xffgarbage".to_vec())), at(1), WALL);
    let (write, change) = orders.cordon(&keys(), node(1), true, given(1, "")).unwrap();
    assert_eq!(write.expected_mod_revision, 33, "garbage can be written over");
    orders.overtaken(change, None, at(1), WALL);
    assert!(!orders.cordoned(&node(1)));

    let (_, change) = orders.pause(&keys(), seconds(60), given(1, ""));
    orders.overtaken(change, None, at(1), WALL);
    assert_eq!(orders.failovers(at(1)), FailoverOrderRecord::default());
}

#[test]
fn a_decommissioned_nodes_order_goes_with_it() {
    let mut orders = Orders::default();
    assert!(orders.forget(&keys(), node(1)).is_none(), "nothing is wanted of it");
    let asked = orders.cordon(&keys(), node(1), true, given(1, "")).unwrap();
    commit(&mut orders, asked, 5);
    let asked = orders.forget(&keys(), node(1)).unwrap();
    let write = commit(&mut orders, asked, 6);
    assert_eq!((stored::<NodeOrderRecord>(&write), write.expected_mod_revision), (None, 5));
    assert!(!orders.cordoned(&node(1)));
}

#[test]
fn commands_for_a_record_that_changes_wait_and_not_without_limit() {
    let mut orders = Orders::default();
    let ask = || {
        let (reply, _) = tokio::sync::oneshot::channel();
        Command::GetFailover(metasrv_proto::admin::GetFailoverRequest::default(), reply)
    };
    for _ in 0..MOST_WAITING {
        assert!(orders.wait(Subject::Failover, ask()).is_ok());
    }
    assert!(orders.wait(Subject::Failover, ask()).is_err());
    let (_, change) = orders.pause(&keys(), seconds(60), given(1, ""));
    assert_eq!(orders.ready().len(), 0, "the record is changing");
    orders.committed(change, 5);
    assert_eq!(orders.ready().len(), MOST_WAITING);
    assert!(orders.wait(Subject::Failover, ask()).is_ok(), "whoever waited was taken out");
}
