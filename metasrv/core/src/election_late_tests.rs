//! Goal: answers of an earlier attempt, and wishes that come at the wrong moment, change nothing. Method: hand-fed events on
//! a hand-moved clock. Each of these was a mutant that no test noticed.

use super::*;

/// A candidate whose first attempt failed and whose second asks for a lease since 3 s.
fn second_attempt() -> Election {
    let mut election = campaigning();
    assert_eq!(names(&election.step(at(20), Event::CampaignFailed(Attempt(1)))), ["release"]);
    assert!(matches!(election.step(at(3_000), Event::Tick)[..], [Effect::Grant(Attempt(2))]));
    election
}

fn nothing(election: &mut Election, now: u64, event: Event) {
    let effects = election.step(at(now), event);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn a_lease_that_is_refused_ends_its_attempt_and_no_other() {
    let mut election = second_attempt();
    nothing(&mut election, 3_010, Event::GrantFailed(Attempt(1)));
    assert_eq!(names(&election.step(at(3_020), Event::Granted(Attempt(1), LeaseId(9), TTL))), ["release"]);
    let effects = election.step(at(3_030), Event::Granted(Attempt(2), LEASE, TTL));
    assert_eq!(names(&effects), ["campaign", "keep alive"]);

    let mut election = second_attempt();
    nothing(&mut election, 3_010, Event::GrantFailed(Attempt(2)));
    assert!(matches!(election.step(at(6_000), Event::Tick)[..], [Effect::Grant(Attempt(3))]));
}

#[test]
fn a_lease_that_is_not_granted_within_a_ttl_is_waited_for_no_longer() {
    let mut election = second_attempt();
    nothing(&mut election, 7_999, Event::Tick);
    nothing(&mut election, 8_000, Event::Tick);
    assert!(matches!(election.step(at(11_000), Event::Tick)[..], [Effect::Grant(Attempt(3))]));
}

#[test]
fn a_grant_that_is_repeated_is_no_news_and_another_lease_is_released() {
    let mut election = campaigning();
    nothing(&mut election, 20, Event::Granted(Attempt(1), LEASE, TTL));
    assert_eq!(names(&election.step(at(30), Event::Granted(Attempt(1), LeaseId(8), TTL))), ["release"]);
}

#[test]
fn answers_of_an_earlier_attempt_neither_lead_nor_end_the_present_one() {
    let mut election = second_attempt();
    election.step(at(3_010), Event::Granted(Attempt(2), LEASE, TTL));
    nothing(&mut election, 3_020, Event::Campaigned(Attempt(1), fence()));
    nothing(&mut election, 3_020, Event::CampaignFailed(Attempt(1)));
    assert_eq!(names(&election.step(at(3_030), Event::Campaigned(Attempt(2), fence()))), ["read"]);
    let effects = election.step(at(3_040), Event::Read(Attempt(2), at(3_030), KeySeen::Ours));
    assert_eq!(names(&effects), ["raise term"]);
    nothing(&mut election, 3_050, Event::TermRaised(Attempt(1), Term(9)));
    nothing(&mut election, 3_050, Event::TermNotRaised(Attempt(1)));
    nothing(&mut election, 3_050, Event::FenceLost(Attempt(1)));
    let effects = election.step(at(3_060), Event::TermRaised(Attempt(2), Term(10)));
    assert!(matches!(effects[..], [Effect::Lead(Attempt(2), Term(10), _)]), "{effects:?}");
    for late in [Event::FenceLost(Attempt(1)), Event::TaskDied(Attempt(1)), Event::HandedOver(Attempt(1))] {
        nothing(&mut election, 3_070, late);
    }
    let effects = election.step(at(3_080), Event::TaskDied(Attempt(2)));
    assert_eq!(names(&effects), ["step down", "release"]);
}

#[test]
fn a_hand_over_ends_with_the_attempt_that_it_belongs_to() {
    let (mut election, _) = leading();
    assert_eq!(names(&election.step(at(40), Event::Leave(Leave::Shutdown))), ["hand over"]);
    nothing(&mut election, 50, Event::HandedOver(Attempt(0)));
    assert_eq!(names(&election.step(at(60), Event::HandedOver(Attempt(1)))), ["release", "stopped"]);
    nothing(&mut election, 70, Event::Leave(Leave::Shutdown));
    nothing(&mut election, 9_000, Event::FenceLost(Attempt(1)));
    nothing(&mut election, 19_000, Event::Tick);
}

#[test]
fn while_the_term_is_raised_only_a_shutdown_is_listened_to() {
    for (leave, effects) in
        [(Leave::Transfer, vec![]), (Leave::Yield, vec![]), (Leave::Shutdown, vec!["release", "stopped"])]
    {
        let mut election = campaigning();
        election.step(at(20), Event::Campaigned(Attempt(1), fence()));
        election.step(at(25), Event::Read(Attempt(1), at(20), KeySeen::Ours));
        assert_eq!(names(&election.step(at(30), Event::Leave(leave))), effects, "{leave:?}");
    }
}

#[test]
fn only_who_stands_in_the_queue_leaves_its_place() {
    let mut idle = alone();
    assert_eq!(names(&idle.step(at(0), Event::Leave(Leave::Yield))), ["grant"], "the tick's own effect");
    let mut asking = second_attempt();
    nothing(&mut asking, 3_010, Event::Leave(Leave::Yield));
    nothing(&mut asking, 3_010, Event::Leave(Leave::Transfer));
    let mut queueing = campaigning();
    nothing(&mut queueing, 20, Event::Leave(Leave::Transfer));
    assert_eq!(names(&queueing.step(at(30), Event::Leave(Leave::Yield))), ["release"]);
    let (mut leader, _) = leading();
    nothing(&mut leader, 40, Event::Leave(Leave::Yield));
}
