//! Goal: each rule of the state machine in `election.rs`. Method: hand-fed events on a hand-moved clock.

use super::*;
use crate::id::{Fence, Term};

const TTL: Duration = Duration::from_secs(5);
const LEASE: LeaseId = LeaseId(7);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn fence() -> Fence {
    Fence { key: "/election/7".to_owned(), create_revision: 12 }
}

/// A candidate that sees nobody else in the queue, so that it needs no proof.
fn alone() -> Election {
    let mut election = Election::new(Timing::default(), 1, at(0));
    let vitals = Vitals { proved_at: None, rivals: Some(false) };
    election.fitness.take(vitals);
    election
}

/// A candidate that campaigns since 0 ms, its first attempt.
fn campaigning() -> Election {
    let mut election = alone();
    assert!(matches!(election.step(at(0), Event::Tick)[..], [Effect::Grant(Attempt(1))]));
    let effects = election.step(at(10), Event::Granted(Attempt(1), LEASE, TTL));
    assert_eq!(names(&effects), ["campaign", "keep alive"]);
    election
}

/// A leader since 30 ms; its evidence dates from 0 ms (lease) and 20 ms (read).
fn leading() -> (Election, Arc<LeadershipLease>) {
    let mut election = campaigning();
    let effects = election.step(at(20), Event::Campaigned(Attempt(1), fence()));
    assert!(matches!(effects[..], [Effect::Read(..)]), "winning counts only after a read-back");
    let effects = election.step(at(25), Event::Read(Attempt(1), at(20), KeySeen::Ours));
    let [Effect::RaiseTerm(Attempt(1), _, leadership)] = &effects[..] else { panic!("{effects:?}") };
    let leadership = Arc::clone(leadership);
    let effects = election.step(at(30), Event::TermRaised(Attempt(1), Term(3)));
    assert!(matches!(effects[..], [Effect::Lead(Attempt(1), Term(3), read)] if read == at(20)));
    (election, leadership)
}

fn names(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Grant(_) => "grant",
            Effect::KeepAlive(..) => "keep alive",
            Effect::Withhold(_) => "withhold",
            Effect::ReadQueue(..) => "read queue",
            Effect::Campaign(..) => "campaign",
            Effect::Read(..) => "read",
            Effect::RaiseTerm(..) => "raise term",
            Effect::Lead(..) => "lead",
            Effect::StepDown(..) => "step down",
            Effect::HandOver(_) => "hand over",
            Effect::Release(..) => "release",
            Effect::Stopped => "stopped",
        })
        .collect()
}

#[test]
fn the_lease_is_kept_alive_while_waiting_in_the_queue() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(1_010), Event::Tick)), ["keep alive", "read queue"]);
    election.step(at(1_020), Event::KeptAlive(Attempt(1), at(1_010), LeaseSeen::Alive));
    assert_eq!(names(&election.step(at(5_500), Event::Tick)), ["keep alive", "read queue"], "it goes on");
}

#[test]
fn a_lease_that_took_long_to_get_is_kept_alive_at_once() {
    let mut election = alone();
    election.step(at(0), Event::Tick);
    // The lease counts from 0: without a keep-alive of its own, leadership would end 200 ms after it began.
    let effects = election.step(at(4_600), Event::Granted(Attempt(1), LEASE, TTL));
    assert!(matches!(
        effects[..],
        [Effect::Campaign(Attempt(1), LEASE), Effect::KeepAlive(Attempt(1), LEASE)]
    ));
    election.step(at(4_610), Event::KeptAlive(Attempt(1), at(4_600), LeaseSeen::Alive));
    election.step(at(4_620), Event::Campaigned(Attempt(1), fence()));
    let effects = election.step(at(4_630), Event::Read(Attempt(1), at(4_620), KeySeen::Ours));
    let [Effect::RaiseTerm(_, _, leadership)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(leadership.until(), at(4_600) + timing::leadership(TTL));
}

#[test]
fn a_lease_that_expires_in_the_queue_is_released_and_a_new_one_taken() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(4_900), Event::Tick)), ["release"]);
    let retry_at = election.wakes_at();
    assert!(matches!(election.step(retry_at, Event::Tick)[..], [Effect::Grant(Attempt(2))]));
}

#[test]
fn a_lease_that_etcd_calls_gone_ends_the_campaign() {
    let mut election = campaigning();
    assert_eq!(
        names(&election.step(at(1_000), Event::KeptAlive(Attempt(1), at(990), LeaseSeen::Gone))),
        ["release"]
    );
}

#[test]
fn a_failed_campaign_is_released_because_it_may_have_been_won() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(100), Event::CampaignFailed(Attempt(1)))), ["release"]);
}

#[test]
fn a_win_that_the_read_back_does_not_show_is_no_win() {
    let mut election = campaigning();
    election.step(at(20), Event::Campaigned(Attempt(1), fence()));
    assert_eq!(names(&election.step(at(25), Event::Read(Attempt(1), at(20), KeySeen::NotOurs))), ["release"]);
}

#[test]
fn what_becomes_of_a_campaign_after_the_queue_showed_the_win_changes_nothing() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(20), Event::Campaigned(Attempt(1), fence()))), ["read"]);
    assert_eq!(names(&election.step(at(22), Event::CampaignFailed(Attempt(1)))), [""; 0]);
    let effects = election.step(at(25), Event::Read(Attempt(1), at(20), KeySeen::Ours));
    assert_eq!(names(&effects), ["raise term"]);
    assert_eq!(names(&election.step(at(26), Event::Campaigned(Attempt(1), fence()))), [""; 0]);
}

#[test]
fn a_leader_without_one_of_its_tasks_leads_no_longer() {
    let (mut election, leadership) = leading();
    assert_eq!(names(&election.step(at(100), Event::TaskDied(Attempt(1)))), ["step down", "release"]);
    assert!(!leadership.holds(at(100)));
    let mut waiting = campaigning();
    assert_eq!(
        names(&waiting.step(at(100), Event::TaskDied(Attempt(1)))),
        ["release"],
        "a new attempt, a new lease"
    );
}

#[test]
fn leadership_ends_by_its_deadline_without_anybody_saying_so() {
    let (mut election, leadership) = leading();
    assert!(leadership.holds(at(4_700)));
    assert_eq!(names(&election.step(at(4_900), Event::Tick)), ["step down", "release"]);
    assert!(!leadership.holds(at(4_700)));
}

#[test]
fn leadership_lasts_by_the_older_of_its_two_pieces_of_evidence() {
    let (mut election, leadership) = leading();
    let before = leadership.until();
    election.step(at(1_000), Event::KeptAlive(Attempt(1), at(990), LeaseSeen::Alive));
    assert_eq!(leadership.until(), at(20) + timing::leadership(TTL), "the read is older");
    election.step(at(1_010), Event::Read(Attempt(1), at(995), KeySeen::Ours));
    assert_eq!(leadership.until(), at(990) + timing::leadership(TTL), "now the keep-alive is");
    assert!(leadership.until() > before);
}

#[test]
fn keep_alives_and_reads_go_out_five_times_in_a_ttl_without_waiting_for_answers() {
    let (mut election, _) = leading();
    for second in 1..=4_u64 {
        assert_eq!(names(&election.step(at(second * 1_000 + 30), Event::Tick)), ["keep alive", "read"]);
    }
}

#[test]
fn an_answer_after_the_deadline_does_not_bring_leadership_back() {
    let (mut election, leadership) = leading();
    let effects = election.step(at(9_000), Event::KeptAlive(Attempt(1), at(4_000), LeaseSeen::Alive));
    assert_eq!(
        names(&effects),
        ["step down", "release"],
        "as after SIGSTOP: the answer was waiting in the socket"
    );
    assert!(!leadership.holds(at(9_000)));
}

#[test]
fn a_lost_fence_ends_leadership_at_once() {
    let (mut election, leadership) = leading();
    assert_eq!(names(&election.step(at(100), Event::FenceLost(Attempt(1)))), ["step down", "release"]);
    assert!(!leadership.holds(at(100)));
}

#[test]
fn a_read_that_shows_another_key_ends_leadership_at_once() {
    let (mut election, _) = leading();
    let effects = election.step(at(100), Event::Read(Attempt(1), at(90), KeySeen::NotOurs));
    assert_eq!(names(&effects), ["step down", "release"]);
}

#[test]
fn a_transfer_hands_over_first_and_queues_again_later() {
    let (mut election, leadership) = leading();
    assert_eq!(names(&election.step(at(100), Event::Leave(Leave::Transfer))), ["hand over"]);
    assert!(leadership.holds(at(100)), "draining is still fenced work of this term");
    assert_eq!(names(&election.step(at(200), Event::HandedOver(Attempt(1)))), ["release"]);
    assert!(election.step(at(300), Event::Tick).is_empty(), "others are let go first");
    assert_eq!(names(&election.step(at(1_200), Event::Tick)), ["grant"]);
}

#[test]
fn a_shutdown_hands_over_and_stops() {
    let (mut election, _) = leading();
    assert_eq!(names(&election.step(at(100), Event::Leave(Leave::Shutdown))), ["hand over"]);
    assert_eq!(names(&election.step(at(200), Event::HandedOver(Attempt(1)))), ["release", "stopped"]);
    assert_eq!(election.wakes_at(), BootTime::MAX);
}

#[test]
fn a_shutdown_while_queued_releases_its_place() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(100), Event::Leave(Leave::Shutdown))), ["release", "stopped"]);
}

#[test]
fn a_lease_that_is_granted_too_late_is_released() {
    let mut election = Election::new(Timing::default(), 1, at(0));
    election.step(at(0), Event::Tick);
    election.step(at(6_000), Event::Tick);
    let effects = election.step(at(6_001), Event::Granted(Attempt(1), LEASE, TTL));
    assert!(matches!(effects[..], [Effect::Release(Attempt(1), LEASE)]));
}

#[test]
fn answers_of_an_earlier_attempt_change_nothing() {
    let (mut election, _) = leading();
    election.step(at(100), Event::FenceLost(Attempt(1)));
    let retry_at = election.wakes_at();
    election.step(retry_at, Event::Tick);
    election.step(retry_at, Event::Granted(Attempt(2), LeaseId(8), TTL));
    for late in [
        Event::KeptAlive(Attempt(1), retry_at, LeaseSeen::Gone),
        Event::Campaigned(Attempt(1), fence()),
        Event::CampaignFailed(Attempt(1)),
        Event::FenceLost(Attempt(1)),
        Event::HandedOver(Attempt(1)),
    ] {
        assert!(election.step(retry_at, late).is_empty());
    }
}

proptest::proptest! {
    /// Whatever happens in whatever order: between a step-down and the next win nothing leads, and leadership is
    /// only ever announced while its lease holds.
    #[test]
    fn no_order_of_events_leads_without_a_lease(script in proptest::collection::vec((0_u64..2_500, 0_u8..14), 1..200)) {
        let mut election = Election::new(Timing::default(), 1, at(0));
        let mut now = at(0);
        let mut lease: Option<Arc<LeadershipLease>> = None;
        for (passed, what) in script {
            now = now + Duration::from_millis(passed);
            let attempt = election.attempt;
            let sent_at = now.before(Duration::from_millis(passed));
            let event = match what {
                0 => Event::Granted(attempt, LEASE, TTL),
                1 => Event::GrantFailed(attempt),
                2 => Event::KeptAlive(attempt, sent_at, LeaseSeen::Alive),
                3 => Event::KeptAlive(attempt, sent_at, LeaseSeen::Gone),
                4 => Event::Campaigned(attempt, fence()),
                5 => Event::CampaignFailed(attempt),
                6 => Event::Read(attempt, sent_at, KeySeen::Ours),
                7 => Event::Read(attempt, sent_at, KeySeen::NotOurs),
                8 => Event::TermRaised(attempt, Term(1)),
                9 => Event::Leave(Leave::Transfer),
                10 => Event::HandedOver(attempt),
                11 => Event::TaskDied(attempt),
                12 => Event::FenceLost(attempt),
                _ => Event::Tick,
            };
            for effect in election.step(now, event) {
                match effect {
                    Effect::RaiseTerm(_, _, fresh) => lease = Some(fresh),
                    Effect::Lead(..) => proptest::prop_assert!(lease.as_ref().is_some_and(|lease| lease.holds(now))),
                    Effect::StepDown(..) | Effect::Release(..) => {
                        if let Some(lease) = lease.take() {
                            proptest::prop_assert!(!lease.holds(now));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What is known at this instant, and what is due by then.
fn look(election: &mut Election, now: u64, proved_at: u64, rivals: bool) -> Vec<Effect> {
    let vitals = Vitals { proved_at: Some(at(proved_at)), rivals: Some(rivals) };
    assert_eq!(names(&election.step(at(now), Event::Vitals(vitals))), [""; 0], "knowing decides nothing");
    election.step(at(now), Event::Tick)
}

#[test]
fn a_replica_queues_only_once_its_work_is_proved_or_nobody_else_queues() {
    let mut election = Election::new(Timing::default(), 1, at(0));
    assert_eq!(names(&election.step(at(0), Event::Tick)), [""; 0]);
    assert!(
        election.wakes_at() > at(0) && election.wakes_at() < at(500),
        "it looks again, and does not spin"
    );
    assert_eq!(names(&look(&mut election, 100, 90, true)), ["grant"]);
}

#[test]
fn a_leader_whose_work_is_not_proved_renews_nothing_then_steps_down() {
    let (mut election, leadership) = leading();
    assert_eq!(names(&look(&mut election, 1_010, 900, true)), ["keep alive", "read"]);
    election.step(at(1_020), Event::KeptAlive(Attempt(1), at(1_010), LeaseSeen::Alive));
    election.step(at(1_020), Event::Read(Attempt(1), at(1_010), KeySeen::Ours));
    assert_eq!(names(&election.step(at(2_010), Event::Tick)), ["withhold", "read"]);
    assert_eq!(names(&election.step(at(2_899), Event::Tick)), [""; 0]);
    let effects = election.step(at(2_900), Event::Tick);
    assert!(
        matches!(effects[..], [Effect::StepDown(_, StepDown::Unproved), Effect::Release(..)]),
        "{effects:?}"
    );
    assert!(!leadership.holds(at(2_900)));
    // It stays out of the queue until it is proved again.
    assert_eq!(names(&election.step(at(8_000), Event::Tick)), [""; 0]);
    assert_eq!(names(&look(&mut election, 8_200, 8_150, true)), ["grant"]);
}

#[test]
fn a_leader_whose_work_is_not_proved_goes_on_where_nobody_else_queues() {
    let (mut election, leadership) = leading();
    look(&mut election, 900, 100, false);
    assert_eq!(names(&election.step(at(4_000), Event::Tick)), ["keep alive", "read"]);
    assert!(leadership.holds(at(4_000)));
}

#[test]
fn a_candidate_whose_work_is_not_proved_leaves_the_queue() {
    let mut election = campaigning();
    look(&mut election, 500, 400, true);
    assert_eq!(names(&election.step(at(1_500), Event::Tick)), ["withhold", "read queue"]);
    assert_eq!(names(&election.step(at(2_400), Event::Tick)), ["release"]);
}

#[test]
fn handing_over_needs_no_proof() {
    let (mut election, _) = leading();
    look(&mut election, 100, 90, true);
    assert_eq!(names(&election.step(at(110), Event::Leave(Leave::Transfer))), ["hand over"]);
    assert!(!names(&election.step(at(2_500), Event::Tick)).contains(&"step down"), "it is about to go");
}

#[test]
fn a_candidate_that_yields_queues_again_and_a_leader_does_not_yield() {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(100), Event::Leave(Leave::Yield))), ["release"]);
    let retry_at = election.wakes_at();
    assert!(retry_at >= at(100) + Duration::from_millis(500), "the others are ahead by then");
    assert_eq!(names(&election.step(retry_at, Event::Tick)), ["grant"]);
    let (mut election, leadership) = leading();
    assert_eq!(names(&election.step(at(100), Event::Leave(Leave::Yield))), [""; 0]);
    assert!(leadership.holds(at(100)));
}

#[path = "election_late_tests.rs"]
mod late;
