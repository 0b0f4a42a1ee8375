//! Many users with several devices, over real sockets, who do what clients and
//! networks do. A seed decides what they do; timing is the machine's. A simulation
//! passes other [`Surroundings`], and then everything is the seed's.
//!
//! [`run`] is against loopback only. A run has a given time, and ends by itself.

mod app;
mod behaviour;
mod calls;
mod client;
mod client_events;
mod client_start;
mod device;
mod finish;
mod hello;
mod link;
mod live;
mod memory;
mod node;
mod rng;
mod sends;
mod stream;
mod surroundings;
mod way;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

pub use self::behaviour::{Behaviour, Counts};
use self::behaviour::{OF_CLIENT, OF_CONVERSE, OF_STUBS};
use self::client::Actor;
use self::device::Device;
pub use self::surroundings::{Dial, Dialing, Io, Surroundings};
use self::way::WayIn;
use self::world::World;
use crate::event::{Event, Way};
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
    /// The TypeScript client.
    TypeScript,
}

/// What to run against a server on this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's data directory, with the development key that signs tokens.
    pub data: PathBuf,
    /// Who does what.
    pub load: Load,
}

/// Who does what, and how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the server listens; of several nodes, each connection is made to the next.
    pub addresses: Vec<SocketAddr>,
    /// The same of the gateway, which every way but the native one leads through.
    pub gateways: Vec<SocketAddr>,
    /// The ways in, at least one: each device of a user goes by the next.
    pub ways: Vec<Way>,
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
    /// Starts the TypeScript client: a program and its first arguments.
    pub program: Vec<String>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub record: Record,
    /// How often each behaviour happened.
    pub counts: Counts,
    /// How long it took, from when nobody began anything any more, until everybody had
    /// settled what they had begun and been shown what they lacked.
    pub caught_up_after: Duration,
}

/// Runs.
pub async fn run(options: Options) -> Result<Outcome> {
    run_with(options, Recorder::default()).await
}

/// Runs, and writes to a record in which the caller notes what it breaks.
pub async fn run_with(options: Options, recorder: Recorder) -> Result<Outcome> {
    let Options { data, load } = options;
    for address in load.addresses.iter().chain(&load.gateways) {
        ensure!(
            address.ip().is_loopback(),
            "{address} is not on this machine: only loopback is driven"
        );
    }
    let surroundings =
        Surroundings::of_this_machine(&data).context("no key to sign tokens with")?;
    let devices = load.devices;
    let driver = Driver::new(load, surroundings, recorder)?;
    let mut clients = JoinSet::new();
    for device in 0..devices {
        let driver = driver.clone();
        clients.spawn(async move { driver.live(device).await });
    }
    let finished = driver.finish().await;
    while let Some(ended) = clients.join_next().await {
        ended.context("clients have panicked")??;
    }
    finished
}

/// A run, in parts that may be in several runtimes, as on several machines: in each
/// [`Driver::live`], and in one of them [`Driver::finish`], all begun at once.
#[derive(Clone)]
pub struct Driver {
    world: World,
    load: Load,
}

impl Driver {
    /// A run that begins now, and writes to this record.
    pub fn new(load: Load, surroundings: Surroundings, recorder: Recorder) -> Result<Self> {
        ensure!(
            (2..=MAX_USERS).contains(&load.users) && (2..=MAX_DEVICES).contains(&load.devices),
            "2 to {MAX_USERS} users with 2 to {MAX_DEVICES} devices each are allowed"
        );
        ensure!(
            load.wild <= MAX_WILD,
            "at most {} seconds are allowed",
            MAX_WILD.as_secs()
        );
        ensure!(!load.ways.is_empty(), "no way is given");
        let (required, mode) = match load.kind {
            Kind::Stubs => (OF_STUBS, "stubs"),
            Kind::Client => (OF_CLIENT, "client"),
            Kind::TypeScript => (OF_CLIENT, "typescript"),
        };
        for way in &load.ways {
            let exists = match load.kind {
                Kind::Stubs => true,
                Kind::Client => *way == Way::Native,
                Kind::TypeScript => matches!(way, Way::GrpcWeb | Way::WebSocket),
            };
            ensure!(exists, "{mode} does not come by {}", way.name());
        }
        ensure!(
            load.kind != Kind::TypeScript || !load.program.is_empty(),
            "no program is given for the TypeScript client"
        );
        let ways = WayIn::all(&load.ways, (&load.addresses, &load.gateways))?;
        let converses = load.kind != Kind::Stubs || load.ways.iter().any(|way| way.has_converse());
        let required = required
            .iter()
            .filter(|behaviour| converses || !OF_CONVERSE.contains(behaviour));
        let counts = Counts::requiring(required);
        let world = World::new(&load, ways, surroundings, recorder, counts);
        world.note(Event::Begin {
            seed: load.seed,
            mode: mode_by(mode, &load.ways),
        });
        Ok(Self { world, load })
    }

    /// This device of every user lives until the run is over.
    pub async fn live(&self, device: usize) -> Result<()> {
        let world = self.world.begun_here(self.load.wild);
        let mut clients = JoinSet::new();
        for user in 0..self.load.users {
            match self.load.kind {
                Kind::Stubs => {
                    let device = Device::new(world.clone(), user, device).run();
                    clients.spawn(async {
                        device.await;
                        Ok(())
                    });
                }
                Kind::Client | Kind::TypeScript => {
                    let program = (self.load.kind == Kind::TypeScript)
                        .then(|| self.load.program.clone().into());
                    let actor = Actor::new(world.clone(), (user, device), program)?;
                    clients.spawn(actor.run());
                }
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended.context("a client has panicked")??;
        }
        Ok(())
    }

    /// Waits until everybody has done what they like, and ends the run.
    pub async fn finish(&self) -> Result<Outcome> {
        let world = self.world.begun_here(self.load.wild);
        tokio::time::sleep_until(world.end).await;
        let clients = self.load.users * self.load.devices;
        let finished = finish::finish(&world, clients).await;
        world.enter(world::Stage::Over);
        let (record, caught_up_after) = finished?;
        Ok(Outcome {
            record,
            counts: world.counts.clone(),
            caught_up_after,
        })
    }
}

/// Which clients by which ways, as it stands in the record.
fn mode_by(mode: &str, ways: &[Way]) -> String {
    if ways == [Way::Native] {
        return mode.to_owned();
    }
    let names: Vec<&str> = ways.iter().map(|way| way.name()).collect();
    format!("{mode} by {}", names.join(", "))
}
