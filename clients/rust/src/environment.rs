//! Time and randomness, passed in, so that tests and simulations choose them.
//! Intervals are `tokio::time`, which tests pause.

use duologue_proto::ids::{DeviceId, InvalidId, MessageId, UnixMillis};

/// The wall clock and a source of randomness.
pub trait Environment: Send + Sync + 'static {
    /// Milliseconds since 1970. It may step either way.
    fn now(&self) -> UnixMillis;

    /// Fills `bytes` with randomness fit for ids.
    fn fill(&self, bytes: &mut [u8]);
}

/// The system's clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> UnixMillis {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness ids would collide: there is no way to go on, and the
        // system documents that it does not happen.
        getrandom::fill(bytes).expect("the system has a source of randomness");
    }
}

pub(crate) fn random_number(environment: &dyn Environment) -> u64 {
    let mut bytes = [0; 8];
    environment.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A `UUIDv7`: the time, then randomness.
pub(crate) fn message_id(environment: &dyn Environment) -> Result<MessageId, InvalidId> {
    let mut bytes = [0; 10];
    environment.fill(&mut bytes);
    let uuid = uuid::Builder::from_unix_timestamp_millis(environment.now().0, &bytes).into_uuid();
    MessageId::parse(&uuid.hyphenated().to_string())
}

/// A random `UUIDv4`.
pub(crate) fn device_id(environment: &dyn Environment) -> Result<DeviceId, InvalidId> {
    let mut bytes = [0; 16];
    environment.fill(&mut bytes);
    let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
    DeviceId::parse(&uuid.hyphenated().to_string())
}
