//! Clocks in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::Clock;

/// A wall clock that goes with virtual time, until it is stepped. Clones are one
/// clock. It outlives the machine that it is on.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedClock {
    start: UnixMillis,
    stepped_millis: Arc<AtomicI64>,
}

impl SimulatedClock {
    /// A clock that shows `start` as the simulation begins.
    pub(crate) fn from(start: UnixMillis) -> Self {
        Self {
            start,
            stepped_millis: Arc::default(),
        }
    }

    /// Sets the clock on, or back.
    pub(crate) fn step(&self, millis: i64) {
        self.stepped_millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> UnixMillis {
        // Outside of the simulation, it has not begun.
        let elapsed = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
        let now = self.start.plus(elapsed).0;
        UnixMillis(now.saturating_add_signed(self.stepped_millis.load(Ordering::SeqCst)))
    }
}
