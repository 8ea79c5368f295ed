//! How long migrations took in this term: what a drain's end is estimated from before it has a rate of its own.

use std::collections::VecDeque;
use std::time::Duration;

/// The last so many count: enough for a median, few enough to follow a change of load.
const MOST: usize = 32;

/// See the module.
#[derive(Default)]
pub(super) struct Measured {
    /// From the first record to the last, of those that were done.
    took: VecDeque<Duration>,
}

impl Measured {
    /// One more was done.
    pub(super) fn done(&mut self, took: Duration) {
        if self.took.len() >= MOST {
            self.took.pop_front();
        }
        self.took.push_back(took);
    }

    /// The median of the last ones. `None`: none was done yet.
    pub(super) fn typical(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.took.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typical_duration_is_the_median_of_the_last_ones() {
        let mut measured = Measured::default();
        assert_eq!(measured.typical(), None);
        for seconds in [1, 100, 2] {
            measured.done(Duration::from_secs(seconds));
        }
        assert_eq!(measured.typical(), Some(Duration::from_secs(2)));
        for _ in 0..MOST {
            measured.done(Duration::from_secs(7));
        }
        assert_eq!((measured.typical(), measured.took.len()), (Some(Duration::from_secs(7)), MOST));
    }
}
