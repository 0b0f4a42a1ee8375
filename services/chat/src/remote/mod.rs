//! Chat's ports over the wire: history and presence in other processes.
//!
//! They promise what the same ports promise within one process. It must not decide
//! which of a service's addresses are up: that is the business of whoever makes the
//! connections.

mod append;
mod history;
mod presence;

pub use self::append::{
    MAX_PENDING_KIB, OPEN_TIMEOUT, QUEUE_RUNS, REPLICA_REST, REQUEST_BYTES, REQUEST_RUNS,
    RUN_TIMEOUT, SWEEP,
};
pub use self::history::RemoteHistory;
pub use self::presence::{HOME_STAY, MAX_CHANGES, MAX_HOME_FAILURES, RemotePresence, TRY_TIMEOUT};

use std::time::Duration;

use duologue_proto::wire::InvalidField;
use duologue_runtime::backoff::full_jitter;
use duologue_runtime::clock::{Random, RandomExt as _};
use tonic::{Request, Status};

/// How long one question to another service may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause before a stream that broke is opened again for the first time;
/// it doubles with every failure.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause there is.
pub const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The way to one replica, over whichever connection there is to it.
pub type Connection = duologue_runtime::upstream::UpstreamChannel;

/// One replica of a service.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its address or name: the same for every chat node, so that they choose alike.
    pub name: String,
    /// The way to it.
    pub connection: Connection,
}

/// Before a stream is opened again.
fn pause(failures: u32, random: &dyn Random) -> Duration {
    full_jitter(random.number(), FIRST_PAUSE, MAX_PAUSE, failures)
}

/// A call that ends within [`CALL_TIMEOUT`] on both sides.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// What another service answered breaks its contract: the answer is as good as none.
fn garbled(service: &'static str, fault: &InvalidField) -> Status {
    tracing::error!(service, fault.field, fault.rule, "an answer is garbled");
    Status::internal("an answer is garbled")
}

#[cfg(test)]
mod tests;
