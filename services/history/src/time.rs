//! History's time, and the windows and deadlines that are measured in it.
//!
//! History's time is the larger of the clock, the highest reading that is
//! stored, and every reading given out before by this process: it stands still
//! while the clock steps back, also over a restart. It must not be used for
//! intervals of a process; those are `tokio::time`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::Clock;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::committer::rules::MAX_READING_AGE;
use crate::store::{Store, StoreError, Window};

/// Neither is a put sent, nor a message answered as stored, later than this
/// after the reading that its rows come from.
pub const APPEND_DEADLINE: Duration = MAX_READING_AGE;
/// How far before its v a sync token still covers: the append deadline, how
/// long a signed request may arrive late (5 min), and twice the skew of the
/// replicas' clocks, rounded up.
pub const SYNC_SLACK: Duration = Duration::from_mins(7);
/// How far the v of a sync may be ahead of the highest stored reading.
pub const READING_LAG: Duration = Duration::from_mins(1);

/// A reading of history's time, with what tells its age even if the clock steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) at: UnixMillis,
    taken: Instant,
}

impl Reading {
    pub(crate) fn window(&self) -> Window {
        Window::of(self.at)
    }
}

/// History's time.
pub(crate) struct Time {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    given: AtomicU64,
    /// Lets one caller at a time store a reading; the others find it stored.
    storing: Semaphore,
}

impl Time {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            given: AtomicU64::new(0),
            storing: Semaphore::new(1),
        }
    }

    /// The time now, which nobody has judged; never before a reading given out earlier.
    pub(crate) fn now(&self) -> UnixMillis {
        let now = self.clock.now().max(self.store.highest_reading());
        now.max(UnixMillis(self.given.load(Ordering::SeqCst)))
    }

    /// The time now, to be judged later by [`Time::is_old`]; refused if it is not that
    /// of the other replicas.
    pub(crate) async fn reading(&self) -> Result<Reading, StoreError> {
        let taken = Instant::now();
        let at = self.judged().await?;
        Ok(Reading { at, taken })
    }

    /// Only what was found good is given out, and stays: a clock that was wrong once
    /// would else be wrong for ever.
    async fn judged(&self) -> Result<UnixMillis, StoreError> {
        let now = self.now();
        self.store.check_time(now).await?;
        let given = self.given.fetch_max(now.0, Ordering::SeqCst);
        Ok(now.max(UnixMillis(given)))
    }

    /// Whether the store can be reached, and the time is that of the other replicas.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe(self.now()).await
    }

    /// Whether the append deadline of a reading has passed, on history's clock
    /// or on the monotonic one: the first stands while the clock is set back,
    /// the second while the machine sleeps. Where both stood still, the clock no longer
    /// agrees with that of the others.
    pub(crate) fn is_old(&self, reading: &Reading) -> bool {
        let age = self.now().since(reading.at).max(reading.taken.elapsed());
        age > APPEND_DEADLINE || !self.store.agrees(self.clock.now())
    }

    /// The time now, for the v of a sync: it cannot lie more than
    /// [`READING_LAG`] ahead of history's time after a restart. Where the store
    /// takes no writes any longer, it is the latest time of which that is true: an
    /// earlier v only lists more, and reads go on. Refused if it is not that of the other
    /// replicas.
    pub(crate) async fn durable_now(&self) -> Result<UnixMillis, StoreError> {
        let now = self.judged().await?;
        if !self.is_covered(now) {
            // The semaphore is never closed; without a permit the reading would
            // only be stored twice.
            let _permit = self.storing.acquire().await.ok();
            if !self.is_covered(now)
                && let Err(error) = self.store.store_reading(now).await
            {
                tracing::debug!(%error, "a sync goes on from an earlier time");
            }
        }
        Ok(now.min(self.store.highest_reading().plus(READING_LAG)))
    }

    fn is_covered(&self, now: UnixMillis) -> bool {
        self.store.highest_reading().plus(READING_LAG) >= now
    }
}
