//! Many users with several devices, over real sockets, who do what clients and
//! networks do. A seed decides what they do; timing is the machine's.
//!
//! It runs against loopback only, for a given time, and ends by itself.

mod behaviour;
mod calls;
mod client;
mod client_events;
mod device;
mod finish;
mod hello;
mod link;
mod live;
mod memory;
mod rng;
mod sends;
mod stream;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use duologue_runtime::auth::DevKey;
use tokio::task::JoinSet;

pub use self::behaviour::{Behaviour, Counts};
use self::behaviour::{OF_CLIENT, OF_STUBS};
use self::client::Actor;
use self::device::Device;
use self::world::World;
use crate::event::Event;
use crate::record::{Record, Recorder};

/// Users at most.
pub const MAX_USERS: usize = 100;
/// Devices of one user at most; the server allows 32 streams, some stay open behind.
pub const MAX_DEVICES: usize = 8;

/// How long clients may do what they like: a record is kept in memory.
pub const MAX_WILD: Duration = Duration::from_hours(1);

/// Which clients do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The generated stubs.
    Stubs,
    /// The Rust client.
    Client,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server listens; loopback only.
    pub address: SocketAddr,
    /// The server's data directory, with the development key that signs tokens.
    pub data: PathBuf,
    /// How many users, 2 to [`MAX_USERS`].
    pub users: usize,
    /// Devices of each, 2 to [`MAX_DEVICES`].
    pub devices: usize,
    /// How long they do what they like, at most [`MAX_WILD`]; then follows about a
    /// minute at most.
    pub wild: Duration,
    /// Decides what they do.
    pub seed: u64,
    /// Which clients.
    pub kind: Kind,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub record: Record,
    /// How often each behaviour happened.
    pub counts: Counts,
}

/// Runs.
pub async fn run(options: Options) -> Result<Outcome> {
    run_with(options, Recorder::default()).await
}

/// Runs, and writes to a record in which the caller notes what it breaks.
pub async fn run_with(options: Options, recorder: Recorder) -> Result<Outcome> {
    ensure!(
        options.address.ip().is_loopback(),
        "{} is not on this machine: only loopback is driven",
        options.address
    );
    ensure!(
        (2..=MAX_USERS).contains(&options.users) && (2..=MAX_DEVICES).contains(&options.devices),
        "2 to {MAX_USERS} users with 2 to {MAX_DEVICES} devices each are allowed"
    );
    ensure!(
        options.wild <= MAX_WILD,
        "at most {} seconds are allowed",
        MAX_WILD.as_secs()
    );
    let key = DevKey::load_or_create(&options.data).context("no key to sign tokens with")?;
    let (required, mode) = match options.kind {
        Kind::Stubs => (OF_STUBS, "stubs"),
        Kind::Client => (OF_CLIENT, "client"),
    };
    let counts = Counts::requiring(required);
    let world = World::new(
        options.address,
        key,
        (recorder, counts.clone()),
        (options.users, options.seed),
        options.wild,
    );
    world.note(Event::Begin {
        seed: options.seed,
        mode: mode.into(),
    });
    let mut clients = JoinSet::new();
    for user in 0..options.users {
        for device in 0..options.devices {
            match options.kind {
                Kind::Stubs => {
                    let device = Device::new(world.clone(), user, device).run();
                    clients.spawn(async {
                        device.await;
                        Ok(())
                    });
                }
                Kind::Client => {
                    clients.spawn(Actor::new(world.clone(), user, device)?.run());
                }
            }
        }
    }
    let count = clients.len();
    tokio::time::sleep_until(world.end).await;
    let finished = finish::finish(&world, count).await;
    world.enter(world::Stage::Over);
    let record = finished?;
    while let Some(ended) = clients.join_next().await {
        ended.context("a client has panicked")??;
    }
    Ok(Outcome { record, counts })
}
