//! What just happened: turns one look at the cluster after the other into sentences. Pure; time is an argument.
//!
//! | seen | told |
//! | --- | --- |
//! | a leader where there was none before | it leads |
//! | no leader in two looks in a row | nobody leads |
//! | another leader, or a later term | the change, and how long nobody was seen to lead |
//! | under one leader, a datanode comes or goes | that datanode |
//! | under a new leader, all datanodes are back | all of them, once |
//! | every region writable; fewer in two looks in a row; every one again | each of these, and how long it took |

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::watch::{LeaderSeen, Observation};

/// Events that are remembered for the screen.
const REMEMBERED: usize = 50;
/// Looks in a row before a bad sight is believed: under load, one answer may be late.
const BELIEVED: u32 = 2;
/// Heartbeats are counted over so long.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// A shorter time says little about a rate.
const RATE_AT_LEAST: Duration = Duration::from_millis(900);

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Since the playground's start.
    pub at: Duration,
    /// One sentence, without a full stop.
    pub text: String,
}

/// Everything that happened, and what it amounts to.
pub struct Chronicle {
    regions: u64,
    datanodes: usize,
    events: VecDeque<Event>,
    /// Not taken by the output yet.
    fresh: Vec<Event>,
    leader: Option<LastLeader>,
    gathering: Gathering,
    writable: Writable,
    beats: VecDeque<(Duration, u64, u64)>,
    leader_changes: u64,
}

struct LastLeader {
    name: String,
    term: u64,
    seen_at: Duration,
    missed: u32,
}

/// What is known of the datanodes under the present leader.
enum Gathering {
    /// They are on their way to a leader that leads since then.
    Since(Duration),
    /// All were there once; now each is told of.
    Known(BTreeMap<u64, bool>),
}

/// How the regions do.
#[derive(Default)]
struct Writable {
    /// When every one was last seen writable.
    all_at: Option<Duration>,
    /// Looks in a row with fewer.
    missed: u32,
    /// The most ever seen.
    most: u64,
}

impl Chronicle {
    /// Nothing happened yet to so many wanted regions on so many datanodes.
    pub fn new(regions: u64, datanodes: usize) -> Chronicle {
        Chronicle {
            regions,
            datanodes,
            events: VecDeque::new(),
            fresh: Vec::new(),
            leader: None,
            gathering: Gathering::Since(Duration::ZERO),
            writable: Writable::default(),
            beats: VecDeque::new(),
            leader_changes: 0,
        }
    }

    /// Writes down what somebody did.
    pub fn note(&mut self, at: Duration, text: impl Into<String>) {
        let event = Event { at, text: text.into() };
        self.fresh.push(event.clone());
        self.events.push_back(event);
        while self.events.len() > REMEMBERED {
            self.events.pop_front();
        }
    }

    /// Takes in another look, and writes down what changed.
    pub fn observe(&mut self, at: Duration, seen: &Observation) {
        match &seen.leader {
            Some(leader) => self.see_leader(at, leader),
            None => self.miss_leader(at),
        }
        self.see_nodes(at, seen);
        self.see_regions(at, seen.leader.as_ref());
    }

    /// The last events, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &Event> {
        self.events.iter().skip(self.events.len().saturating_sub(count))
    }

    /// The events since this was asked last.
    pub fn take_fresh(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.fresh)
    }

    /// Heartbeats answered per second, over the last seconds of one term.
    pub fn heartbeats_per_second(&self) -> Option<f64> {
        let ((from, _, first), (to, _, last)) = (self.beats.front()?, self.beats.back()?);
        let took = to.saturating_sub(*from);
        let count = u32::try_from(last.saturating_sub(*first)).ok()?;
        (took >= RATE_AT_LEAST).then(|| f64::from(count) / took.as_secs_f64())
    }

    /// Whether every region was writable at some time.
    pub fn was_writable(&self) -> bool {
        self.writable.all_at.is_some()
    }

    /// Whether every region is writable, as far as the last looks are believed.
    pub fn is_writable(&self) -> bool {
        let led = self.leader.as_ref().is_some_and(|leader| leader.missed < BELIEVED);
        led && self.was_writable() && self.writable.missed < BELIEVED
    }

    /// The most regions that were writable at one time.
    pub fn most_writable(&self) -> u64 {
        self.writable.most
    }

    /// How often leadership went to another term.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes
    }

    fn see_leader(&mut self, at: Duration, leader: &LeaderSeen) {
        let (name, term) = (&leader.name, leader.term);
        let told = match &self.leader {
            None => Some(format!("{name} leads (term {term})")),
            // An answer that comes late is no news.
            Some(last) if term < last.term => return,
            Some(last) if term == last.term && last.missed >= BELIEVED => {
                Some(format!("{name} leads still (term {term})"))
            }
            Some(last) if term == last.term => None,
            Some(last) => {
                let after = seconds(at.saturating_sub(last.seen_at));
                Some(match last.name == *name {
                    true => format!("{name} leads again (term {term}) after {after}"),
                    false => {
                        format!("leader changed from {} to {name} (term {term}) after {after}", last.name)
                    }
                })
            }
        };
        if self.leader.as_ref().is_none_or(|last| last.term != term) {
            self.leader_changes += u64::from(self.leader.is_some());
            self.gathering = Gathering::Since(at);
            self.beats.clear();
        }
        self.leader = Some(LastLeader { name: name.clone(), term, seen_at: at, missed: 0 });
        self.beats.push_back((at, term, leader.heartbeats));
        while self.beats.front().is_some_and(|(from, ..)| at.saturating_sub(*from) > RATE_WINDOW) {
            self.beats.pop_front();
        }
        if let Some(told) = told {
            self.note(at, told);
        }
    }

    fn miss_leader(&mut self, at: Duration) {
        self.beats.clear();
        let Some(last) = &mut self.leader else { return };
        last.missed += 1;
        if last.missed == BELIEVED {
            let told = format!("nobody leads: {} (term {}) is not heard of", last.name, last.term);
            self.note(at, told);
        }
    }

    fn see_nodes(&mut self, at: Duration, seen: &Observation) {
        let (Some(leader), Some(nodes)) = (&seen.leader, seen.present_nodes()) else { return };
        let now: BTreeMap<u64, bool> = nodes.iter().map(|node| (node.id, node.connected)).collect();
        let connected = now.values().filter(|connected| **connected).count();
        let mut told = Vec::new();
        match &self.gathering {
            Gathering::Since(since) if connected >= self.datanodes => {
                let after = seconds(at.saturating_sub(*since));
                told.push(match self.datanodes {
                    1 => format!("the datanode is connected to {} after {after}", leader.name),
                    many => format!("all {many} datanodes are connected to {} after {after}", leader.name),
                });
            }
            Gathering::Since(_) => return,
            Gathering::Known(before) => {
                for (id, connected) in &now {
                    if before.get(id) != Some(connected) {
                        let what =
                            if *connected { "is connected again" } else { "is not connected any more" };
                        told.push(format!("d{id} {what}"));
                    }
                }
            }
        }
        self.gathering = Gathering::Known(now);
        told.into_iter().for_each(|told| self.note(at, told));
    }

    fn see_regions(&mut self, at: Duration, leader: Option<&LeaderSeen>) {
        let Some(leader) = leader else { return };
        let (writable, regions) = (leader.writable, leader.regions);
        self.writable.most = self.writable.most.max(writable);
        if regions < self.regions || writable < regions {
            self.writable.missed += 1;
            if self.writable.missed == BELIEVED && self.writable.all_at.is_some() {
                self.note(at, format!("{} sees {writable} of {regions} regions writable", leader.name));
            }
            return;
        }
        let told = match self.writable.all_at {
            None => Some(format!("every region is writable ({writable} of {regions})")),
            Some(last) if self.writable.missed >= BELIEVED => {
                let after = seconds(at.saturating_sub(last));
                Some(format!("every region is writable again ({writable} of {regions}) after {after}"))
            }
            Some(_) => None,
        };
        (self.writable.missed, self.writable.all_at) = (0, Some(at));
        if let Some(told) = told {
            self.note(at, told);
        }
    }
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
#[path = "chronicle_tests.rs"]
mod tests;
