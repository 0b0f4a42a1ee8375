//! Decisions from a seed, for everything that is not the driver's or turmoil's.

use std::time::Duration;

use duologue_runtime::clock::{RandomExt as _, SeededRandom};

/// A reproducible sequence of decisions.
pub(crate) struct Dice(SeededRandom);

impl Dice {
    /// The sequence of one decider within a run.
    pub(crate) fn new(seed: u64, decider: &str) -> Self {
        Self(SeededRandom::new(
            seed ^ conformance::event::digest(decider),
        ))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&self, (low, high): (u64, u64)) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low + self.0.number() % span
    }

    /// A time from `low` to `high` milliseconds.
    pub(crate) fn millis(&self, range: (u64, u64)) -> Duration {
        Duration::from_millis(self.between(range))
    }

    /// True so many times out of a hundred.
    pub(crate) fn percent(&self, percent: u64) -> bool {
        self.between((0, 99)) < percent
    }

    /// One of several; none of none.
    pub(crate) fn pick<T: Copy>(&self, from: &[T]) -> Option<T> {
        let count = u64::try_from(from.len()).unwrap_or_default();
        let index = self.between((0, count.saturating_sub(1)));
        from.get(usize::try_from(index).unwrap_or_default())
            .copied()
    }
}
