//! Traces that were once found, step by step: what they showed must stay mended.

use stateright::Model;

use super::step::{Step, What};
use super::{Bounds, Happens, Region};
use crate::clock;
use crate::slip::Slip;

/// The epoch is raised for a restarted process; before the leader hears that this is done, it moves the region twice over,
/// and the late answer comes last.
const LATE_ANSWER: [Step; 21] = [
    Step::Wins(0),
    Step::Moves(0),
    Step::Starts(2),
    Step::IsHeard { process: 2, by: 0 },
    Step::Lands { of: 0, what: What::Recording },
    Step::Lands { of: 0, what: What::Moving },
    Step::Learns { replica: 0, what: What::Moving },
    Step::Moves(0),
    Step::Lands { of: 0, what: What::Moving },
    Step::Learns { replica: 0, what: What::Moving },
    Step::IsHeard { process: 1, by: 0 },
    Step::Receives(1),
    Step::IsHeard { process: 1, by: 0 },
    Step::Learns { replica: 0, what: What::Recording },
    Step::Lands { of: 0, what: What::Recording },
    Step::Learns { replica: 0, what: What::Recording },
    Step::Receives(1),
    Step::IsHeard { process: 2, by: 0 },
    Step::Receives(2),
    Step::IsHeard { process: 2, by: 0 },
    Step::Receives(2),
];

/// The most writers at any moment of a trace. Steps that cannot be taken are left out.
fn most_writers(slip: Option<Slip>) -> usize {
    clock::set_drift();
    let bounds = Bounds {
        terms: 1,
        routes: 3,
        processes: &[0, 1, 0],
        happens: Happens { deaths: true, ..Happens::default() },
    };
    let model = Region { bounds, slip };
    let mut world = model.init_states().remove(0);
    let mut most = 0;
    for step in LATE_ANSWER {
        world = model.next_state(&world, step).unwrap_or(world);
        most = most.max(world.processes.iter().filter(|process| process.writes().is_some()).count());
    }
    most
}

/// Goal: a late answer to the raising of an epoch never takes a leader's view of a route back. Method: the trace, with a
/// shell that lets it, as metasrv's registrar once did where the region had come back meanwhile, and with one that does not.
#[test]
fn a_late_answer_takes_no_route_back() {
    assert_eq!(most_writers(Some(Slip::LateAnswerGoesBack)), 2);
    assert_eq!(most_writers(None), 1);
}
