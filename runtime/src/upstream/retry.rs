//! When a call is tried again: seldom enough that a service in trouble is not
//! drowned by those who want to help.

use std::time::Duration;

use tower::retry::budget::{Budget as _, TpsBudget};

use crate::backoff::full_jitter;
use crate::clock::{Random, RandomExt as _};

/// How often one call is tried.
pub const MAX_TRIES: u32 = 3;
/// Retries per hundred calls.
pub const RETRY_PERCENT: u32 = 10;
/// Retries per second that are allowed however few calls there are.
pub const RETRY_RESERVE_PER_SECOND: u32 = 2;
/// Over how long calls are counted for the budget.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// The longest wait before the first retry; it doubles.
const RETRY_BASE: Duration = Duration::from_millis(50);
/// The longest wait before any retry.
pub const RETRY_MAX: Duration = Duration::from_millis(500);

/// What all calls of a service may spend on retries.
#[derive(Debug)]
pub(super) struct RetryBudget(TpsBudget);

impl RetryBudget {
    pub(super) fn new() -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let share = RETRY_PERCENT as f32 / 100.0;
        Self(TpsBudget::new(
            BUDGET_WINDOW,
            RETRY_RESERVE_PER_SECOND,
            share,
        ))
    }

    /// A call is made.
    pub(super) fn earn(&self) {
        self.0.deposit();
    }

    /// Whether one more retry may be made.
    pub(super) fn spend(&self) -> bool {
        self.0.withdraw()
    }
}

/// How long to wait before the retry after so many failures.
pub(super) fn retry_delay(random: &dyn Random, failures: u32) -> Duration {
    full_jitter(random.number(), RETRY_BASE, RETRY_MAX, failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededRandom;

    #[test]
    fn jitter_is_full_and_grows_up_to_its_limit() {
        let random = SeededRandom::new(1);
        for (failures, longest) in [(0, 50), (1, 100), (3, 400), (4, 500), (u32::MAX, 500)] {
            let waits = (0..200).map(|_| retry_delay(&random, failures).as_millis());
            let waits: Vec<_> = waits.collect();
            assert!(waits.iter().all(|wait| *wait < longest), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait > longest * 9 / 10));
            assert!(waits.iter().any(|wait| *wait < longest / 10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_calls_and_a_few_per_second() {
        let budget = RetryBudget::new();
        let spend_all = || {
            std::iter::repeat_with(|| budget.spend())
                .take_while(|it| *it)
                .count()
        };
        let reserve = spend_all();
        assert_eq!(reserve, 20, "2 per second for 10 seconds");
        for _ in 0..1_000 {
            budget.earn();
        }
        assert_eq!(spend_all(), 100, "10 % of 1,000");
        assert!(!budget.spend());
        tokio::time::advance(2 * BUDGET_WINDOW).await;
        assert!(budget.spend());
    }
}
