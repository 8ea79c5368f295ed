//! Goal: silence is judged by rhythm and by deadline, and our own stalls accuse nobody. Method: hand-moved clocks; random
//! rhythms and stalls.

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_millis(200);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

/// Turns the loop every 100 ms, after `from`, up to `to`.
fn turn(listening: &mut Listening, from: u64, to: u64) {
    let mut now = from;
    while now < to {
        now = to.min(now + 100);
        assert_eq!(listening.turned(at(now)), None);
    }
}

/// A loop that turned all the time since 10 s, and a node that was heard each second up to and including 15 s.
fn punctual() -> (Listening, Heartbeats) {
    let mut listening = Listening::new(LEASE, BOUND, at(10_000));
    let mut node = Heartbeats::none_yet(INTERVAL, &listening);
    for second in 11..=15 {
        turn(&mut listening, (second - 1) * 1_000, second * 1_000);
        node.arrived(INTERVAL, &listening, at(second * 1_000));
    }
    (listening, node)
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Alive => "alive",
        Health::Suspect { .. } => "suspect",
        Health::Lost { .. } => "lost",
    }
}

/// The health of a node at each of these instants, while the loop goes on turning.
fn transcript(listening: Listening, node: &Heartbeats, from: u64, instants: &[u64]) -> Vec<&'static str> {
    let mut listening = listening;
    let mut turned = from;
    instants
        .iter()
        .map(|&instant| {
            turn(&mut listening, turned, instant);
            turned = instant;
            health(node.judge(&listening, at(instant)))
        })
        .collect()
}

#[test]
fn one_lost_heartbeat_is_nothing_two_are_suspect_a_lease_is_lost() {
    let (listening, node) = punctual();
    assert_eq!(
        transcript(listening, &node, 15_000, &[15_000, 17_200, 17_400, 19_999, 20_000, 90_000]),
        ["alive", "alive", "suspect", "suspect", "lost", "lost"],
    );
    let mut later = listening;
    turn(&mut later, 15_000, 20_000);
    assert_eq!(node.judge(&later, at(20_000)), Health::Lost { since: at(15_000) });
}

#[test]
fn a_suspect_or_lost_node_that_is_heard_is_alive() {
    for silent_until in [18_000, 25_000] {
        let (mut listening, mut node) = punctual();
        turn(&mut listening, 15_000, silent_until);
        assert_ne!(node.judge(&listening, at(silent_until)), Health::Alive);
        node.arrived(INTERVAL, &listening, at(silent_until));
        assert_eq!(node.judge(&listening, at(silent_until)), Health::Alive);
    }
}

#[test]
fn a_node_that_was_never_heard_is_silent_since_the_begin_of_the_term() {
    let listening = Listening::new(LEASE, BOUND, at(10_000));
    let node = Heartbeats::none_yet(INTERVAL, &listening);
    assert_eq!(
        transcript(listening, &node, 10_000, &[10_000, 12_200, 12_400, 14_999, 15_000]),
        ["alive", "alive", "suspect", "suspect", "lost"],
        "judged from the begin, without warming up, and silent before it does not count"
    );
    let mut later = listening;
    turn(&mut later, 10_000, 15_000);
    assert_eq!(node.judge(&later, at(15_000)), Health::Lost { since: at(10_000) });
}

#[test]
fn one_heartbeat_is_enough_to_be_judged_by() {
    let mut listening = Listening::new(LEASE, BOUND, at(0));
    let mut node = Heartbeats::none_yet(INTERVAL, &listening);
    turn(&mut listening, 0, 300);
    node.arrived(INTERVAL, &listening, at(300));
    assert_eq!(transcript(listening, &node, 300, &[2_500, 2_700, 5_300]), ["alive", "suspect", "lost"]);
}

#[test]
fn a_broken_stream_makes_a_late_node_suspect_and_no_node_lost() {
    let (listening, mut node) = punctual();
    node.stream_ended();
    assert_eq!(
        transcript(listening, &node, 15_000, &[15_001, 16_000, 16_200, 16_500, 19_999, 20_000]),
        ["alive", "alive", "alive", "suspect", "suspect", "lost"],
    );
    let mut later = listening;
    turn(&mut later, 15_000, 16_500);
    node.arrived(INTERVAL, &later, at(16_500));
    turn(&mut later, 16_500, 18_500);
    assert_eq!(node.judge(&later, at(18_500)), Health::Alive, "the next heartbeat clears the hint");
}

#[test]
fn a_stall_does_not_count_and_what_was_counted_before_it_stays() {
    let (mut listening, node) = punctual();
    turn(&mut listening, 15_000, 19_700);
    assert_eq!(
        listening.turned(at(60_000)),
        Some(Stall { ended_at: at(60_000), late: at(60_000).since(at(19_900)) })
    );
    assert_eq!(node.silence(&listening, at(60_000)), Duration::from_millis(4_900), "4.7 s, and the bound");
    assert_eq!(health(node.judge(&listening, at(60_000))), "suspect");
    assert_eq!(health(node.judge(&listening, at(60_099))), "suspect");
    assert_eq!(node.judge(&listening, at(60_100)), Health::Lost { since: at(15_000) });
}

#[test]
fn during_a_stall_the_clock_stands_still() {
    let (listening, node) = punctual();
    assert_eq!(node.silence(&listening, at(15_200)), BOUND);
    assert_eq!(node.silence(&listening, at(90_000)), BOUND, "the loop has not turned since");
    assert_eq!(node.judge(&listening, at(90_000)), Health::Alive);
}

#[test]
fn a_turn_at_its_bound_is_no_stall() {
    let mut listening = Listening::new(LEASE, BOUND, at(0));
    assert_eq!(listening.turned(at(200)), None);
    let late = Duration::from_millis(1);
    assert_eq!(listening.turned(at(401)), Some(Stall { ended_at: at(401), late }));
    assert_eq!(listening.turned(at(300)), None, "a clock that seems to step back is no stall");
    assert_eq!(listening.listened(at(401)), Duration::from_millis(400));
}

#[test]
fn a_slow_rhythm_is_learnt_but_an_interruption_and_an_early_heartbeat_are_not() {
    let mut listening = Listening::new(LEASE, BOUND, at(0));
    let mut node = Heartbeats::none_yet(INTERVAL, &listening);
    let mut now = 0;
    for _ in 0..64 {
        turn(&mut listening, now, now + 2_000);
        now += 2_000;
        node.arrived(INTERVAL, &listening, at(now));
    }
    let learnt = node;
    assert_eq!(transcript(listening, &node, now, &[now + 2_400, now + 3_800]), ["alive", "suspect"]);
    node.arrived(INTERVAL, &listening, at(now + 100));
    assert_eq!((node.mean, node.variance), (learnt.mean, learnt.variance), "out of turn");
    turn(&mut listening, now, now + 5_100);
    node.arrived(INTERVAL, &listening, at(now + 5_100));
    assert_eq!((node.mean, node.variance), (learnt.mean, learnt.variance), "a whole lease");
}

#[test]
fn an_irregular_node_is_given_more_time_as_far_as_the_lease() {
    let mut listening = Listening::new(LEASE, BOUND, at(0));
    let mut node = Heartbeats::none_yet(INTERVAL, &listening);
    let mut now = 0;
    for gap in [1_000, 3_000].repeat(32) {
        turn(&mut listening, now, now + gap);
        now += gap;
        node.arrived(INTERVAL, &listening, at(now));
    }
    assert!((node.mean - 2.0).abs() < 0.1 && (node.variance - 1.0).abs() < 0.1, "{node:?}");
    assert_eq!(transcript(listening, &node, now, &[now + 4_900, now + 5_000]), ["alive", "lost"]);
}

#[test]
fn however_short_the_interval_a_short_hesitation_is_no_reason() {
    let interval = Duration::from_millis(50);
    let mut listening = Listening::new(LEASE, BOUND, at(0));
    let mut node = Heartbeats::none_yet(interval, &listening);
    node.arrived(interval, &listening, at(0));
    assert_eq!(transcript(listening, &node, 0, &[500, 700]), ["alive", "suspect"]);
    turn(&mut listening, 0, 50);
    node.arrived(interval, &listening, at(50));
    assert_eq!(node.judge(&listening, at(50)), Health::Alive);
}

#[test]
fn another_interval_is_judged_by_itself() {
    let (mut listening, mut node) = punctual();
    let slower = Duration::from_secs(2);
    node.arrived(slower, &listening, at(15_000));
    assert_eq!(transcript(listening, &node, 15_000, &[18_000, 19_000]), ["alive", "alive"]);
    turn(&mut listening, 15_000, 17_000);
    node.arrived(slower, &listening, at(17_000));
    assert_eq!((node.mean, node.variance), (2.0, 0.0));
}

#[test]
fn phi_is_what_the_normal_distribution_says() {
    // From tables of the normal distribution; the approximation is good to a few percent in the exponent.
    for (deviations, expected) in [(0.0, 0.301), (1.0, 0.799), (2.0, 1.643), (3.0, 2.870), (4.0, 4.499)] {
        let phi = minus_log10_of_later(deviations);
        assert!((phi - expected).abs() < 0.06 * expected + 0.01, "{deviations}: {phi}, not {expected}");
    }
    assert!((0.0..1e-6).contains(&minus_log10_of_later(-40.0)));
    assert!(minus_log10_of_later(1e9).is_finite());
}

proptest! {
    /// Phi grows with silence, whatever the rhythm was, and is always a number.
    #[test]
    fn phi_grows_with_silence(
        gaps in proptest::collection::vec(0_u64..8_000, 0..60),
        silences in (0_u64..1_000_000, 1_u64..1_000_000),
    ) {
        let mut listening = Listening::new(LEASE, BOUND, at(0));
        let mut node = Heartbeats::none_yet(INTERVAL, &listening);
        let mut now = 0;
        for gap in gaps {
            turn(&mut listening, now, now + gap);
            now += gap;
            node.arrived(INTERVAL, &listening, at(now));
        }
        let mut phi = Vec::new();
        for until in [now + silences.0, now + silences.0 + silences.1] {
            // One turn with the silence as its bound: as if the loop had turned all the time.
            let listening = Listening { bound: Duration::MAX, ..listening };
            phi.push(node.phi(&listening, at(until)));
        }
        prop_assert!(phi[0].is_finite() && phi[1].is_finite());
        prop_assert!(phi[0] >= 0.0 && phi[1] >= phi[0], "{phi:?}");
    }

    /// A node that is heard whenever we listen is never lost, however long and often we stall.
    #[test]
    fn a_stall_never_makes_a_node_lost(stalls in proptest::collection::vec((0_u64..3_000, 0_u64..600_000), 1..20)) {
        let mut listening = Listening::new(LEASE, BOUND, at(0));
        let mut node = Heartbeats::none_yet(INTERVAL, &listening);
        let (mut now, mut beat_at) = (0, 1_000);
        for (awake, stalled) in stalls {
            let until = now + awake;
            while now < until {
                now = until.min(now + 100);
                listening.turned(at(now));
                prop_assert_ne!(health(node.judge(&listening, at(now))), "lost");
                if now >= beat_at {
                    node.arrived(INTERVAL, &listening, at(now));
                    beat_at = now + 1_000;
                }
            }
            now += stalled;
            prop_assert_ne!(health(node.judge(&listening, at(now))), "lost", "while it stalls");
        }
    }

    /// Nobody is lost before a whole lease of true silence in this term.
    #[test]
    fn nobody_is_lost_early(
        turns in proptest::collection::vec((0_u64..2_000, any::<bool>()), 1..80),
    ) {
        let mut listening = Listening::new(LEASE, BOUND, at(7_000));
        let mut node = Heartbeats::none_yet(INTERVAL, &listening);
        let (mut now, mut heard) = (7_000, 7_000);
        for (gap, beats) in turns {
            now += gap;
            if beats {
                node.arrived(INTERVAL, &listening, at(now));
                heard = now;
            }
            listening.turned(at(now));
            if let Health::Lost { since } = node.judge(&listening, at(now)) {
                prop_assert!(now - heard >= 5_000);
                prop_assert_eq!(since, at(heard));
            }
        }
    }
}
