//! Tests of the chronicle: looks at a cluster go in, sentences come out.

use super::*;
use crate::playground::watch::NodeSeen;

const STEP: Duration = Duration::from_millis(500);

/// A chronicle of two datanodes and four regions, with a clock that goes on by half a second with each look.
struct Story {
    chronicle: Chronicle,
    now: Duration,
}

impl Story {
    fn new() -> Story {
        Story { chronicle: Chronicle::new(4, 2), now: Duration::ZERO }
    }

    /// Looks once, and returns what is told.
    fn look(&mut self, seen: &Observation) -> Vec<String> {
        self.now += STEP;
        self.chronicle.observe(self.now, seen);
        self.chronicle.take_fresh().into_iter().map(|event| event.text).collect()
    }
}

fn seen(leader: Option<(&str, u64)>, writable: u64, connected: [bool; 2]) -> Observation {
    let node = |(index, connected): (usize, bool)| {
        let id = index as u64 + 1;
        NodeSeen { id, connected, regions: 2, writable: 2 }
    };
    Observation {
        leader: leader.map(|(name, term)| LeaderSeen {
            name: name.to_owned(),
            term,
            heartbeats: 0,
            regions: 4,
            writable,
        }),
        nodes: connected.into_iter().enumerate().map(node).collect(),
        nodes_term: leader.map_or(0, |(_, term)| term),
        ..Observation::default()
    }
}

#[test]
fn a_start_is_told_step_by_step_and_nothing_twice() {
    let mut story = Story::new();
    assert_eq!(story.look(&Observation::default()), Vec::<String>::new());
    assert_eq!(story.look(&seen(Some(("m1", 1)), 0, [true, false])), ["m1 leads (term 1)"]);
    let connected = story.look(&seen(Some(("m1", 1)), 0, [true, true]));
    assert_eq!(connected, ["all 2 datanodes are connected to m1 after 0.5 s"]);
    assert!(!story.chronicle.was_writable());
    let writable = story.look(&seen(Some(("m1", 1)), 4, [true, true]));
    assert_eq!(writable, ["every region is writable (4 of 4)"]);
    assert!(story.chronicle.was_writable() && story.chronicle.is_writable());
    assert_eq!(story.look(&seen(Some(("m1", 1)), 4, [true, true])), Vec::<String>::new());
}

#[test]
fn a_change_of_leader_is_told_with_how_long_it_took() {
    let mut story = Story::new();
    story.look(&seen(Some(("m1", 1)), 4, [true, true]));
    let nobody = seen(None, 0, [true, true]);
    assert_eq!(story.look(&nobody), Vec::<String>::new(), "one late answer is no news");
    assert_eq!(story.look(&nobody), ["nobody leads: m1 (term 1) is not heard of"]);
    assert!(!story.chronicle.is_writable(), "nobody says so");
    let changed = story.look(&seen(Some(("m2", 2)), 0, [false, false]));
    assert_eq!(changed, ["leader changed from m1 to m2 (term 2) after 1.5 s"]);
    let dip = story.look(&seen(Some(("m2", 2)), 2, [true, false]));
    assert_eq!(dip, ["m2 sees 2 of 4 regions writable"], "datanodes are told of when all are back");
    let back = story.look(&seen(Some(("m2", 2)), 4, [true, true]));
    assert_eq!(
        back,
        [
            "all 2 datanodes are connected to m2 after 1.0 s",
            "every region is writable again (4 of 4) after 2.5 s"
        ]
    );
    assert_eq!(story.chronicle.leader_changes(), 1);
    assert_eq!(story.look(&seen(Some(("m1", 1)), 4, [true, true])), Vec::<String>::new(), "a late answer");
    let again = story.look(&seen(Some(("m2", 3)), 4, [true, true]));
    assert_eq!(again[0], "m2 leads again (term 3) after 1.0 s");
}

#[test]
fn a_leader_that_was_silent_and_leads_still_is_no_change() {
    let mut story = Story::new();
    story.look(&seen(Some(("m1", 1)), 4, [true, true]));
    let nobody = seen(None, 0, [true, true]);
    story.look(&nobody);
    story.look(&nobody);
    assert_eq!(story.look(&seen(Some(("m1", 1)), 4, [true, true])), ["m1 leads still (term 1)"]);
    assert_eq!(story.chronicle.leader_changes(), 0);
}

#[test]
fn a_datanode_that_goes_and_comes_back_is_told_by_name() {
    let mut story = Story::new();
    story.look(&seen(Some(("m1", 1)), 4, [true, true]));
    assert_eq!(story.look(&seen(Some(("m1", 1)), 4, [true, false])), ["d2 is not connected any more"]);
    assert_eq!(story.look(&seen(Some(("m1", 1)), 2, [true, false])), Vec::<String>::new());
    let dip = story.look(&seen(Some(("m1", 1)), 2, [true, false]));
    assert_eq!(dip, ["m1 sees 2 of 4 regions writable"]);
    let back = story.look(&seen(Some(("m1", 1)), 4, [true, true]));
    assert_eq!(back, ["d2 is connected again", "every region is writable again (4 of 4) after 1.5 s"]);
}

#[test]
fn fewer_regions_than_wanted_are_not_every_region() {
    let mut chronicle = Chronicle::new(5, 2);
    chronicle.observe(STEP, &seen(Some(("m1", 1)), 4, [true, true]));
    assert!(!chronicle.was_writable());
    assert_eq!(chronicle.most_writable(), 4);
}

#[test]
fn heartbeats_are_counted_over_the_last_seconds_of_one_term() {
    let mut story = Story::new();
    let beat = |term: u64, heartbeats: u64| {
        let mut seen = seen(Some(("m1", term)), 4, [true, true]);
        seen.leader.as_mut().unwrap().heartbeats = heartbeats;
        seen
    };
    story.look(&beat(1, 100));
    assert_eq!(story.chronicle.heartbeats_per_second(), None, "nothing to compare with");
    for step in 1..=20 {
        story.look(&beat(1, 100 + step * 3));
    }
    assert_eq!(story.chronicle.heartbeats_per_second(), Some(6.0));
    story.look(&beat(2, 1));
    assert_eq!(story.chronicle.heartbeats_per_second(), None, "a new term counts from zero");
}

#[test]
fn only_so_many_events_are_remembered() {
    let mut story = Story::new();
    for number in 0..REMEMBERED + 10 {
        story.chronicle.note(Duration::ZERO, format!("event {number}"));
    }
    assert_eq!(story.chronicle.last(usize::MAX).count(), REMEMBERED);
    assert_eq!(story.chronicle.last(1).next().unwrap().text, format!("event {}", REMEMBERED + 9));
    assert_eq!(story.chronicle.take_fresh().len(), REMEMBERED + 10);
    assert!(story.chronicle.take_fresh().is_empty());
}
