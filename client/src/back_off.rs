//! How long to wait before the next attempt: short at first, then doubling, with jitter, so that a thousand nodes that
//! lost the same leader do not come back in the same millisecond, and never a tight loop.

use std::time::Duration;

/// So many waits are as short as the first one. A leader whose process died is replaced in twenty to fifty milliseconds:
/// until then only those nodes ask whose heartbeat is due, and each of them should find the next leader soon after it
/// is there. A wait that doubled from the beginning would be longer by then than all that it waits for.
const SHORT: u32 = 3;

/// The shape of a series of waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackOff {
    /// The first waits. Never zero.
    pub first: Duration,
    /// No wait is longer.
    pub most: Duration,
}

impl Default for BackOff {
    /// A planned change of leader takes milliseconds, so the first wait is short; an election after a death takes
    /// seconds, so later waits may be half a second without being noticed.
    fn default() -> BackOff {
        BackOff { first: Duration::from_millis(20), most: Duration::from_millis(500) }
    }
}

impl BackOff {
    /// A new series, which begins with the first wait.
    pub fn start(self) -> Waits {
        Waits { back_off: self, short: SHORT, next: self.first }
    }
}

/// A running series of waits.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    back_off: BackOff,
    /// How many waits are still as short as the first one.
    short: u32,
    next: Duration,
}

impl Waits {
    /// The next wait: between half of the present step and the whole of it.
    pub fn next_wait(&mut self) -> Duration {
        let step =
            self.next.clamp(Duration::from_millis(1), self.back_off.most.max(Duration::from_millis(1)));
        self.short = self.short.saturating_sub(1);
        if self.short == 0 {
            self.next = step.saturating_mul(2);
        }
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        *self = self.back_off.start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_short_then_double_up_to_the_most_and_are_never_zero() {
        let back_off = BackOff { first: Duration::from_millis(10), most: Duration::from_millis(40) };
        let mut waits = back_off.start();
        for step in [10, 10, 10, 20, 40, 40, 40] {
            let wait = waits.next_wait();
            let step = Duration::from_millis(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for a step of {step:?}");
        }
        waits.reset();
        assert!(waits.next_wait() <= Duration::from_millis(10));
        let mut none = BackOff { first: Duration::ZERO, most: Duration::ZERO }.start();
        assert!(none.next_wait() > Duration::ZERO, "a mistake in the configuration is no tight loop");
    }
}
