//! Goal: failovers stop when too much seems dead at once, say why, and go on by themselves or by command. Method: tables
//! of counts on a hand-moved clock; random counts.

use proptest::prelude::*;

use super::*;
use crate::detector::{Heartbeats, Listening};

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn census(silent: usize, nodes: usize) -> Census {
    Census { nodes, silent }
}

/// A brake that saw this at 0 s.
fn saw(silent: usize, nodes: usize) -> Brake {
    let mut brake = Brake::new(Limits::default());
    brake.observe(census(silent, nodes), at(0));
    brake
}

fn proceeds(brake: &Brake, now: u64) -> bool {
    matches!(brake.verdict(0, at(now)), Verdict::Proceed { .. })
}

/// `limits` with its stop share replaced.
fn stops_at(percent: u32) -> Brake {
    Brake::new(Limits { stop_percent: percent, ..Limits::default() })
}

fn stall(late: u64, ended_at: u64) -> Stall {
    Stall { ended_at: at(ended_at), late: Duration::from_millis(late) }
}

#[test]
fn some_silent_nodes_are_failed_over_many_are_not() {
    let table = [
        // nodes, the most that is failed over
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 1),
        (5, 1),
        (6, 2),
        (9, 3),
        (10, 3),
        (100, 35),
    ];
    for (nodes, most) in table {
        assert!(proceeds(&saw(most, nodes), 0), "{most} of {nodes}");
        if most < nodes {
            let Verdict::Hold { why } = saw(most + 1, nodes).verdict(0, at(0)) else {
                panic!("{} of {nodes}", most + 1)
            };
            assert!(matches!(why, Hold::TooManySilent { .. }));
        }
    }
}

#[test]
fn it_says_why_in_a_sentence() {
    let mut brake = saw(3, 6);
    let Verdict::Hold { why } = brake.verdict(0, at(2_000)) else { panic!("it holds") };
    assert_eq!(why, Hold::TooManySilent { census: census(3, 6), allowed: 1, since: at(0) });
    let said = why.describe(at(2_000)).to_string();
    assert!(said.starts_with("3 of 6 datanodes are suspect or lost at once, since 2.0 s ago"), "{said}");
    assert!(said.ends_with("failovers go on once at most 1 are, or by command"), "{said}");
    brake.observe(census(0, 6), at(3_000));
    let Verdict::Hold { why } = brake.verdict(0, at(4_000)) else { panic!("it holds") };
    assert_eq!(why, Hold::CalmingDown { census: census(0, 6), until: at(13_000) });
    let said = why.describe(at(4_000)).to_string();
    assert!(said.contains("0 of 6 are now, and failovers go on in 9.0 s"), "{said}");
}

#[test]
fn it_goes_on_once_few_were_silent_for_long_enough() {
    let mut brake = saw(4, 10);
    brake.observe(census(3, 10), at(1_000));
    assert!(!proceeds(&brake, 1_000), "3 of 10 would not have stopped it, and do not release it");
    brake.observe(census(2, 10), at(2_000));
    brake.observe(census(2, 10), at(11_999));
    assert!(!proceeds(&brake, 11_999));
    brake.observe(census(2, 10), at(12_000));
    assert!(proceeds(&brake, 12_000));
    brake.observe(census(3, 10), at(12_001));
    assert!(proceeds(&brake, 12_001));
}

#[test]
fn calm_that_was_interrupted_begins_anew() {
    for interruption in [3, 4] {
        let mut brake = saw(4, 10);
        brake.observe(census(2, 10), at(1_000));
        brake.observe(census(interruption, 10), at(5_000));
        let Verdict::Hold { why: Hold::TooManySilent { census: seen, since, .. } } =
            brake.verdict(0, at(5_000))
        else {
            panic!("{interruption} of 10 are too many again")
        };
        assert_eq!((seen, since), (census(interruption, 10), at(0)), "since the first time");
        brake.observe(census(0, 10), at(6_000));
        brake.observe(census(0, 10), at(15_999));
        assert!(!proceeds(&brake, 15_999));
        brake.observe(census(0, 10), at(16_000));
        assert!(proceeds(&brake, 16_000));
    }
}

#[test]
fn a_higher_share_to_resume_at_than_to_stop_at_is_not_taken_at_its_word() {
    let mut brake = Brake::new(Limits { stop_percent: 20, resume_percent: 90, ..Limits::default() });
    brake.observe(census(3, 10), at(0));
    let why = Hold::TooManySilent { census: census(3, 10), allowed: 2, since: at(0) };
    assert_eq!(brake.verdict(0, at(0)), Verdict::Hold { why });
    brake.observe(census(2, 10), at(1_000));
    brake.observe(census(2, 10), at(11_000));
    assert!(proceeds(&brake, 11_000));
}

#[test]
fn a_stall_of_our_own_stops_failovers_for_a_while() {
    let mut brake = saw(0, 6);
    brake.stalled(stall(499, 1_000));
    assert!(proceeds(&brake, 1_000), "a hiccup");
    brake.stalled(stall(500, 2_000));
    let late = Duration::from_millis(500);
    let why = Hold::Stalled { late, until: at(7_000) };
    let verdict = Verdict::ReapedOnly { at_most: 511, why: why.clone() };
    assert_eq!(brake.verdict(1, at(6_999)), verdict, "who was reaped is dead, whatever we missed");
    assert!(why.describe(at(6_000)).to_string().contains("late by 0.5 s"), "{}", why.describe(at(6_000)));
    assert!(proceeds(&brake, 7_000));
    brake.stalled(stall(900, 8_000));
    brake.stalled(stall(100, 9_000));
    assert!(!proceeds(&brake, 12_999));
    assert!(proceeds(&brake, 13_000), "the hiccup after it did not prolong it");
    brake.stalled(stall(900, 20_000));
    brake.observe(census(3, 6), at(20_000));
    let Verdict::Hold { why: Hold::TooManySilent { .. } } = brake.verdict(0, at(20_000)) else {
        panic!("the stricter reason counts")
    };
}

#[test]
fn a_pause_ends_by_itself_or_by_command() {
    let mut brake = saw(0, 6);
    brake.pause(at(30_000), "new switches".to_owned());
    let why = Hold::Paused { until: at(30_000), reason: "new switches".to_owned() };
    assert_eq!(brake.verdict(0, at(29_999)), Verdict::Hold { why: why.clone() });
    assert_eq!(
        why.describe(at(20_000)).to_string(),
        "paused by an operator for another 10.0 s: new switches"
    );
    assert!(proceeds(&brake, 30_000));
    brake.resume(at(0));
    assert!(proceeds(&brake, 10_000));
}

#[test]
fn a_command_overrides_what_the_brake_sees_until_its_time_is_over() {
    let mut brake = saw(6, 6);
    brake.stalled(stall(9_000, 0));
    brake.resume(at(60_000));
    assert!(proceeds(&brake, 59_999));
    let Verdict::Hold { why: Hold::TooManySilent { .. } } = brake.verdict(0, at(60_000)) else {
        panic!("six of six are silent still")
    };
    brake.resume(at(90_000));
    brake.pause(at(80_000), "no".to_owned());
    assert!(!proceeds(&brake, 70_000), "the last order counts");
    brake.resume(at(90_000));
    assert!(proceeds(&brake, 70_000));
}

#[test]
fn no_more_than_the_limit_are_under_way() {
    let brake = Brake::new(Limits { at_once: 10, ..Limits::default() });
    for (in_flight, at_most) in [(0, 10), (9, 1), (10, 0), (11, 0)] {
        assert_eq!(brake.verdict(in_flight, at(0)), Verdict::Proceed { at_most });
    }
}

#[test]
fn a_lost_node_without_regions_is_not_counted() {
    let mut counted = Census::default();
    counted.count(&Health::Alive, Holds::Nothing);
    counted.count(&Health::Alive, Holds::Regions);
    counted.count(&Health::Suspect { phi: 9.0 }, Holds::Nothing);
    counted.count(&Health::Suspect { phi: 9.0 }, Holds::Regions);
    counted.count(&Health::Lost { since: at(0) }, Holds::Nothing);
    counted.count(&Health::Lost { since: at(0) }, Holds::Regions);
    assert_eq!(counted, census(3, 5));
}

/// A leader that hears nobody any more stops before the first node is lost; when it hears them again, nothing has moved.
#[test]
fn an_isolated_leader_fails_nobody_over() {
    let (interval, lease) = (Duration::from_secs(1), Duration::from_secs(5));
    for nodes in 2..=12_u64 {
        let mut brake = Brake::new(Limits::default());
        let mut listening = Listening::new(lease, Duration::from_millis(200), at(0));
        let mut fleet: Vec<_> = (0..nodes).map(|_| Heartbeats::none_yet(interval, &listening)).collect();
        let (mut were_lost, mut resumed_at) = (0, None);
        for now in (0..60_000_u64).step_by(100) {
            assert_eq!(listening.turned(at(now)), None);
            let isolated = (10_000..30_000).contains(&now);
            let mut census = Census::default();
            for (node, phase) in fleet.iter_mut().zip(0..) {
                if !isolated && now % 1_000 == phase * 100 % 1_000 {
                    node.arrived(interval, &listening, at(now));
                }
                census.count(&node.judge(&listening, at(now)), Holds::Regions);
            }
            brake.observe(census, at(now));
            let lost =
                fleet.iter().any(|node| matches!(node.judge(&listening, at(now)), Health::Lost { .. }));
            were_lost += usize::from(lost);
            assert!(!lost || !proceeds(&brake, now), "{census:?} at {now} ms");
            if now >= 30_000 && resumed_at.is_none() && proceeds(&brake, now) {
                resumed_at = Some(now);
            }
        }
        assert!(were_lost > 0, "of {nodes} nodes some were taken for lost, or this proves nothing");
        let resumed_at = resumed_at.unwrap();
        assert!((40_000..42_000).contains(&resumed_at), "it goes on by itself: at {resumed_at} ms");
    }
}

proptest! {
    /// On a constant input the verdict changes at most once, and from hold to proceed.
    #[test]
    fn a_constant_input_never_flaps(
        before in proptest::collection::vec((0_usize..40, 1_usize..40), 0..10),
        (silent, nodes) in (0_usize..40, 0_usize..40),
        percents in (0_u32..120, 0_u32..120),
        steps in proptest::collection::vec(0_u64..8_000, 2..50),
    ) {
        let limits = Limits { stop_percent: percents.0, resume_percent: percents.1, ..Limits::default() };
        let mut brake = Brake::new(limits);
        let mut now = 0;
        for (silent, nodes) in before {
            now += 500;
            brake.observe(census(silent.min(nodes), nodes), at(now));
        }
        let mut said = Vec::new();
        for step in steps {
            now += step;
            brake.observe(census(silent.min(nodes), nodes), at(now));
            said.push(proceeds(&brake, now));
        }
        prop_assert!(said.is_sorted(), "{said:?}");
    }

    /// A single silent node is failed over whatever the share and the size of the cluster.
    #[test]
    fn one_silent_node_never_stops_anything(nodes in 1_usize..200, percent in 0_u32..200) {
        let mut brake = stops_at(percent);
        brake.observe(census(1, nodes), at(0));
        prop_assert!(proceeds(&brake, 0));
    }

    /// More silent nodes are never better.
    #[test]
    fn more_silence_never_releases(nodes in 0_usize..200, silent in 0_usize..200, percent in 0_u32..120) {
        let (mut fewer, mut more) = (stops_at(percent), stops_at(percent));
        fewer.observe(census(silent, nodes), at(0));
        more.observe(census(silent + 1, nodes), at(0));
        prop_assert!(proceeds(&fewer, 0) || !proceeds(&more, 0));
    }
}
