//! Delays between retries.

use std::time::Duration;

/// A retry schedule: the delay grows by a constant factor with each failure, up to a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Each delay is this many times the one before.
    pub factor: u32,
    /// Maximum delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay after `failures` consecutive failures, counted from 1. Zero is treated as 1.
    #[must_use]
    pub fn delay(self, failures: u32) -> Duration {
        let factor = self.factor.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_to_its_maximum() {
        let backoff = Backoff { first: Duration::from_secs(1), factor: 2, max: Duration::from_secs(300) };
        let seconds = [1, 2, 3, 9, 10, u32::MAX].map(|failures| backoff.delay(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
        assert_eq!(backoff.delay(0), backoff.delay(1));
    }
}
