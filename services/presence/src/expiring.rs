//! A map that forgets: after a time, and the oldest first when it is full.
//!
//! Time is monotonic, so that a step of the wall clock forgets nothing early.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Values by key, each kept for the same time from when it was last put.
#[derive(Debug)]
pub(crate) struct Expiring<K, V> {
    kept: Duration,
    max: usize,
    puts: u64,
    values: BTreeMap<K, (u64, V)>,
    /// By the put, which is also the order of expiry.
    expiries: BTreeMap<u64, (Instant, K)>,
}

impl<K: Ord + Clone, V> Expiring<K, V> {
    pub(crate) fn new(kept: Duration, max: usize) -> Self {
        Self {
            kept,
            max,
            puts: 0,
            values: BTreeMap::new(),
            expiries: BTreeMap::new(),
        }
    }

    /// The value, unless its time is over.
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let (put, value) = self.values.get(key)?;
        let (expiry, _) = self.expiries.get(put)?;
        (now < *expiry).then_some(value)
    }

    /// Puts a value, and purges what is over or too much.
    pub(crate) fn put(&mut self, key: K, value: V, now: Instant) {
        self.remove(&key);
        self.puts += 1;
        self.expiries
            .insert(self.puts, (now + self.kept, key.clone()));
        self.values.insert(key, (self.puts, value));
        self.purge(now);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some((put, _)) = self.values.remove(key) {
            self.expiries.remove(&put);
        }
    }

    fn purge(&mut self, now: Instant) {
        while let Some(oldest) = self.expiries.first_entry() {
            if self.values.len() <= self.max && now < oldest.get().0 {
                return;
            }
            let (_, key) = oldest.remove();
            self.values.remove(&key);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.values.len(), self.expiries.len());
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_value_is_kept_for_its_time_from_its_last_put_and_no_longer() {
        let start = Instant::now();
        let mut map = Expiring::new(KEPT, 10);
        map.put("a", 1, start);
        map.put("a", 2, start + KEPT / 2);
        assert_eq!(map.get(&"a", start + KEPT), Some(&2));
        assert_eq!(map.get(&"a", start + KEPT / 2 + KEPT), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_freed_when_the_time_is_over() {
        let start = Instant::now();
        let mut map = Expiring::new(KEPT, 10);
        map.put("a", 1, start);
        map.put("b", 1, start);
        map.put("c", 1, start + KEPT);
        assert_eq!(map.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_map_forgets_the_oldest_and_repeated_puts_of_one_key_push_out_none() {
        let start = Instant::now();
        let mut map = Expiring::new(KEPT, 2);
        map.put("a", 1, start);
        for value in 0..100 {
            map.put("b", value, start);
        }
        assert_eq!((map.get(&"a", start), map.len()), (Some(&1), 2));
        map.put("c", 1, start);
        assert_eq!((map.get(&"a", start), map.len()), (None, 2));
        assert_eq!(map.get(&"b", start), Some(&99));
    }
}
