//! How often, and how many at once: token buckets and counted slots, by key.
//!
//! Both are exact, bounded in memory and cheap; neither waits, and neither
//! reads a clock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Keys that one limiter keeps at most.
pub const MAX_RATE_KEYS: usize = 65_536;
/// A limiter with that many keys looks for ones to forget at most this often.
pub const RATE_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Below this many keys nothing is forgotten.
const MIN_SWEEP_KEYS: usize = 1_024;

/// How fast a bucket fills, and how much it holds. Zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens added every second.
    pub per_second: u32,
    /// Tokens that a full bucket holds, as every bucket is at first.
    pub burst: u32,
}

/// A token bucket for each key.
///
/// A full bucket is forgotten, for it says nothing. When [`MAX_RATE_KEYS`] are
/// not full, a key that is not among them is refused until one is: the keys in
/// use keep their buckets, so that nobody gains by making others be forgotten.
pub struct RateLimiter<K> {
    interval: Duration,
    /// How far ahead of now a bucket may be paid for.
    depth: Duration,
    max_keys: usize,
    buckets: Mutex<Buckets<K>>,
}

struct Buckets<K> {
    /// When the bucket will be full again; until then it is missing a token for
    /// each interval.
    full_at: HashMap<K, Instant>,
    /// Forget at this many keys.
    sweep_at: usize,
    swept: Option<Instant>,
}

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    /// A limiter whose buckets are full.
    pub fn new(limit: RateLimit) -> Self {
        Self::with_max_keys(limit, MAX_RATE_KEYS)
    }

    fn with_max_keys(limit: RateLimit, max_keys: usize) -> Self {
        // Rounded up, so that the rate is never exceeded.
        let nanos = 1_000_000_000_u64.div_ceil(u64::from(limit.per_second.max(1)));
        let interval = Duration::from_nanos(nanos);
        Self {
            interval,
            depth: interval.saturating_mul(limit.burst.max(1)),
            max_keys,
            buckets: Mutex::new(Buckets {
                full_at: HashMap::new(),
                sweep_at: MIN_SWEEP_KEYS.min(max_keys),
                swept: None,
            }),
        }
    }

    /// Takes a token from the bucket of `key`, or says how long to wait for one.
    /// `now` should not run backward; if it does, nothing is gained by it.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = buckets.full_at.get_mut(key) {
            *full_at = self.paid(*full_at, now)?;
            return Ok(());
        }
        buckets.make_room(self.max_keys, now)?;
        let full_at = self.paid(now, now)?;
        buckets.full_at.insert(key.clone(), full_at);
        Ok(())
    }

    /// When a bucket will be full after one more token is taken.
    fn paid(&self, full_at: Instant, now: Instant) -> Result<Instant, Duration> {
        let full_at = full_at.max(now) + self.interval;
        let ahead = full_at.duration_since(now);
        match ahead.checked_sub(self.depth) {
            None | Some(Duration::ZERO) => Ok(full_at),
            Some(wait) => Err(wait),
        }
    }
}

impl<K: Hash + Eq> Buckets<K> {
    /// Forgets full buckets, seldom enough to be cheap for each new key. With
    /// all of `max_keys` in use, says how long to wait.
    fn make_room(&mut self, max_keys: usize, now: Instant) -> Result<(), Duration> {
        if self.full_at.len() < self.sweep_at {
            return Ok(());
        }
        let next = self.swept.map(|swept| swept + RATE_SWEEP_INTERVAL);
        let early = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        if self.full_at.len() >= max_keys && !early.is_zero() {
            return Err(early);
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.swept = Some(now);
        if self.full_at.len() >= max_keys {
            return Err(RATE_SWEEP_INTERVAL);
        }
        self.sweep_at = (self.full_at.len() * 2).clamp(MIN_SWEEP_KEYS.min(max_keys), max_keys);
        Ok(())
    }
}

impl<K> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("interval", &self.interval)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// At most so many at once, for each key. Clones count together.
pub struct Slots<K: Ord> {
    max: usize,
    taken: Taken<K>,
}

/// Keys without a taken slot are not in it, so that it is as large as what it
/// counts.
type Taken<K> = Arc<Mutex<BTreeMap<K, usize>>>;

/// A taken slot; dropping it gives it back.
pub struct SlotGuard<K: Ord> {
    key: K,
    taken: Taken<K>,
}

impl<K: Ord + Clone> Slots<K> {
    /// At most `max` at once for each key.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            taken: Arc::default(),
        }
    }

    /// Takes a slot of `key`; none if all are taken.
    pub fn acquire(&self, key: &K) -> Option<SlotGuard<K>> {
        let mut taken = lock(&self.taken);
        let count = taken.get(key).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        Some(SlotGuard {
            key: key.clone(),
            taken: Arc::clone(&self.taken),
        })
    }

    /// How many slots of `key` are taken.
    pub fn taken(&self, key: &K) -> usize {
        lock(&self.taken).get(key).copied().unwrap_or(0)
    }
}

impl<K: Ord> Clone for Slots<K> {
    fn clone(&self) -> Self {
        Self {
            max: self.max,
            taken: Arc::clone(&self.taken),
        }
    }
}

impl<K: Ord> Drop for SlotGuard<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

impl<K: Ord> fmt::Debug for Slots<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, keys) = (self.max, lock(&self.taken).len());
        write!(f, "Slots {{ max: {max}, keys: {keys} }}")
    }
}

impl<K: Ord> fmt::Debug for SlotGuard<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotGuard").finish_non_exhaustive()
    }
}

fn lock<K: Ord>(taken: &Taken<K>) -> MutexGuard<'_, BTreeMap<K, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn limiter(per_second: u32, burst: u32) -> RateLimiter<u32> {
        RateLimiter::new(RateLimit { per_second, burst })
    }

    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_is_granted_and_then_one_for_each_interval() {
        let (limiter, start) = (limiter(10, 3), start());
        let at = |millis| limiter.take(&1, start + Duration::from_millis(millis));
        assert_eq!([at(0), at(0), at(0)], [Ok(()); 3]);
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(99), Err(Duration::from_millis(1)));
        assert_eq!(at(100), Ok(()));
        assert_eq!(at(100), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_not_exceeded_either() {
        let (limiter, start) = (limiter(3, 1), start());
        let at = |nanos| limiter.take(&1, start + Duration::from_nanos(nanos));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(333_333_333), Err(Duration::from_nanos(1)));
        assert_eq!(at(333_333_334), Ok(()));
    }

    #[test]
    fn one_key_does_not_pay_for_another() {
        let (limiter, start) = (limiter(1, 1), start());
        assert!(limiter.take(&1, start).is_ok());
        assert!(limiter.take(&1, start).is_err());
        assert!(limiter.take(&2, start).is_ok());
    }

    #[test]
    fn zero_counts_as_one() {
        let (limiter, start) = (limiter(0, 0), start());
        assert!(limiter.take(&1, start).is_ok());
        assert_eq!(limiter.take(&1, start), Err(Duration::from_secs(1)));
    }

    #[test]
    fn a_full_bucket_is_forgotten_and_one_in_use_is_not() {
        let limit = RateLimit {
            per_second: 1,
            burst: 2,
        };
        let (limiter, start) = (RateLimiter::with_max_keys(limit, 3), start());
        let at = |key: u32, millis| limiter.take(&key, start + Duration::from_millis(millis));
        assert_eq!([at(1, 0), at(1, 0), at(2, 0), at(3, 0)], [Ok(()); 4]);
        // All three are in use: a fourth waits, and pushes nobody out.
        assert!(at(4, 500).is_err());
        assert!(at(1, 500).is_err());
        assert!(at(4, 1_400).is_err(), "swept less than a second ago");
        assert_eq!(at(4, 1_500), Ok(()));
        // 2 and 3 were full and are forgotten; 1 was not.
        assert_eq!(at(1, 1_500), Ok(()));
        assert!(at(1, 1_500).is_err());
        let buckets = limiter.buckets.lock().unwrap();
        assert_eq!(
            buckets.full_at.keys().collect::<BTreeSet<_>>(),
            BTreeSet::from([&1, &4])
        );
    }

    #[test]
    fn many_keys_that_come_and_go_are_not_kept() {
        let (limiter, start) = (limiter(1_000, 1), start());
        for key in 0..100_000 {
            let now = start + Duration::from_millis(2) * key;
            assert!(limiter.take(&key, now).is_ok());
            let kept = limiter.buckets.lock().unwrap().full_at.len();
            assert!(kept <= MIN_SWEEP_KEYS, "{kept}");
        }
    }

    proptest! {
        #[test]
        fn no_more_is_granted_than_burst_and_rate_allow(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            gaps in prop::collection::vec(0_u64..30_000, 1..400),
        ) {
            let (limiter, start) = (limiter(per_second, burst), start());
            let mut grants: Vec<Duration> = Vec::new();
            let mut time = Duration::ZERO;
            for gap in gaps {
                time += Duration::from_micros(gap);
                if limiter.take(&1, start + time).is_ok() {
                    grants.push(time);
                }
            }
            // Over every stretch of time, not only from the start.
            for (first, from) in grants.iter().enumerate() {
                for (last, to) in grants.iter().enumerate().skip(first) {
                    let time = to.saturating_sub(*from).as_nanos();
                    let allowed =
                        u128::from(burst) + time * u128::from(per_second) / 1_000_000_000;
                    prop_assert!((last - first + 1) as u128 <= allowed);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_is_granted(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            tries in 1_usize..100,
        ) {
            let (limiter, mut now) = (limiter(per_second, burst), start());
            for _ in 0..tries {
                if let Err(wait) = limiter.take(&1, now) {
                    now += wait;
                    prop_assert_eq!(limiter.take(&1, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn slots_are_counted_by_key_and_given_back() {
        let slots = Slots::new(2);
        let one = slots.acquire(&"alice").unwrap();
        let two = slots.clone().acquire(&"alice").unwrap();
        assert!(slots.acquire(&"alice").is_none());
        assert!(slots.acquire(&"bob").is_some());
        drop(one);
        assert_eq!(slots.taken(&"alice"), 1);
        let again = slots.acquire(&"alice").unwrap();
        drop((two, again));
        assert!(slots.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn without_slots_nobody_gets_one() {
        assert!(Slots::new(0).acquire(&1).is_none());
    }
}
