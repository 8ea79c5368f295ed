//! Goal: a steady heartbeat renews what a whole list would, and never more, and what a node believes is accounted for. Method:
//! two keepers that live through the same, one of which states digests while the other lists its regions; two views of one
//! leader; and answers that are late, repeated or out of order, in random scripts.

use std::collections::BTreeSet;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_proto::admin::RenewedSet;
use metasrv_proto::meta::RegionLease;
use proptest::prelude::*;

use self::world::{Step, World, any_step, leased};
use crate::region_server::RegionServerEvent;
use crate::response::{HeartbeatResponseHandler as _, ResponseContext};

#[path = "set_lease_world.rs"]
mod world;

fn run(script: Vec<Step>, exactly: bool) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in script {
        world.step(step);
        world.check(exactly)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// As a stream delivers: in order, and once more whatever was delivered.
    #[test]
    fn digests_renew_exactly_what_lists_do(script in prop::collection::vec(any_step(false), 0..120)) {
        run(script, true)?;
    }

    /// Goal: out of order they renew less at most.
    #[test]
    fn digests_never_renew_more_than_lists(script in prop::collection::vec(any_step(true), 0..120)) {
        run(script, false)?;
    }
}

#[test]
fn what_changed_since_the_request_takes_nothing_from_its_answer() {
    let mut world = leased(4);
    world.step(Step::Pass(100));
    let before = world.until(0);
    world.step(Step::Send);
    let sent_at = world.millis;
    world.step(Step::Serve);
    world.step(Step::Close(1));
    world.step(Step::Open(1));
    world.step(Step::Stop(2));
    world.step(Step::Route(3));
    world.step(Step::Open(3));
    world.step(Step::Deliver(0));
    assert_eq!(world.until(0), sent_at + 990, "from the sending of the request");
    assert!(world.until(0) > before);
    assert_eq!([1, 2, 3].map(|region| world.until(region)), [0, 0, 0]);
    world.beat();
    assert!(world.until(1) > world.until(0).saturating_sub(1) && world.until(3) > 0 && world.until(2) == 0);
}

#[test]
fn a_region_that_is_left_out_keeps_what_it_had_and_no_more() {
    let mut world = leased(3);
    let had = world.until(1);
    world.step(Step::Withhold(1, true));
    world.step(Step::Pass(100));
    world.beat();
    world.beat();
    assert_eq!(world.until(1), had);
    assert!(world.until(0) > had);
    world.step(Step::Withhold(1, false));
    world.beat();
    assert_eq!(world.until(1), world.until(0));
}

#[test]
fn an_answer_that_names_another_set_is_refused() {
    let mut world = leased(2);
    let before = world.until(0);
    world.step(Step::Pass(100));
    world.step(Step::Send);
    world.step(Step::Serve);
    let good = world.sides[0].answers.pop_front().unwrap();
    let changed = |change: fn(&mut RegionLease, &mut RenewedSet)| {
        let mut response = good.clone();
        let lease = response.region_lease.as_mut().unwrap();
        let mut renewed = lease.renewed_set.take().unwrap();
        change(lease, &mut renewed);
        lease.renewed_set = Some(renewed);
        let context = &mut ResponseContext { response: &response, sent_at: None };
        world.sides[0].keeper.handle(context).map(drop)
    };
    assert!(changed(|_, renewed| renewed.digest ^= 1).is_err());
    assert!(changed(|_, renewed| renewed.count += 1).is_err());
    assert!(changed(|_, renewed| renewed.version += 1).is_err());
    assert!(changed(|lease, _| lease.duration_since_epoch -= 1).is_err());
    assert_eq!(world.until(0), before);
    assert_eq!(changed(|_, renewed| renewed.revision = 0), Ok(()));
    assert_eq!(world.until(0), before, "older than what was taken");
    assert_eq!(changed(|_, _| {}), Ok(()));
    assert!(world.until(0) > before);
}

#[test]
fn a_later_leader_with_shorter_leases_shortens_none_and_lengthens_none_too_much() {
    let mut world = leased(2);
    let had = world.until(0);
    world.step(Step::Route(7));
    world.step(Step::Open(7));
    world.step(Step::Send);
    let sent_at = world.millis;
    world.step(Step::Serve);
    let mut answer = world.sides[0].answers.pop_front().unwrap();
    answer.region_lease.as_mut().unwrap().lease_ms = 100;
    world.sides[0].hand_over(&answer);
    assert_eq!(world.until(0), had);
    assert_eq!(world.until(7), sent_at + 99, "not as long as what others were granted before");
}

/// Goal: what a steady heartbeat costs, in regions listed, does not grow with the regions. Method: ten thousand, and one that opens.
#[test]
fn a_steady_request_lists_nothing_but_what_has_changed_and_whose_turn_it_is() {
    let mut world = leased(10_000);
    let mut listed = BTreeSet::new();
    let mut largest = 0;
    for _ in 0..610 {
        world.step(Step::Pass(999));
        let (_, (stats, set)) = world.sides[0].keeper.report(false, true);
        assert!(!set.complete && set.count == 10_000);
        largest = largest.max(stats.len());
        listed.extend(stats.iter().map(|stat| stat.region_id));
    }
    assert_eq!(listed.len(), 10_000, "each within the full report interval");
    assert!(largest <= 18, "{largest} were listed at once");
    world.event(RegionServerEvent::Registered(RegionId(77_777), Epoch(3)));
    world.event(RegionServerEvent::Deregistered(RegionId(5)));
    let (_, (stats, set)) = world.sides[0].keeper.report(false, true);
    assert!(stats.iter().any(|stat| (stat.region_id, stat.epoch) == (77_777, 3)));
    assert_eq!(set.closed_region_ids, [5]);
}
