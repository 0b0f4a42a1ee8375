//! The whole of Duologue in one process and in virtual time (design §11): the same
//! chat, history and presence code, over turmoil's network and a disk that loses
//! what was not synced. One seed decides everything, and the same seed decides the
//! same again.
//!
//! - [`run`]: one seed, from the first connection to the last reading.
//! - The load is that of [`conformance::driver`], and its checker judges the record.
//! - [`Fault`]: what breaks, how often, and what it met.
//!
//! It holds no rule of a service. What it puts around them is delay and failure.

mod clock;
mod dice;
mod disk;
mod faults;
mod network;
mod node;
mod presence;
mod schedule;
mod sim;
mod store;
mod tally;

use std::time::Duration;

use conformance::record::Record;

pub use self::faults::Fault;
pub use self::sim::run;
pub use self::tally::{Count, Tally};

/// What a simulation is made of. A seed decides the rest.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many users.
    pub users: usize,
    /// Devices of each: each number is a machine of its own, so that the network
    /// breaks for one device of every user.
    pub devices: usize,
    /// How long, in virtual time, clients do what they like and things break.
    pub wild: Duration,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// How long a sync of the disk takes: from and to, in milliseconds.
    pub sync_millis: (u64, u64),
    /// How long a segment is on its way at most, in milliseconds: a seed chooses one
    /// of these.
    pub latency_millis: Vec<u64>,
    /// How long a read of the store or a call of presence takes at most, in
    /// milliseconds, half of it before and half of it after.
    pub call_millis: u64,
    /// How many messages a second a user may send; a second's worth at once.
    pub sends_per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 3,
            devices: 3,
            wild: Duration::from_secs(20),
            faults: Fault::ALL.to_vec(),
            sync_millis: (1, 15),
            latency_millis: vec![5, 30, 90],
            call_millis: 8,
            sends_per_second: 10_000,
        }
    }
}

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, for [`conformance::check`].
    pub record: Record,
    /// How much of everything happened.
    pub tally: Tally,
}
