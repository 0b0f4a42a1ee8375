//! How long to wait before the next try: exponential, with full jitter.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, MAX_RETRY_AFTER};

/// Counts failures since the last success.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure. `dice` is a random number; a delay that
    /// the server asked for is waited in full, and the jitter comes on top, so
    /// that clients told the same do not come back at once.
    pub(crate) fn next(&mut self, asked: Option<Duration>, dice: u64) -> Duration {
        let ceiling = BACKOFF_MIN
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let ceiling = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(dice % ceiling.saturating_add(1));
        asked.unwrap_or_default().min(MAX_RETRY_AFTER) + jitter
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_between_what_was_asked_and_the_ceiling(
            dice in proptest::collection::vec(any::<u64>(), 1..60),
            asked in proptest::option::of(0_u64..2_000_000),
        ) {
            let asked = asked.map(Duration::from_millis);
            let mut backoff = Backoff::default();
            let mut ceiling = BACKOFF_MIN;
            for dice in dice {
                let delay = backoff.next(asked, dice);
                let floor = asked.unwrap_or_default().min(MAX_RETRY_AFTER);
                prop_assert!(delay >= floor && delay <= floor + ceiling);
                ceiling = (ceiling * 2).min(BACKOFF_MAX);
            }
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next(None, 0);
        }
        assert_eq!(backoff.next(None, 30_000), BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.next(None, 100), BACKOFF_MIN);
    }
}
