//! For how long nothing was heard of the leader, and from when on that is reason enough to depose it.
//!
//! Each replica that does not lead probes the leader. It *suspects* a leader of which it has heard nothing for its
//! patience, and a leader that a majority of the replicas suspects is deposed (design 03; the accused has no vote, but is
//! counted as one of them). Deposing is safe whatever is true of the leader: what it writes is refused, and nothing that
//! it granted is given to anybody else before that has run out. So this decides about availability only, and it must not
//! flap: where two replicas hear one another badly, each deposing would follow the last. So the patience doubles with
//! each leader that is deposed within [`CALM`] of its beginning, up to the TTL, at which etcd does the same by itself.

use std::time::Duration;

use crate::id::Term;
use crate::time::BootTime;

/// A leader that is silent for so long is suspected.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A term that was heard of for so long makes what was before forgotten.
pub const CALM: Duration = Duration::from_secs(60);

/// What one replica has heard of the leader.
#[derive(Debug)]
pub struct Suspicion {
    longest: Duration,
    term: Term,
    began: BootTime,
    /// When the last probe was sent that the leader answered well.
    heard: BootTime,
    /// Leaders that were suspected, one after another, without a calm term in between.
    suspected: u32,
}

/// What a replica says about the leader of a term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opinion {
    /// The term whose leader it listens to; 0 where it listens to nobody.
    pub term: Term,
    /// For how long it has heard nothing of it.
    pub silence: Duration,
    /// It would depose it.
    pub suspects: bool,
}

impl Suspicion {
    /// Of nobody yet. `longest` is the most patience there is: the TTL.
    pub fn new(longest: Duration) -> Suspicion {
        Suspicion { longest, term: Term(0), began: BootTime::ZERO, heard: BootTime::ZERO, suspected: 0 }
    }

    /// Begins to listen to the leader of this term; to nobody with term 0.
    pub fn listen(&mut self, term: Term, now: BootTime) {
        if term == self.term {
            return;
        }
        if self.term != Term(0) {
            let lasted = self.heard.since(self.began);
            if now.since(self.heard) >= self.patience() && lasted < CALM {
                self.suspected = self.suspected.saturating_add(1);
            } else if lasted >= CALM {
                self.suspected = 0;
            }
        }
        (self.term, self.began, self.heard) = (term, now, now);
    }

    /// The leader of this term answered a probe that was sent then.
    pub fn heard(&mut self, term: Term, sent_at: BootTime) {
        if term == self.term {
            self.heard = self.heard.max(sent_at);
        }
    }

    /// For how long a leader may be silent now.
    pub fn patience(&self) -> Duration {
        PATIENCE.saturating_mul(1_u32.checked_shl(self.suspected).unwrap_or(u32::MAX)).min(self.longest)
    }

    /// What this replica thinks of the leader of `term`.
    pub fn opinion(&self, term: Term, now: BootTime) -> Opinion {
        let silence = if self.term == Term(0) { Duration::ZERO } else { now.since(self.heard) };
        let suspects = term == self.term && self.term != Term(0) && silence >= self.patience();
        Opinion { term: self.term, silence, suspects }
    }
}

/// Whether so many votes are a majority of so many replicas.
pub fn is_majority(votes: usize, replicas: usize) -> bool {
    votes > replicas / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    fn listening(term: u64, since: u64) -> Suspicion {
        let mut suspicion = Suspicion::new(TTL);
        suspicion.listen(Term(term), at(since));
        suspicion
    }

    #[test]
    fn a_leader_is_suspected_after_a_second_of_silence_counted_from_what_was_answered() {
        let mut suspicion = listening(3, 0);
        suspicion.heard(Term(3), at(400));
        assert!(!suspicion.opinion(Term(3), at(1_399)).suspects);
        let opinion = suspicion.opinion(Term(3), at(1_400));
        assert_eq!(opinion, Opinion { term: Term(3), silence: Duration::from_secs(1), suspects: true });
        suspicion.heard(Term(3), at(1_390));
        assert!(!suspicion.opinion(Term(3), at(1_400)).suspects, "it spoke in time after all");
    }

    #[test]
    fn answers_and_questions_of_another_term_say_nothing_about_this_one() {
        let mut suspicion = listening(3, 0);
        suspicion.heard(Term(2), at(900));
        assert!(suspicion.opinion(Term(3), at(1_000)).suspects);
        assert!(!suspicion.opinion(Term(4), at(1_000)).suspects);
        assert!(!Suspicion::new(TTL).opinion(Term(0), at(9_000)).suspects, "nobody is suspected of nothing");
    }

    #[test]
    fn a_new_leader_begins_with_a_clean_sheet() {
        let mut suspicion = listening(3, 0);
        suspicion.listen(Term(4), at(5_000));
        assert!(!suspicion.opinion(Term(4), at(5_900)).suspects);
    }

    #[test]
    fn each_leader_that_is_deposed_soon_doubles_the_patience_up_to_the_ttl() {
        let mut suspicion = listening(1, 0);
        let mut now = 0;
        for (term, patience) in [(2, 2_000), (3, 4_000), (4, 5_000), (5, 5_000)] {
            now += 5_000;
            suspicion.listen(Term(term), at(now));
            assert_eq!(suspicion.patience(), Duration::from_millis(patience), "in term {term}");
        }
    }

    #[test]
    fn a_leader_that_left_in_peace_changes_nothing_and_a_calm_term_makes_forget() {
        let mut suspicion = listening(1, 0);
        suspicion.heard(Term(1), at(4_900));
        suspicion.listen(Term(2), at(5_000));
        assert_eq!(suspicion.patience(), PATIENCE, "it was heard of to its end");
        suspicion.listen(Term(3), at(9_000));
        assert_eq!(suspicion.patience(), PATIENCE * 2);
        suspicion.heard(Term(3), at(69_000));
        suspicion.listen(Term(4), at(80_000));
        assert_eq!(suspicion.patience(), PATIENCE);
    }

    #[test]
    fn the_accused_has_no_vote_but_counts() {
        assert!(is_majority(2, 3) && !is_majority(1, 3));
        assert!(!is_majority(1, 2), "of two replicas, one alone deposes nobody");
        assert!(is_majority(3, 4) && !is_majority(2, 4));
        assert!(is_majority(3, 5));
    }
}
