//! DynamoDB's clock, learned from the `Date` of its answers.
//!
//! Several writers that must agree on the time, give or take a little, compare
//! theirs with this one. It asks for nothing itself: every answer tells the time, and
//! between answers the monotonic clock goes on from there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use duologue_proto::ids::UnixMillis;
use tokio::time::Instant;

/// A `Date` is cut to seconds.
const DATE_STEP: Duration = Duration::from_secs(1);
/// An answer that took longer says too little about the time.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);

/// DynamoDB's clock.
#[derive(Debug, Default)]
pub struct ServerTime {
    seen: Mutex<Option<Seen>>,
    #[cfg(feature = "testing")]
    told: std::sync::OnceLock<duologue_runtime::clock::ManualClock>,
}

/// Between which times DynamoDB's clock stood at a moment of ours.
#[derive(Debug, Clone, Copy)]
struct Seen {
    moment: Instant,
    earliest: UnixMillis,
    latest: UnixMillis,
}

impl ServerTime {
    /// By how much `time`, which is believed to be now's, is off at least: what the
    /// uncertainty of DynamoDB's time explains is not counted. None while no answer
    /// has been seen.
    pub fn least_skew(&self, time: UnixMillis) -> Option<Duration> {
        #[cfg(feature = "testing")]
        if let Some(clock) = self.told.get() {
            use duologue_runtime::clock::Clock as _;
            return Some(clock.now().since(time).max(time.since(clock.now())));
        }
        let seen = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        let gone = seen.moment.elapsed();
        let (earliest, latest) = (seen.earliest.plus(gone), seen.latest.plus(gone));
        Some(earliest.since(time).max(time.since(latest)))
    }

    /// A test says what time it is, where the DynamoDB it asks goes by the real one.
    #[cfg(feature = "testing")]
    pub fn follow(&self, clock: duologue_runtime::clock::ManualClock) {
        let _ = self.told.set(clock);
    }

    /// Takes note of an answer to what was sent at `sent`.
    fn observe(&self, sent: Instant, date: UnixMillis) {
        let now = Instant::now();
        let round_trip = now.duration_since(sent);
        if round_trip > MAX_ROUND_TRIP {
            return;
        }
        let seen = Seen {
            moment: now,
            earliest: date,
            latest: date.plus(DATE_STEP + round_trip),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

/// When a try was sent.
#[derive(Debug, Clone, Copy)]
struct SentAt(Instant);

impl Storable for SentAt {
    type Storer = StoreReplace<Self>;
}

/// Shows every answer to a [`ServerTime`].
#[derive(Debug)]
pub(crate) struct Observer(Arc<ServerTime>);

impl Observer {
    pub(crate) fn new(time: &Arc<ServerTime>) -> Self {
        Self(Arc::clone(time))
    }
}

impl Intercept for Observer {
    fn name(&self) -> &'static str {
        "ServerTime"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(SentAt(Instant::now()));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(parse);
        if let (Some(sent), Some(date)) = (config.load::<SentAt>(), date) {
            self.0.observe(sent.0, date);
        }
        Ok(())
    }
}

fn parse(date: &str) -> Option<UnixMillis> {
    let date = DateTime::from_str(date, Format::HttpDate).ok()?;
    let millis = date.to_millis().ok()?;
    u64::try_from(millis).ok().map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn a_date_is_read_as_http_writes_it() {
        assert_eq!(
            parse("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(UnixMillis(784_111_777_000))
        );
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse("Sun, 06 Nov 1904 08:49:37 GMT"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_the_uncertainty_does_not_explain_is_skew() {
        let time = ServerTime::default();
        assert_eq!(time.least_skew(NOON), None);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        time.observe(sent, NOON);
        let skew = |time: &ServerTime, at| time.least_skew(at).unwrap();
        assert_eq!(skew(&time, NOON), Duration::ZERO);
        assert_eq!(
            skew(&time, NOON.plus(Duration::from_secs(3))),
            Duration::ZERO
        );
        let ahead = NOON.plus(Duration::from_secs(13));
        assert_eq!(skew(&time, ahead), Duration::from_secs(10));
        let behind = NOON.minus(Duration::from_secs(7));
        assert_eq!(skew(&time, behind), Duration::from_secs(7));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(skew(&time, ahead), Duration::ZERO);
        assert_eq!(skew(&time, behind), Duration::from_secs(17));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_long_tells_no_time() {
        let time = ServerTime::default();
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(6)).await;
        time.observe(sent, NOON);
        assert_eq!(time.least_skew(NOON), None);
    }
}
