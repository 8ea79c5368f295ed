//! How long a candidate rests after a failed attempt: twice as long after each failure in a row, and never as long as
//! another replica that failed at the same moment.

use std::time::Duration;

/// Least and most time between two attempts.
const LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Doublings that lead from the least to above the most.
const DOUBLINGS: u32 = 6;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    failures: u32,
    random: u64,
}

impl BackOff {
    /// Without a failure so far. `seed` spreads the rests of several replicas.
    pub fn new(seed: u64) -> BackOff {
        BackOff { failures: 0, random: seed }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed; returns the rest before the next one, shortened by up to a half.
    pub fn next(&mut self) -> Duration {
        let (least, most) = LIMITS;
        let longest = least.saturating_mul(1 << self.failures.min(DOUBLINGS)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.random = scramble(self.random);
        let shortened = longest.saturating_mul(u32::try_from(self.random % 500).unwrap_or(0)) / 1000;
        longest.saturating_sub(shortened)
    }
}

/// One step of the splitmix64 generator (Steele, Lea and Flood, 2014).
fn scramble(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a candidate never hammers etcd, and never rests for longer than the most. Method: many failures in a row.
    #[test]
    fn rests_grow_up_to_the_most_and_begin_anew_after_a_success() {
        let mut back_off = BackOff::new(7);
        for failure in 0..200_u32 {
            let rest = back_off.next();
            let longest = LIMITS.0.saturating_mul(1 << failure.min(DOUBLINGS)).min(LIMITS.1);
            assert!(rest <= longest && rest >= longest / 2, "{rest:?} after {failure} failures");
        }
        back_off.reset();
        assert!(back_off.next() <= LIMITS.0);
    }

    /// Goal: replicas that fail together do not come back together. Method: two seeds.
    #[test]
    fn two_replicas_rest_differently() {
        let (mut one, mut other) = (BackOff::new(1), BackOff::new(2));
        let rests = |back_off: &mut BackOff| (0..8).map(|_| back_off.next()).collect::<Vec<_>>();
        assert_ne!(rests(&mut one), rests(&mut other));
    }
}
