//! When an instruction is told: once over each stream of its node, and again where that has no effect for long.

use super::*;

#[test]
fn an_instruction_is_repeated_at_its_pace_and_anew_in_each_state_and_by_each_leader() {
    let pace = patience().repeat_in_gap;
    let mut at_work = migrating(State::Downgrading);
    at_work.told(STREAM, BEGIN);
    let before = BEGIN + pace.saturating_sub(Duration::from_nanos(1));
    assert_eq!(at_work.step(&seen(), before), Next::Stay { tell: None, look_at: BEGIN + pace });
    assert!(told(at_work.step(&seen(), BEGIN + pace)).is_some());
    at_work.persisted(stored(State::Downgrading), before);
    assert!(told(at_work.step(&seen(), before)).is_none(), "read again: the same state");
    at_work.goes_on(stored(CATCHING_UP), before);
    assert!(told(at_work.step(&seen(), before)).is_some());
    let long_after = BEGIN + patience().overall * 2;
    let resumed = Migrating::on_leader_change(stored(State::Preparing), patience(), long_after);
    let waits = Observed { to: view(CANDIDATE, None), ..seen() };
    assert!(told(resumed.step(&waits, long_after)).is_some(), "fresh patience");
}

/// Goal: an instruction that went the way of a stream's end is told again as soon as the node is back, and one that cannot be
/// sent does not count as told. Method: another stream, and none, long before the instruction would be repeated.
#[test]
fn an_instruction_is_told_over_each_stream_and_not_without_one() {
    let over = |stream| Observed { from: NodeView { stream, ..seen().from }, ..seen() };
    let mut at_work = migrating(State::Downgrading);
    assert!(told(at_work.step(&over(None), BEGIN)).is_none(), "nobody would hear it");
    assert!(told(at_work.step(&over(STREAM), BEGIN)).is_some());
    at_work.told(STREAM, BEGIN);
    assert!(told(at_work.step(&over(STREAM), BEGIN)).is_none());
    assert!(told(at_work.step(&over(None), BEGIN)).is_none());
    assert!(told(at_work.step(&over(Some(71)), BEGIN)).is_some());
    at_work.told(Some(71), BEGIN);
    assert!(told(at_work.step(&over(Some(71)), BEGIN)).is_none());
}
