//! The loop that moves regions: one task of each leader, and the only owner of procedures, orders and the brake.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the loop: it looks, decides, and never waits for I/O |
//! | `handle.rs` | the way to it: commands, and why one is refused |
//! | `census.rs` | how many nodes are silent, and what the brake says |
//! | `failover.rs` | regions of lost nodes go elsewhere |
//! | `orders.rs` | what operators want of nodes and of failovers |
//! | `procedures/` | migrations and drains |
//! | `command.rs`, `command/` | what an operator asks for, carried out |
//! | `event.rs`, `timeline.rs` | what is told of decisions, and how long it is kept |
//! | `explain.rs` | where a region is, and why |
//! | `duty.rs` | what others list of what the loop knows of nodes |
//! | `exclusion.rs` | why no node is left to take a region |
//!
//! Whatever takes time (a transaction, an instruction and its reply) runs on a task beside the loop and ends with a value that
//! the loop takes up. So a slow store makes nobody silent, and nothing is decided from what is half known: what is under way
//! is marked before it begins, and is nobody else's until it ends.

mod census;
pub mod command;
mod duty;
pub mod event;
mod exclusion;
mod explain;
pub mod failover;
mod handle;
pub mod orders;
pub mod procedures;
pub mod timeline;

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::brake::{Brake, Limits};
use metasrv_core::time::BootTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use duty::NodeDuty;
pub use exclusion::nobody;
pub use explain::health_name;
pub use handle::{Command, ControlError, ControlHandle, Reply};

use crate::leader::{Agenda, Leader};
use crate::mailbox::HeartbeatMailbox;
use census::Census;
use failover::Failover;
use orders::Orders;
use procedures::Procedures;
use timeline::Timeline;

/// Time between two turns of the loop when nothing happens.
const TURN: Duration = Duration::from_millis(100);

/// Two turns of the loop so far apart are no stall.
pub const BOUND: Duration = Duration::from_millis(300);

/// What ran beside the loop has ended.
#[derive(Debug)]
pub enum Done {
    /// A batch of failovers.
    Failover(failover::Done),
    /// A step of a procedure.
    Procedure(procedures::Done),
    /// A change of what operators want.
    Order(orders::Done),
    /// Work on the history.
    Timeline,
    /// Nothing has to be taken up.
    Nothing,
}

/// What the loop owns.
pub struct Control {
    pub(super) leader: Arc<Leader>,
    pub(super) mailbox: Arc<HeartbeatMailbox>,
    pub(super) brake: Brake,
    pub(super) orders: Orders,
    pub(super) procedures: Procedures,
    pub(super) failover: Failover,
    pub(super) census: Census,
    pub(super) timeline: Timeline,
    /// What runs beside the loop.
    pub(super) work: JoinSet<Done>,
}

/// Runs until the leader ends.
pub async fn run(
    leader: Arc<Leader>,
    mailbox: Arc<HeartbeatMailbox>,
    agenda: Agenda,
    mut commands: mpsc::Receiver<Command>,
) {
    let handle = leader.control().clone();
    let ended = leader.ended();
    tokio::pin!(ended);
    let now = leader.clock().now();
    let _unmeasured = Unmeasured(Arc::clone(&leader));
    let mut control = Control::new(leader, mailbox, agenda, now);
    let mut look_at = now;
    loop {
        let wait = look_at.since(control.leader.clock().now()).min(TURN);
        tokio::select! {
            biased;
            () = &mut ended => return,
            Some(done) = control.work.join_next() => match done {
                Ok(done) => control.done(done),
                // A task that panicked leaves what it was about undecided: the next leader decides anew.
                Err(error) => {
                    tracing::error!(%error, "a task of the control loop ended badly; this term ends");
                    control.leader.end();
                    return;
                }
            },
            Some(command) = commands.recv() => command::handle(&mut control, command),
            () = handle.woken() => {}
            () = tokio::time::sleep(wait) => {}
        }
        look_at = control.turn();
    }
}

/// However the loop ends, what it measured is not so any more.
struct Unmeasured(Arc<Leader>);

impl Drop for Unmeasured {
    fn drop(&mut self) {
        self.0.measure_nothing();
    }
}

impl Control {
    fn new(leader: Arc<Leader>, mailbox: Arc<HeartbeatMailbox>, agenda: Agenda, now: BootTime) -> Control {
        let orders =
            Orders::load(agenda.node_orders, agenda.failover_order, now, crate::clock::wall_clock_ms());
        let procedures = Procedures::load(agenda.procedures, &leader, agenda.since);
        Control {
            leader,
            mailbox,
            brake: Brake::new(Limits::default()),
            orders,
            procedures,
            failover: Failover::default(),
            census: Census::default(),
            timeline: Timeline::new(now),
            work: JoinSet::new(),
        }
    }

    /// Looks at everything once. Says when to look again, if nothing happens before.
    fn turn(&mut self) -> BootTime {
        let now = self.leader.clock().now();
        // Its lease is over, and the election has not said so yet. What is begun now fails as soon as it begins, and would be
        // begun again at once: the loop would do nothing else, without a pause.
        if !self.leader.holds_lease(now) {
            return now + TURN;
        }
        if let Some(stall) = self.leader.listened(now) {
            self.brake.stalled(stall);
        }
        orders::turn(self, now);
        census::turn(self, now);
        failover::turn(self, now);
        let look_at = procedures::turn(self, now);
        timeline::turn(self, now);
        look_at.min(now + TURN)
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Failover(done) => failover::done(self, done),
            Done::Procedure(done) => procedures::done(self, done),
            Done::Order(done) => orders::done(self, done),
            Done::Timeline => timeline::done(self),
            Done::Nothing => {}
        }
    }
}
