//! Times by how often they occurred: exact to 1/32.

use std::time::Duration;

/// Each doubling is cut into so many parts.
const PARTS: usize = 32;
/// Up to 2^36 µs, far above any time here.
const DOUBLINGS: usize = 32;

/// How often which time occurred.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; PARTS * DOUBLINGS],
            total: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[place(micros).min(last)] += 1;
        self.total += 1;
    }

    /// Takes what another has counted.
    pub(crate) fn join(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The time that so large a share does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut left = rank(self.total, share);
        for (place, count) in self.counts.iter().enumerate() {
            if left <= *count && *count > 0 {
                return Duration::from_micros(end(place));
            }
            left -= left.min(*count);
        }
        Duration::ZERO
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^52 and not negative"
)]
fn rank(total: u64, share: f64) -> u64 {
    (total as f64 * share).ceil() as u64
}

/// Below [`PARTS`] each microsecond has its place.
fn place(micros: u64) -> usize {
    let parts = PARTS as u64;
    if micros < parts {
        return usize::try_from(micros).unwrap_or(0);
    }
    let shift = micros.ilog2() - PARTS.ilog2();
    let within = usize::try_from((micros >> shift) - parts).unwrap_or(0);
    PARTS * (shift as usize + 1) + within
}

/// The greatest number of microseconds of a place.
fn end(place: usize) -> u64 {
    let (doubling, within) = (place / PARTS, place % PARTS);
    if doubling == 0 {
        return within as u64;
    }
    (((PARTS + within + 1) as u64) << (doubling - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_place_and_places_are_narrow() {
        for micros in (0..100_000).chain([1 << 30, (1 << 31) - 1]) {
            let end = end(place(micros));
            assert!(end >= micros, "{micros} {end}");
            assert!(end - micros <= micros / 32, "{micros} {end}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let mut times = Histogram::default();
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros));
        }
        let half = times.quantile(0.5).as_micros();
        assert!((500..=516).contains(&half), "{half}");
        let most = times.quantile(0.99).as_micros();
        assert!((990..=1023).contains(&most), "{most}");
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
        // Twice as many, half of them at once.
        let mut at_once = Histogram::default();
        (0..1000).for_each(|_| at_once.add(Duration::ZERO));
        times.join(&at_once);
        assert_eq!(times.quantile(0.5), Duration::ZERO);
        let joined = times.quantile(0.75).as_micros();
        assert!((500..=516).contains(&joined), "{joined}");
    }
}
