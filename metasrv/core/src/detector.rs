//! Which nodes are alive, as far as their heartbeats say.
//!
//! Two judgements of one silence. *Suspicion* adapts to how a node's heartbeats really arrive: phi accrual, by Hayashibara
//! and others, "The φ accrual failure detector", 2004. It keeps new regions away from a node and warns; it takes nothing
//! away. The *deadline* is one whole region lease of silence in this term: only then is a node lost. Both cost the same for
//! a node, whatever the fleet: no windows of samples, no walk over anybody else.
//!
//! | silence in this term | health |
//! | --- | --- |
//! | as its rhythm lets expect | [`Health::Alive`] |
//! | improbable (phi ≥ 8) | [`Health::Suspect`] |
//! | improbable enough after its stream broke | [`Health::Suspect`] |
//! | one whole lease | [`Health::Lost`] |
//!
//! Whoever hears nothing may be deaf. Silence is counted by [`Listening`], a clock that stands still while our own loop
//! does: a stall of ours makes nobody silent (design 08, I11). Being lost is a reason to look for another node, and no
//! permission: [`crate::failover`] says when a region may be taken.

use std::time::Duration;

use crate::time::BootTime;

/// A node of this phi or more is suspect: one wrong suspicion in 10^8 heartbeats that arrive as they did so far. With
/// heartbeats each second, that is a silence of 2.3 s: one lost heartbeat is not enough, two are.
pub const SUSPICIOUS: f64 = 8.0;

/// What a broken stream adds to phi. A healthy node is back within its interval, so it becomes suspect as soon as its next
/// heartbeat is late by what one in ten is; before that, a reset (of the node, of the network, of ours) proves nothing.
const STREAM_ENDED: f64 = 7.0;

/// The weight of one more interval in the estimates: about the last thirty count.
const SAMPLE_WEIGHT: f64 = 1.0 / 16.0;

/// A rhythm is never taken for steadier than this share of its interval: a punctual past promises no punctual future.
const LEAST_DEVIATION_SHARE: f64 = 0.25;

/// Schedulers and networks hesitate for so long (in seconds), however short the interval is.
const LEAST_DEVIATION: f64 = 0.1;

/// The clock by which silence is counted. It begins with the term, and it stands still while our own loop is later than
/// its bound: for that time nobody could be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Silence of this length means lost.
    lease: Duration,
    /// The longest time between two turns of the loop that is no stall.
    bound: Duration,
    began: BootTime,
    turned_at: BootTime,
    /// Time listened up to the last turn.
    listened: Duration,
}

/// The loop turned later than its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// When it turned again.
    pub ended_at: BootTime,
    /// By how much it was late.
    pub late: Duration,
}

impl Listening {
    /// Begins to listen with the term. `lease` is the length of a region lease; `bound` the time between two turns of the
    /// loop that is no stall.
    pub fn new(lease: Duration, bound: Duration, now: BootTime) -> Listening {
        Listening { lease, bound, began: now, turned_at: now, listened: Duration::ZERO }
    }

    /// The loop turned. Says by how much too late, if it did.
    pub fn turned(&mut self, now: BootTime) -> Option<Stall> {
        let late = now.since(self.turned_at).saturating_sub(self.bound);
        self.listened = self.listened(now);
        self.turned_at = self.turned_at.max(now);
        (late > Duration::ZERO).then_some(Stall { ended_at: now, late })
    }

    /// For how long one could be heard in this term.
    pub fn listened(&self, now: BootTime) -> Duration {
        self.listened.saturating_add(now.since(self.turned_at).min(self.bound))
    }
}

/// What is known of one node's heartbeats in this term.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Heartbeats {
    /// The last one, by [`Listening::listened`].
    last: Option<Duration>,
    /// The last one, or the begin of the term, for people.
    silent_since: BootTime,
    /// What was dictated to the node.
    interval: Duration,
    /// Of the intervals between arrivals, in seconds; exponentially weighted.
    mean: f64,
    /// The same, in seconds squared.
    variance: f64,
    stream: Stream,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    /// Nothing is known against it.
    Open,
    /// It ended, and nothing was heard since.
    Ended,
}

/// How a node is, as far as one can hear.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Health {
    /// Heard as its rhythm lets expect.
    Alive,
    /// Silent for improbably long.
    Suspect {
        /// How improbable: a silence of phi happens to one in 10^phi heartbeats of a healthy node.
        phi: f64,
    },
    /// Silent for a whole lease of this term.
    Lost {
        /// Its last heartbeat, or the begin of the term where there was none.
        since: BootTime,
    },
}

impl Heartbeats {
    /// Of a node that is known and was not heard in this term yet: its silence counts from the begin of the term, its
    /// rhythm is what is dictated to it. So it is judged at once, without a time to warm up.
    pub fn none_yet(interval: Duration, listening: &Listening) -> Heartbeats {
        Heartbeats {
            last: None,
            silent_since: listening.began,
            interval,
            mean: interval.as_secs_f64(),
            variance: 0.0,
            stream: Stream::Open,
        }
    }

    /// A heartbeat arrived, of a node to which `interval` is dictated.
    pub fn arrived(&mut self, interval: Duration, listening: &Listening, now: BootTime) {
        let at = listening.listened(now);
        if interval != self.interval {
            // Another rhythm: what was learnt of the old one would accuse the node, or excuse it.
            *self = Heartbeats { last: None, ..Heartbeats::none_yet(interval, listening) };
        } else if let Some(last) = self.last {
            self.learn(at.saturating_sub(last), listening.lease);
        }
        self.last = self.last.max(Some(at));
        self.silent_since = self.silent_since.max(now);
        self.stream = Stream::Open;
    }

    /// The node's stream ended: a hint, which the next heartbeat clears.
    pub fn stream_ended(&mut self) {
        self.stream = Stream::Ended;
    }

    /// How the node is.
    pub fn judge(&self, listening: &Listening, now: BootTime) -> Health {
        if self.silence(listening, now) >= listening.lease {
            return Health::Lost { since: self.silent_since };
        }
        let phi = self.phi(listening, now);
        if phi >= SUSPICIOUS { Health::Suspect { phi } } else { Health::Alive }
    }

    /// For how long the node was not heard though it could have been: since its last heartbeat, or since the begin of the
    /// term, whichever is later.
    pub fn silence(&self, listening: &Listening, now: BootTime) -> Duration {
        listening.listened(now).saturating_sub(self.last.unwrap_or(Duration::ZERO))
    }

    /// How improbable its silence is: −log10 of the probability that a heartbeat comes even later.
    pub fn phi(&self, listening: &Listening, now: BootTime) -> f64 {
        // Heartbeats that came early promise no more than what was dictated.
        let mean = self.mean.max(self.interval.as_secs_f64());
        let least = (self.interval.as_secs_f64() * LEAST_DEVIATION_SHARE).max(LEAST_DEVIATION);
        let deviation = self.variance.sqrt().max(least);
        let late = (self.silence(listening, now).as_secs_f64() - mean) / deviation;
        let hint = match self.stream {
            Stream::Open => 0.0,
            Stream::Ended => STREAM_ENDED,
        };
        minus_log10_of_later(late) + hint
    }

    fn learn(&mut self, interval: Duration, lease: Duration) {
        // Less than half an interval is a heartbeat out of turn (a region was opened, a stream began anew); a whole lease
        // is an interruption. Neither says when the next one is due.
        if interval < self.interval / 2 || interval >= lease {
            return;
        }
        let difference = interval.as_secs_f64() - self.mean;
        let step = difference * SAMPLE_WEIGHT;
        self.mean += step;
        self.variance = (1.0 - SAMPLE_WEIGHT) * (self.variance + difference * step);
    }
}

/// −log10 of the probability that a normal variable exceeds its mean by so many deviations. The logistic approximation
/// (Bowling and others, 2009), as a logarithm throughout: it neither overflows nor rounds to a certainty, so it always grows.
fn minus_log10_of_later(deviations: f64) -> f64 {
    let x = deviations * (1.5976 + 0.070_566 * deviations * deviations);
    (x.max(0.0) + (-x.abs()).exp().ln_1p()) / std::f64::consts::LN_10
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
