//! How many datanodes are silent, cluster by cluster, and what the brake makes of it.
//!
//! The brake counts the nodes of all clusters together: what makes many of them silent at once (this leader's network) knows
//! no clusters.
//!
//! The loop turns with every step of a procedure, hundreds of times a second while a node is drained, and to count walks all
//! nodes. So it is done as often as silence can be noticed, ten times a second; and at once where somebody knows more of a
//! node than its silence: that its process has ended, or that its regions have gone elsewhere.

use std::collections::BTreeSet;

use metasrv_core::brake::{self, Hold, Verdict};
use metasrv_core::detector::Health;
use metasrv_core::id::{NodeKey, Role};
use metasrv_core::incarnation::Holds;
use metasrv_core::time::BootTime;

use super::{Control, TURN, event};
use crate::leader::Nodes;

/// What the last turn has counted.
#[derive(Default)]
pub struct Census {
    /// Nodes with regions that are lost, or whose recorded process has ended.
    pub gone: BTreeSet<NodeKey>,
    /// All, and those that are silent.
    pub counted: brake::Census,
    /// When that was.
    counted_at: Option<BootTime>,
    held: bool,
    /// The history says that the brake holds.
    told: bool,
    /// What the metric says of why failovers stand still. The outer `None`: nothing yet.
    measured: Option<Option<&'static str>>,
}

/// Counts where it is time, and tells the brake.
pub(super) fn turn(control: &mut Control, now: BootTime) {
    let is_due = control.census.counted_at.is_none_or(|at| now.since(at) >= TURN);
    if control.leader.control().takes_recount() || is_due {
        count(control, now);
    }
    say(control, now);
}

fn count(control: &mut Control, now: BootTime) {
    let listening = control.leader.listening();
    let mut counted = brake::Census::default();
    let mut measured = Nodes::default();
    let mut gone = BTreeSet::new();
    let mut heard = 0_usize;
    for entry in control.leader.nodes().iter().filter(|entry| entry.key().role == Role::Datanode) {
        let health = control.leader.health(&entry, &listening, now);
        let holds = if entry.regions.is_empty() { Holds::Nothing } else { Holds::Regions };
        counted.count(&health, holds);
        match health {
            Health::Alive => measured.alive += 1,
            Health::Suspect { .. } => measured.suspect += 1,
            Health::Lost { .. } if holds == Holds::Regions => measured.lost += 1,
            Health::Lost { .. } => {}
        }
        heard = heard.saturating_add(usize::from(!matches!(health, Health::Lost { .. })));
        if holds == Holds::Regions && (entry.is_dead() || matches!(health, Health::Lost { .. })) {
            gone.insert(*entry.key());
            measured.waiting += entry.regions.len();
        }
    }
    control.leader.measure_nodes(measured);
    control.leader.pace(heard);
    control.brake.observe(counted, now);
    control.census.gone = gone;
    control.census.counted = counted;
    control.census.counted_at = Some(now);
}

/// Says once that failovers stand still, and once that they go on.
fn say(control: &mut Control, now: BootTime) {
    let verdict = control.brake.verdict(control.failover.in_flight(), now);
    measure(control, &verdict);
    // An operator's pause has an entry of its own, and says nothing of the brake beneath it.
    match &verdict {
        Verdict::Hold { why: Hold::Paused { .. } } => {}
        Verdict::Hold { why } if !control.census.told => {
            control.leader.tell(event::brake_engaged(&why.describe(now).to_string()));
            control.census.told = true;
        }
        Verdict::Hold { .. } => {}
        Verdict::ReapedOnly { .. } | Verdict::Proceed { .. } => {
            if std::mem::take(&mut control.census.told) {
                control.leader.tell(event::brake_released());
            }
        }
    }
    let held = match &verdict {
        Verdict::Hold { why } if !control.census.held => {
            tracing::warn!(term = %control.leader.term(), why = %why.describe(now), "failovers stand still");
            true
        }
        Verdict::Hold { .. } => true,
        Verdict::ReapedOnly { .. } | Verdict::Proceed { .. } => {
            if control.census.held {
                tracing::info!(term = %control.leader.term(), "failovers go on");
            }
            false
        }
    };
    control.census.held = held;
}

/// Keeps the metric at why failovers stand still.
fn measure(control: &mut Control, verdict: &Verdict) {
    let why = match verdict {
        _ if control.orders.maintenance() => Some("maintenance"),
        Verdict::Proceed { .. } => None,
        Verdict::ReapedOnly { why, .. } | Verdict::Hold { why } => Some(match why {
            Hold::Paused { .. } => "paused",
            Hold::TooManySilent { .. } => "too_many_silent",
            Hold::CalmingDown { .. } => "calming_down",
            Hold::Stalled { .. } => "stalled",
        }),
    };
    if control.census.measured != Some(why) {
        control.leader.measure_held(why);
        control.census.measured = Some(why);
    }
}
