//! Goal: each row of the table of [`super::migrate`], and each way out of it.
//! Method: one migration in one state, what is observed, and what is to be done.

mod telling;

use std::time::Duration;

use super::instruction::{Answer, Held, HeldAs, Instruction, Led, NodeView, Presence, Reply, Report, Tell};
use super::migrate::{CannotCancel, End, Migrating, Migration, Next, Observed, Patience, State, Why};
use super::{Claim, Procedure, ProcedureId};
use crate::id::{Epoch, Incarnation, NodeId, RegionId};
use crate::time::BootTime;

const REGION: RegionId = RegionId(7);
const FROM: NodeId = NodeId(1);
const TO: NodeId = NodeId(2);
const EPOCH: Epoch = Epoch(4);
const NEXT: Epoch = Epoch(5);
const LEADER: Incarnation = Incarnation { epoch: 100, nonce: 1 };
const CANDIDATE: Incarnation = Incarnation { epoch: 100, nonce: 2 };
const OTHER: Incarnation = Incarnation { epoch: 99, nonce: 9 };
const BEFORE: Led = Led { node: FROM, epoch: EPOCH };
const AFTER: Led = Led { node: TO, epoch: NEXT };
const BEGIN: BootTime = BootTime::from_millis(10_000);
const STREAM: Option<u64> = Some(70);
const CATCHING_UP: State = State::CatchingUp { position: Some(3) };

fn patience() -> Patience {
    Patience::default()
}

fn stored(state: State) -> Migration {
    let candidate = (state != State::Preparing).then_some(CANDIDATE);
    Migration {
        id: ProcedureId(1),
        region: REGION,
        from: FROM,
        leader: LEADER,
        to: TO,
        candidate,
        epoch: EPOCH,
        state,
        reason: "test".to_owned(),
    }
}

fn undoing(why: Why, owes_epoch: bool) -> State {
    State::Undoing { why, owes_epoch }
}

/// Taken up at [`BEGIN`].
fn migrating(state: State) -> Migrating {
    Migrating::on_leader_change(stored(state), patience(), BEGIN)
}

fn view(process: Incarnation, held: Option<Held>) -> NodeView {
    NodeView {
        process: Some(process),
        presence: Presence::Reachable,
        report: Some(Report { at: BEGIN, held }),
        stream: STREAM,
    }
}

fn held(role: HeldAs, epoch: Epoch) -> Option<Held> {
    Some(Held { role, epoch })
}

/// Both nodes work, `to` is a candidate, nothing was answered.
fn seen() -> Observed {
    Observed {
        route: Some(BEFORE),
        from: view(LEADER, held(HeldAs::Leader, EPOCH)),
        to: view(CANDIDATE, held(HeldAs::Candidate, EPOCH)),
        replies: Vec::new(),
        free_at: BootTime::MAX,
        has_room_for_gap: true,
    }
}

fn after_commit() -> Observed {
    Observed { route: Some(AFTER), ..seen() }
}

fn lost(mut view: NodeView) -> NodeView {
    view.presence = Presence::Lost;
    view
}

fn answered(
    mut seen: Observed,
    node: NodeId,
    process: Incarnation,
    epoch: Epoch,
    answer: Answer,
) -> Observed {
    seen.replies.push(Reply { node, process, epoch, answer });
    seen
}

fn step(state: &State, seen: &Observed, after: Duration) -> Next {
    migrating(state.clone()).step(seen, BEGIN + after)
}

fn next(state: &State, seen: &Observed) -> Next {
    step(state, seen, Duration::ZERO)
}

/// What is told, and nothing else changes.
fn told(next: Next) -> Option<(NodeId, Incarnation, Instruction)> {
    match next {
        Next::Stay { tell, .. } => {
            tell.map(|Tell { node, process, instruction }| (node, process, instruction))
        }
        other => panic!("{other:?}"),
    }
}

fn persisted(next: Next) -> State {
    match next {
        Next::Persist(stored) => stored.state,
        other => panic!("{other:?}"),
    }
}

/// The state that follows without being stored.
fn gone_on(next: Next) -> State {
    match next {
        Next::GoOn(then) => then.state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn preparing_waits_for_the_candidate_and_remembers_its_process() {
    let mut waits = seen();
    waits.to.report = None;
    let open = Instruction::OpenCandidate { region: REGION, epoch: EPOCH };
    assert_eq!(told(next(&State::Preparing, &waits)), Some((TO, CANDIDATE, open)));
    for not_yet in [None, held(HeldAs::Follower, EPOCH), held(HeldAs::Candidate, Epoch(3))] {
        waits.to = view(CANDIDATE, not_yet);
        assert_eq!(told(next(&State::Preparing, &waits)), Some((TO, CANDIDATE, open)));
    }
    let expected = Migration { candidate: Some(CANDIDATE), ..stored(State::Flushing) };
    assert_eq!(next(&State::Preparing, &seen()), Next::GoOn(expected));

    waits.to = view(CANDIDATE, held(HeldAs::Candidate, EPOCH));
    waits.to.report =
        waits.to.report.map(|report| Report { at: BEGIN.before(Duration::from_nanos(1)), ..report });
    assert_eq!(told(next(&State::Preparing, &waits)), Some((TO, CANDIDATE, open)), "of before this term");
    let slow = step(&State::Preparing, &waits, patience().overall);
    assert_eq!(persisted(slow), undoing(Why::TargetSlow, false));
}

#[test]
fn flushing_goes_on_when_flushed_or_when_it_takes_too_long() {
    let flush = Instruction::Flush { region: REGION, epoch: EPOCH };
    let other = answered(seen(), FROM, OTHER, EPOCH, Answer::Flushed);
    assert_eq!(told(next(&State::Flushing, &other)), Some((FROM, LEADER, flush)));
    let flushed = answered(seen(), FROM, LEADER, EPOCH, Answer::Flushed);
    assert_eq!(persisted(next(&State::Flushing, &flushed)), State::Downgrading);
    assert_eq!(persisted(step(&State::Flushing, &seen(), patience().flush)), State::Downgrading);
    let overall = step(&State::Flushing, &seen(), patience().overall);
    assert_eq!(persisted(overall), undoing(Why::SourceSlow, false));
}

/// Goal: of the regions of one node few are without a writer at a time. Method: one that is flushed, or was waited for, while
/// there is no room; then with room; and one that finds none for too long.
#[test]
fn a_source_that_has_flushed_goes_on_writing_until_there_is_room_for_its_gap() {
    let patience = patience();
    let full = |seen: Observed| Observed { has_room_for_gap: false, ..seen };
    let flushed = answered(seen(), FROM, LEADER, EPOCH, Answer::Flushed);
    let waits = Next::Stay { tell: None, look_at: BEGIN + patience.overall };
    assert_eq!(next(&State::Flushing, &full(flushed.clone())), waits);
    assert_eq!(step(&State::Flushing, &full(seen()), patience.flush), waits);
    assert!(told(next(&State::Flushing, &full(seen()))).is_some(), "it flushes meanwhile");
    assert_eq!(persisted(next(&State::Flushing, &flushed)), State::Downgrading);
    let overall = step(&State::Flushing, &full(flushed), patience.overall);
    assert_eq!(persisted(overall), undoing(Why::SourceSlow, false));
    for state in [State::Downgrading, CATCHING_UP, State::Upgrading] {
        assert!(stored(state.clone()).in_flight().in_gap, "{state:?}");
    }
    for state in [State::Preparing, State::Flushing, State::Closing, undoing(Why::TargetLost, false)] {
        assert!(!stored(state.clone()).in_flight().in_gap, "{state:?}");
    }
}

#[test]
fn downgrading_believes_only_the_leading_process_and_only_for_this_epoch() {
    let stopped = Answer::Stopped { position: Some(3) };
    let downgrade = Some((FROM, LEADER, Instruction::Downgrade { region: REGION, epoch: EPOCH }));
    let confirmed = answered(seen(), FROM, LEADER, EPOCH, stopped);
    assert_eq!(gone_on(next(&State::Downgrading, &confirmed)), CATCHING_UP);

    for seen in [
        seen(),
        answered(seen(), FROM, OTHER, EPOCH, stopped),
        answered(seen(), FROM, LEADER, Epoch(3), stopped),
        answered(seen(), FROM, LEADER, NEXT, stopped),
        answered(seen(), TO, LEADER, EPOCH, stopped),
        answered(seen(), FROM, LEADER, EPOCH, Answer::Flushed),
    ] {
        assert_eq!(told(next(&State::Downgrading, &seen)), downgrade, "{seen:?}");
    }
    let mut restarted = confirmed;
    restarted.from.process = Some(OTHER);
    assert_eq!(persisted(next(&State::Downgrading, &restarted)), undoing(Why::SourceRestarted, true));
    let silent = step(&State::Downgrading, &seen(), patience().gap);
    assert_eq!(persisted(silent), undoing(Why::SourceSilent, true));
}

#[test]
fn downgrading_goes_on_when_rule_4_frees_the_region_and_a_lost_source_is_no_reason_to_undo() {
    let free_at = BEGIN + patience().gap * 3;
    let dying = Observed { free_at, from: lost(seen().from), ..seen() };
    let just_before = free_at.since(BEGIN).saturating_sub(Duration::from_nanos(1));
    assert_eq!(step(&State::Downgrading, &dying, just_before), Next::Stay { tell: None, look_at: free_at });
    let free = step(&State::Downgrading, &dying, patience().gap * 3);
    assert_eq!(gone_on(free), State::CatchingUp { position: None });
    let certified = Observed { free_at: BootTime::ZERO, ..seen() };
    assert_eq!(gone_on(next(&State::Downgrading, &certified)), State::CatchingUp { position: None });
    let never = Observed { free_at: BootTime::MAX, ..dying };
    let bounded = step(&State::Downgrading, &never, patience().overall);
    assert_eq!(persisted(bounded), undoing(Why::SourceSilent, true), "even if it is never free");
}

#[test]
fn catching_up_ends_in_the_commit_of_both_records() {
    let catch_up = Instruction::CatchUp { region: REGION, epoch: EPOCH, position: Some(3) };
    for not_yet in [seen(), answered(seen(), TO, OTHER, EPOCH, Answer::CaughtUp)] {
        assert_eq!(told(next(&CATCHING_UP, &not_yet)), Some((TO, CANDIDATE, catch_up)));
    }
    let reached = answered(seen(), TO, CANDIDATE, EPOCH, Answer::CaughtUp);
    let commit = Next::CommitRoute { route: AFTER, then: stored(State::Upgrading) };
    assert_eq!(next(&CATCHING_UP, &reached), commit);
    assert_eq!(
        step(&CATCHING_UP, &reached, patience().gap),
        commit,
        "a late success is better than an undoing"
    );
    let done = answered(after_commit(), TO, CANDIDATE, EPOCH, Answer::CaughtUp);
    assert_eq!(persisted(next(&CATCHING_UP, &done)), State::Upgrading, "its answer was lost");

    let failed = answered(seen(), TO, CANDIDATE, EPOCH, Answer::CannotCatchUp);
    assert_eq!(persisted(next(&CATCHING_UP, &failed)), undoing(Why::TargetFailed, true));
    let behind = step(&CATCHING_UP, &seen(), patience().gap);
    assert_eq!(persisted(behind), undoing(Why::TargetBehind, true));
    let alone = Observed { from: lost(seen().from), ..seen() };
    assert!(told(step(&CATCHING_UP, &alone, patience().gap)).is_some(), "undoing would give no writer back");
    let overall = step(&CATCHING_UP, &alone, patience().overall);
    assert_eq!(persisted(overall), undoing(Why::TargetBehind, true));
}

#[test]
fn the_gap_has_one_patience_for_both_of_its_states() {
    let mut migrating = migrating(State::Downgrading);
    let half = BEGIN + patience().gap / 2;
    migrating.goes_on(stored(CATCHING_UP), half);
    assert!(matches!(migrating.step(&seen(), half), Next::Stay { .. }));
    let behind = migrating.step(&seen(), BEGIN + patience().gap);
    assert_eq!(persisted(behind), undoing(Why::TargetBehind, true));
}

#[test]
fn upgrading_tells_only_the_candidate_and_only_while_the_route_is_the_committed_one() {
    let upgrade = Instruction::Upgrade { region: REGION, epoch: NEXT };
    assert_eq!(told(next(&State::Upgrading, &after_commit())), Some((TO, CANDIDATE, upgrade)));
    let leads = view(CANDIDATE, held(HeldAs::Leader, NEXT));
    let further = Led { node: FROM, epoch: Epoch(6) };
    for over in [
        Observed { to: leads, ..after_commit() },
        Observed { to: lost(after_commit().to), ..after_commit() },
        Observed { to: view(OTHER, None), ..after_commit() },
        Observed { route: Some(further), ..after_commit() },
        Observed { route: None, ..after_commit() },
        Observed { route: Some(BEFORE), ..after_commit() },
    ] {
        assert_eq!(gone_on(next(&State::Upgrading, &over)), State::Closing, "{over:?}");
    }
    let slow = step(&State::Upgrading, &after_commit(), patience().cleanup);
    assert_eq!(gone_on(slow), State::Closing, "heartbeats go on with it");
}

#[test]
fn closing_ends_when_the_source_has_nothing_left_or_is_lost() {
    let close = Instruction::Close { region: REGION, epoch: EPOCH };
    let open = Observed { from: view(LEADER, held(HeldAs::Downgraded, EPOCH)), ..after_commit() };
    assert_eq!(told(next(&State::Closing, &open)), Some((FROM, LEADER, close)));
    for over in [
        Observed { from: view(LEADER, None), ..after_commit() },
        Observed { from: lost(open.from), ..after_commit() },
        Observed { from: view(LEADER, held(HeldAs::Leader, Epoch(6))), ..after_commit() },
        Observed { route: Some(Led { node: FROM, epoch: Epoch(6) }), ..open.clone() },
    ] {
        assert_eq!(next(&State::Closing, &over), Next::Finish(End::Done), "{over:?}");
    }
    assert_eq!(step(&State::Closing, &open, patience().cleanup), Next::Finish(End::Done));
}

#[test]
fn undoing_first_raises_the_epoch_if_the_source_was_asked_to_stop() {
    let owing = undoing(Why::TargetLost, true);
    let raised = undoing(Why::TargetLost, false);
    let route = Led { node: FROM, epoch: NEXT };
    let commit = Next::CommitRoute { route, then: stored(raised.clone()) };
    assert_eq!(next(&owing, &seen()), commit);
    for route in [Some(route), Some(AFTER), None] {
        assert_eq!(
            persisted(next(&owing, &Observed { route, ..seen() })),
            raised,
            "nothing is owed any more"
        );
    }
}

#[test]
fn undoing_closes_the_candidate_unless_the_region_is_its_own_now() {
    let state = undoing(Why::TargetBehind, false);
    let end = Next::Finish(End::Undone(Why::TargetBehind));
    let close = Instruction::Close { region: REGION, epoch: EPOCH };
    assert_eq!(told(next(&state, &seen())), Some((TO, CANDIDATE, close)));
    for over in [
        Observed { to: view(CANDIDATE, None), ..seen() },
        Observed { to: lost(seen().to), ..seen() },
        Observed { to: NodeView { process: None, report: None, ..seen().to }, ..seen() },
        after_commit(),
        Observed { to: view(CANDIDATE, held(HeldAs::Leader, NEXT)), ..seen() },
    ] {
        assert_eq!(next(&state, &over), end, "{over:?}");
    }
    assert_eq!(step(&state, &seen(), patience().cleanup), end);
}

#[test]
fn before_the_commit_a_broken_target_or_route_undoes() {
    let begun = [State::Preparing, State::Flushing, State::Downgrading, CATCHING_UP];
    let other = Some(Led { node: NodeId(3), epoch: NEXT });
    for (at, state) in begun.iter().enumerate() {
        let owes = at >= 2;
        let why = |seen: Observed| persisted(next(state, &seen));
        assert_eq!(why(Observed { to: lost(seen().to), ..seen() }), undoing(Why::TargetLost, owes));
        assert_eq!(why(Observed { route: other, ..seen() }), undoing(Why::RouteChanged, owes));
        assert_eq!(why(Observed { route: None, ..seen() }), undoing(Why::RegionDropped, owes));
        if at > 0 {
            assert_eq!(why(Observed { to: view(CANDIDATE, None), ..seen() }), undoing(Why::TargetLeft, owes));
            let restarted = view(OTHER, held(HeldAs::Candidate, EPOCH));
            assert_eq!(why(Observed { to: restarted, ..seen() }), undoing(Why::TargetRestarted, owes));
        }
        if !owes {
            assert_eq!(why(Observed { from: lost(seen().from), ..seen() }), undoing(Why::SourceLost, false));
            let restarted = Observed { from: view(OTHER, None), ..seen() };
            assert_eq!(why(restarted), undoing(Why::SourceRestarted, false));
        }
    }
}

#[test]
fn cancel_undoes_before_the_commit_and_is_refused_after_it() {
    let cancelled = |owes| undoing(Why::Cancelled("enough".to_owned()), owes);
    let cancel = |state: State| stored(state).cancel("enough").map(|next| next.state);
    assert_eq!(cancel(State::Preparing), Ok(cancelled(false)));
    assert_eq!(cancel(State::Flushing), Ok(cancelled(false)));
    assert_eq!(cancel(State::Downgrading), Ok(cancelled(true)));
    assert_eq!(cancel(CATCHING_UP), Ok(cancelled(true)));
    assert_eq!(cancel(State::Upgrading), Err(CannotCancel::Committed));
    assert_eq!(cancel(State::Closing), Err(CannotCancel::Committed));
    assert_eq!(cancel(undoing(Why::TargetLost, false)), Err(CannotCancel::Undoing));
}

#[test]
fn what_others_must_leave_alone_in_each_state() {
    let (route, remains) = (Claim::Route(REGION), Claim::Remains(REGION));
    for (state, claim, withheld, kept) in [
        (State::Preparing, route, None, true),
        (State::Flushing, route, None, true),
        (State::Downgrading, route, Some(BEFORE), true),
        (CATCHING_UP, route, Some(BEFORE), true),
        (State::Upgrading, route, Some(BEFORE), true),
        (State::Closing, remains, Some(BEFORE), false),
        (undoing(Why::TargetLost, true), route, Some(BEFORE), false),
        (undoing(Why::TargetLost, false), remains, None, false),
    ] {
        let stored = stored(state);
        assert_eq!((stored.in_flight().claim, stored.withholds()), (claim, withheld), "{stored:?}");
        assert_eq!((stored.keeps_open(TO), stored.keeps_open(FROM)), (kept, false), "{stored:?}");
    }
}
