//! The rules of design 03 that this crate carries, by name, each at the one place that decides by it.
//!
//! The proof (`proof/`) compiles the same sources once more with the feature `mutations`: there a rule can be removed,
//! and the search for two writers must then find what the rule is there for. Without the feature, which is how every
//! program is built, [`holds`] and [`carried`] hand back what they are given and cost nothing.
//!
//! A name stands for a guard, not for a sentence: where two guards forbid the same thing, neither can be missed
//! alone, and neither is named here ([docs/proof.md](../../../docs/proof.md) lists them).

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $says:literal,)*) => {
        /// A rule that can be removed in the proof.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Rule {
            $($(#[$doc])* #[doc = $says] $name,)*
        }

        #[cfg(feature = "mutations")]
        impl Rule {
            /// All of them.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Rule::$name => stringify!($name),)*
                }
            }

            /// What it says.
            pub fn says(self) -> &'static str {
                match self {
                    $(Rule::$name => $says,)*
                }
            }
        }
    };
}

rules! {
    LeadershipIsShort = "leadership lasts for TTL·(1−ρ)/(1+ρ), not for the TTL",
    LeaseIsShort = "a datanode uses L·(1−ρ) of a lease",
    GrantWaitIsLong = "a leader waits L·(1+ρ) for its own grants",
    UnknownEndCostsTtl = "a predecessor that did not resign may have granted for a whole TTL after its end",
    SuccessorWaitsForGrants = "a restarted process waits for what this term granted to its predecessor",
    SuccessorWaitsForTerms = "a restarted process waits for what earlier terms granted to its predecessor",
    EndOfTheRecorded = "a process's proved end ends the waiting for that process only",
    MoveWaitsForGrants = "a region moves only after the last grant of this term is over",
    MoveWaitsForTerms = "a region moves only after what earlier terms granted is over",
    CertificateOfTheHolder = "a certificate frees the regions of that process only",
    StoppedUnderThisEpoch = "a process's word that it stopped counts for the epoch it names",
    MoveRaisesEpoch = "a region moves under a raised epoch",
}

/// Whether a condition holds that a rule demands.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn holds(_rule: Rule, holds: bool) -> bool {
    holds
}

/// A value that a rule makes what it is. `_without` would be the value if there were no such rule.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub fn carried<T>(_rule: Rule, value: T, _without: impl FnOnce() -> T) -> T {
    value
}

/// The share ρ in percent by which clocks may run fast or slow, made larger in the proof, where time goes in ticks.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn drift_percent(percent: u32) -> u32 {
    percent
}

#[cfg(feature = "mutations")]
pub use removed::{carried, drift_percent, exercised, holds, remove, set_drift_percent};

/// For the proof: one rule at a time is removed, for the whole program.
#[cfg(feature = "mutations")]
mod removed {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::Rule;

    /// No rule has this number.
    const NONE: u32 = u32::MAX;

    static REMOVED: AtomicU32 = AtomicU32::new(NONE);
    static DRIFT_PERCENT: AtomicU32 = AtomicU32::new(0);
    static EXERCISED: [AtomicBool; Rule::ALL.len()] = [const { AtomicBool::new(false) }; Rule::ALL.len()];

    /// From now on the program runs without this rule, or with all; and it is not known of any whether it decided something.
    pub fn remove(rule: Option<Rule>) {
        REMOVED.store(rule.map_or(NONE, |rule| rule as u32), Ordering::SeqCst);
        for exercised in &EXERCISED {
            exercised.store(false, Ordering::SeqCst);
        }
    }

    /// The rules that decided something since: what they demand did not hold, or the value is another one by them.
    pub fn exercised() -> Vec<Rule> {
        let decided = |rule: &Rule| EXERCISED.get(*rule as usize).is_some_and(|it| it.load(Ordering::SeqCst));
        Rule::ALL.iter().copied().filter(decided).collect()
    }

    /// From now on clocks may be wrong by this share.
    pub fn set_drift_percent(percent: u32) {
        DRIFT_PERCENT.store(percent, Ordering::SeqCst);
    }

    /// See the other one.
    pub fn drift_percent(percent: u32) -> u32 {
        match DRIFT_PERCENT.load(Ordering::Relaxed) {
            0 => percent,
            set => set,
        }
    }

    /// See the other one.
    pub fn holds(rule: Rule, holds: bool) -> bool {
        if !holds {
            note(rule);
        }
        holds || is_removed(rule)
    }

    /// See the other one.
    pub fn carried<T: PartialEq>(rule: Rule, value: T, without: impl FnOnce() -> T) -> T {
        let without = without();
        if value == without {
            return value;
        }
        note(rule);
        if is_removed(rule) { without } else { value }
    }

    fn is_removed(rule: Rule) -> bool {
        REMOVED.load(Ordering::Relaxed) == rule as u32
    }

    fn note(rule: Rule) {
        if let Some(exercised) = EXERCISED.get(rule as usize)
            && !exercised.load(Ordering::Relaxed)
        {
            exercised.store(true, Ordering::Relaxed);
        }
    }
}
