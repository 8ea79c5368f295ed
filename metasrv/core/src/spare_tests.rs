//! Goal: whatever mix of candidates, versions and restored backups, no term is led twice or after a higher one, every
//! term that is led has its record, and no successor waits for less than its predecessors require.
//! Method: random histories against a plain list of what was led; the transactions as the shell makes them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::handover;
use crate::settlement::{TermEnd, TermNumbers, takeover_wait};
use crate::timing::{self, Timing};

const SECOND: Duration = Duration::from_secs(1);

fn terms(counted: u64, recorded: &[u64], spares: &[(u64, u32)]) -> Terms<u32> {
    let recorded = recorded.iter().map(|term| Term(*term)).collect();
    Terms::new(Term(counted), &recorded, spares.iter().map(|(term, owner)| (Term(*term), *owner)).collect())
}

#[test]
fn the_last_term_is_the_one_below_the_row_of_spares() {
    assert_eq!(terms(0, &[], &[]).last(), Term(0));
    assert_eq!(terms(3, &[1, 2, 3], &[]).last(), Term(3));
    assert_eq!(terms(5, &[1, 2, 3, 4, 5], &[(4, 7), (5, 8)]).last(), Term(3));
    assert_eq!(terms(1, &[1], &[(1, 7)]).last(), Term(0));
}

#[test]
fn a_term_without_a_spare_makes_all_spares_below_it_stale() {
    // An older version led 6 and left the spares where they were.
    let stale = terms(6, &[1, 2, 3, 6], &[(2, 7), (3, 8)]);
    assert_eq!((stale.last(), stale.spare_of(&7), stale.spare_of(&8)), (Term(6), None, None));
    assert_eq!(stale.reserve(|_| true), Reserve::New(Term(7)));
    assert_eq!(stale.ended_by(Term(7)).collect::<Vec<_>>(), [Term(3), Term(2)]);
}

#[test]
fn an_orphan_is_taken_over_where_it_keeps_the_order_of_the_queue() {
    let stored = terms(4, &[1, 2, 3, 4], &[(2, 20), (3, 30), (4, 40)]);
    assert_eq!(stored.reserve(|owner| *owner != 40), Reserve::Orphan(Term(4)));
    assert_eq!(stored.reserve(|owner| *owner != 20), Reserve::New(Term(5)), "3 and 4 stand before us");
    assert_eq!(stored.reserve(|_| false), Reserve::Orphan(Term(2)));
    let many: Vec<(u64, u32)> = (1..).zip(1..).take(MANY).collect();
    assert_eq!(
        terms(32, &[], &many).reserve(|owner| *owner != 5),
        Reserve::Orphan(Term(5)),
        "enough of them"
    );
}

#[test]
fn a_spare_lasts_if_those_ahead_have_lower_ones() {
    let stored = terms(5, &[1, 2, 3, 4, 5], &[(2, 20), (3, 30), (4, 40), (5, 20)]);
    assert_eq!(stored.spare_of(&20), Some(Term(5)), "the highest of several");
    assert_eq!(stored.lasting_spare_of(&40, [30, 99].iter()), Some(Term(4)));
    assert_eq!(stored.lasting_spare_of(&40, [30, 20].iter()), None);
    assert_eq!(stored.lasting_spare_of(&99, [30].iter()), None);
}

/// What one candidate of the history does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reserves a term, unless it has one.
    Reserve(usize),
    /// Leaves the queue and comes back with a new key.
    Restart(usize),
    /// Wins and begins to lead, by puts.
    Lead(usize),
    /// Wins and begins to lead, by deletes alone.
    LeadWithoutSpace(usize),
    /// An older version wins: it knows the counter and the records, and nothing of spares.
    LeadAsOlderVersion(usize),
    /// The present leader resigns.
    Resign,
    /// The present leader resigns, and begins the term of this one in the same transaction.
    HandOver(usize),
    /// The one whose term was begun so comes to know of it, and leads it.
    LeadBegun,
    /// The present leader records that all before it is over.
    Settle,
    /// A node has seen a term that this store has forgotten.
    Outrank(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let candidate = 0_usize..4;
    prop_oneof![
        4 => candidate.clone().prop_map(Step::Reserve),
        1 => candidate.clone().prop_map(Step::Restart),
        2 => candidate.clone().prop_map(Step::Lead),
        2 => candidate.clone().prop_map(Step::LeadWithoutSpace),
        1 => candidate.clone().prop_map(Step::LeadAsOlderVersion),
        1 => Just(Step::Resign),
        2 => candidate.prop_map(Step::HandOver),
        2 => Just(Step::LeadBegun),
        1 => Just(Step::Settle),
        1 => (1_u64..9).prop_map(Step::Outrank),
    ]
}

#[derive(Default)]
struct Stored {
    counted: Term,
    records: BTreeMap<Term, TermNumbers>,
    spares: BTreeMap<Term, u32>,
}

/// What was really led, in order, with what a successor owes to it.
#[derive(Default)]
struct History {
    led: Vec<TermNumbers>,
    /// Terms that a forgotten future may have led.
    forgotten: Term,
}

impl Stored {
    fn terms(&self) -> Terms<u32> {
        Terms::new(self.counted, &self.records.keys().copied().collect(), self.spares.clone())
    }

    fn numbers(term: Term, candidate: usize) -> TermNumbers {
        let seconds = u32::try_from(candidate).unwrap() + 2;
        TermNumbers {
            term,
            election_ttl: SECOND * seconds,
            region_lease: SECOND * (2 * seconds),
            end: TermEnd::Unknown,
            settled_below: Term(0),
        }
    }

    /// The candidates queue in the order of their numbers.
    fn reserve(&mut self, candidate: usize, owner: u32, queue: &[u32; 4]) {
        if self.terms().lasting_spare_of(&owner, queue[..candidate].iter()).is_some() {
            return;
        }
        let (Reserve::New(term) | Reserve::Orphan(term)) =
            self.terms().reserve(|owner| queue.contains(owner));
        self.counted = self.counted.max(term);
        self.records.insert(term, Stored::numbers(term, candidate));
        self.spares.insert(term, owner);
    }

    /// The first transaction of a term.
    fn begin(&mut self, term: Term) {
        let ended: Vec<Term> = self.terms().ended_by(term).collect();
        for spare in ended {
            self.spares.remove(&spare);
        }
    }
}

impl History {
    fn highest(&self) -> Term {
        self.led.last().map_or(self.forgotten, |led| led.term.max(self.forgotten))
    }

    /// The least that the next leader must wait, seen by somebody who knows everything.
    fn required(&self, own: &Timing) -> Duration {
        let settled = self.led.iter().map(|led| led.settled_below).max().unwrap_or_default();
        let of_led = self.led.iter().filter(|led| led.term >= settled).map(|led| match led.end {
            TermEnd::Resigned => timing::grant_wait(led.region_lease),
            TermEnd::Unknown => timing::takeover_wait(led.election_ttl, led.region_lease),
        });
        let forgotten = (self.forgotten >= settled && self.forgotten > Term(0)).then(|| own.takeover_wait());
        of_led.chain(forgotten).max().unwrap_or_default()
    }
}

fn run(steps: Vec<Step>) -> Result<u64, TestCaseError> {
    let (mut stored, mut history) = (Stored::default(), History::default());
    let (mut queue, mut keys) = ([0_u32, 1, 2, 3], 4_u32);
    let mut led_on_spares = 0;
    // The term in the key of this candidate, until somebody else leads, or its key is gone.
    let mut begun: Option<(usize, Term)> = None;
    for step in steps {
        let before = stored.terms();
        let (candidate, term) = match step {
            Step::Reserve(candidate) => {
                stored.reserve(candidate, queue[candidate], &queue);
                continue;
            }
            Step::Restart(candidate) => {
                queue[candidate] = keys;
                keys += 1;
                begun = begun.filter(|(of, _)| *of != candidate);
                continue;
            }
            Step::Resign => {
                if let Some(led) = history.led.last_mut() {
                    led.end = TermEnd::Resigned;
                    stored.records.insert(led.term, *led);
                }
                continue;
            }
            Step::HandOver(candidate) => {
                let Some(led) = history.led.last_mut().filter(|led| led.end == TermEnd::Unknown) else {
                    continue;
                };
                led.end = TermEnd::Resigned;
                stored.records.insert(led.term, *led);
                let term = before.last().next();
                stored.counted = stored.counted.max(term);
                stored.records.insert(term, Stored::numbers(term, candidate));
                stored.begin(term);
                begun = Some((candidate, term));
                continue;
            }
            Step::LeadBegun => {
                let Some((candidate, published)) = begun.take() else { continue };
                let own = stored.records.get(&published) == Some(&Stored::numbers(published, candidate));
                let Some(term) = handover::begun(published, before.last(), own) else { continue };
                (candidate, term)
            }
            Step::Settle => {
                // Only a leader settles, and not one that has resigned or was outranked.
                if let Some(led) = history.led.last_mut().filter(|led| led.end == TermEnd::Unknown)
                    && led.term > history.forgotten
                {
                    led.settled_below = led.term;
                    stored.records.insert(led.term, *led);
                }
                continue;
            }
            Step::Outrank(by) => {
                let seen = Term(before.top().0 + by - 4.min(by));
                // What a leader knows of already is no news to it.
                if seen <= history.highest() || begun.is_some() {
                    continue;
                }
                stored.counted = stored.counted.max(seen);
                // The record of a term that was reserved here says nothing of who led it in the forgotten future.
                for ended in stored.terms().ended_by(seen).collect::<Vec<_>>() {
                    stored.records.remove(&ended);
                }
                stored.begin(seen);
                history.forgotten = history.forgotten.max(seen);
                continue;
            }
            Step::Lead(candidate) => {
                let term = before.last().next();
                stored.counted = stored.counted.max(term);
                stored.records.insert(term, Stored::numbers(term, candidate));
                stored.begin(term);
                (candidate, term)
            }
            Step::LeadWithoutSpace(candidate) => {
                let Some(term) = before.spare_of(&queue[candidate]) else { continue };
                stored.begin(term);
                led_on_spares += 1;
                (candidate, term)
            }
            Step::LeadAsOlderVersion(candidate) => {
                let term = before.top().next();
                stored.counted = term;
                stored.records.insert(term, Stored::numbers(term, candidate));
                (candidate, term)
            }
        };
        begun = None;
        let own = Timing::default();
        let numbers = Stored::numbers(term, candidate);
        let highest = history.highest();
        prop_assert!(term > highest, "{term} is led after {highest}");
        prop_assert_eq!(
            stored.records.get(&term),
            Some(&numbers),
            "led without the record of its own numbers"
        );
        let records: Vec<TermNumbers> = stored.records.values().copied().collect();
        let waits = takeover_wait(&records, Term(term.0 - 1), &own);
        let required = history.required(&own);
        prop_assert!(waits >= required, "term {term} waits {waits:?}, {required:?} are required");
        history.led.push(numbers);
        prop_assert_eq!(stored.terms().last(), term);
    }
    Ok(led_on_spares)
}

proptest! {
    #[test]
    fn terms_rise_and_waits_are_never_too_short(steps in prop::collection::vec(step(), 0..60)) {
        run(steps)?;
    }
}

/// The histories above do lead on spares, or they would show nothing.
#[test]
fn a_candidate_with_a_spare_leads_without_space() {
    use Step::{Lead, LeadWithoutSpace, Reserve};
    let steps = vec![Lead(0), Reserve(1), Reserve(2), LeadWithoutSpace(2), LeadWithoutSpace(1), Lead(3)];
    assert_eq!(run(steps).unwrap(), 1, "the spare below the one that was led is gone");
}

/// Goal: a term that was begun for a successor is led by it, or counts as led. Method: the successor leads; it restarts before
/// it knows; a version that knows nothing of it leads above it.
#[test]
fn a_term_that_was_begun_is_led_once_or_passed_over() {
    use Step::{HandOver, Lead, LeadAsOlderVersion, LeadBegun, Reserve, Restart};
    run(vec![Lead(0), Reserve(1), Reserve(2), HandOver(1), LeadBegun, LeadBegun, HandOver(2), LeadBegun])
        .unwrap();
    run(vec![Lead(0), Reserve(1), HandOver(1), Restart(1), LeadBegun, Lead(2)]).unwrap();
    run(vec![Lead(0), HandOver(1), LeadAsOlderVersion(1), HandOver(2), LeadBegun, Lead(3)]).unwrap();
}
