//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// A time between zero and `first`, doubled for each failure before, below `max`: those
/// who failed together do not come back together. `random` is any number.
pub fn full_jitter(random: u64, first: Duration, max: Duration, failures: u32) -> Duration {
    let bound = first
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(max);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.max(1))
}
