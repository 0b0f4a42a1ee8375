//! One simulation: the server's machine, the machines of clients, and what breaks
//! between and under them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use conformance::driver::{self, Driver, Kind, Load, Surroundings};
use conformance::event::{Event, Way};
use conformance::record::Recorder;
use duologue_proto::ids::UnixMillis;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SeededRandom;
use turmoil::Sim;

use crate::clock::SimulatedClock;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::faults::Fault;
use crate::network::{PORT, SEGMENTS, Sockets, dial};
use crate::node::Machine;
use crate::schedule::{Act, Due, Strike, schedule};
use crate::tally::Tally;
use crate::{Options, Outcome};

/// How finely the network and the machines take turns.
const TICK: Duration = Duration::from_millis(5);
/// How long clients have after they came to rest: more than they ever need.
const AFTERMATH: Duration = Duration::from_mins(5);
/// About when it begins; a seed chooses where in a window of ten minutes.
const START: u64 = 1_800_000_000_000;
const START_MILLIS: (u64, u64) = (0, 600_000);
const SERVER: &str = "server";

/// Runs one seed, wholly on this thread. An error says that the run shows nothing.
pub fn run(seed: u64, options: &Options) -> Result<Outcome> {
    let dice = Dice::new(seed, "simulation");
    let latency = dice.pick(&options.latency_millis).unwrap_or_default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(options.wild + AFTERMATH)
        .max_message_latency(Duration::from_millis(latency))
        .tcp_capacity(SEGMENTS)
        .enable_random_order()
        .build();
    let start = UnixMillis(START + dice.between(START_MILLIS));
    let key = DevKey::ephemeral(&SeededRandom::new(seed));
    let machine = Machine {
        seed,
        disk: Disk::new(seed, options.sync_millis),
        clock: SimulatedClock::from(start),
        key: key.verifier_key(),
        call_millis: options.call_millis,
        sends_per_second: options.sends_per_second,
        starts: Arc::default(),
        sockets: Sockets::default(),
        unplug: Arc::default(),
    };
    let started = machine.clone();
    sim.host(SERVER, move || started.clone().run());
    let recorder = Recorder::default();
    let load = Load {
        addresses: vec![SocketAddr::new(sim.lookup(SERVER), PORT)],
        gateways: Vec::new(),
        ways: vec![Way::Native],
        users: options.users,
        devices: options.devices,
        wild: options.wild,
        seed,
        kind: Kind::Stubs,
        program: Vec::new(),
    };
    let surroundings = Surroundings {
        dial: Arc::new(|address| Box::pin(dial(address))),
        // Clients and who signs their tokens have the right time.
        clock: Arc::new(SimulatedClock::from(start)),
        key,
    };
    let driver = Driver::new(load, surroundings, recorder.clone())?;
    let ended = clients(&mut sim, &driver, options.devices);
    let mut simulation = Simulation {
        sim,
        machine,
        recorder,
        latency: Duration::from_millis(latency),
    };
    simulation.run(schedule(seed, options))?;
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    let ended = ended.context("nobody has ended the run")?;
    Ok(simulation.outcome(ended))
}

type Ended = Arc<Mutex<Option<driver::Outcome>>>;

/// A machine for each number of device; the first ends the run.
fn clients(sim: &mut Sim<'_>, driver: &Driver, devices: usize) -> Ended {
    let ended = Ended::default();
    for device in 0..devices {
        let (driver, ended) = (driver.clone(), Arc::clone(&ended));
        sim.client(name(device), async move {
            if device > 0 {
                return Ok(driver.live(device).await?);
            }
            let (lived, outcome) =
                futures_util::future::join(driver.live(device), driver.finish()).await;
            lived?;
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome?);
            Ok(())
        });
    }
    ended
}

fn name(device: usize) -> String {
    format!("device-{device}")
}

struct Simulation<'a> {
    sim: Sim<'a>,
    machine: Machine,
    recorder: Recorder,
    latency: Duration,
}

impl Simulation<'_> {
    fn run(&mut self, schedule: Vec<Due>) -> Result<()> {
        let mut schedule = schedule.into_iter().peekable();
        loop {
            while let Some(due) = schedule.next_if(|due| due.at <= self.sim.elapsed()) {
                self.perform(due.act)?;
            }
            if self.step()? {
                return Ok(());
            }
        }
    }

    /// True if it is over.
    fn step(&mut self) -> Result<bool> {
        self.sim.step().map_err(|error| anyhow!("{error}"))
    }

    fn perform(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Strike(strike) => {
                let what = strike.fault.name().to_owned();
                self.recorder.note(Event::Kill { what });
                self.strike(&strike)?;
            }
            Act::End => self.crash()?,
            Act::Start => {
                self.recorder.note(Event::Heal);
                self.sim.bounce(SERVER);
            }
            Act::Mend { device, fault } => {
                self.recorder.note(Event::Heal);
                self.mend(device, fault);
            }
        }
        Ok(())
    }

    fn strike(&mut self, strike: &Strike) -> Result<()> {
        let clients = name(strike.device);
        let step = i64::try_from(strike.by.as_millis()).unwrap_or_default();
        match strike.fault {
            Fault::Crash => self.crash()?,
            Fault::FailedSync => self.machine.disk.fail(),
            Fault::StalledSync => self.machine.disk.stall(strike.by),
            Fault::ClockForward => self.machine.clock.step(step),
            Fault::ClockBack => self.machine.clock.step(-step),
            Fault::Partition => self.sim.partition(clients, SERVER),
            Fault::LostUp => self.sim.partition_oneway(clients, SERVER),
            Fault::LostDown => self.sim.partition_oneway(SERVER, clients),
            Fault::Hold => self.sim.hold(clients, SERVER),
            Fault::SlowLink => self
                .sim
                .set_link_max_message_latency(clients, SERVER, strike.by),
        }
        Ok(())
    }

    fn mend(&mut self, device: usize, fault: Fault) {
        let clients = name(device);
        match fault {
            Fault::Hold => self.sim.release(clients, SERVER),
            Fault::SlowLink => {
                self.sim
                    .set_link_max_message_latency(clients, SERVER, self.latency);
            }
            Fault::Partition | Fault::LostUp | Fault::LostDown => {
                self.sim.repair(clients, SERVER);
            }
            Fault::Crash
            | Fault::FailedSync
            | Fault::StalledSync
            | Fault::ClockForward
            | Fault::ClockBack => {}
        }
    }

    fn crash(&mut self) -> Result<()> {
        self.machine.unplug.notify_one();
        self.step()?;
        self.sim.crash(SERVER);
        self.machine.disk.crash();
        Ok(())
    }

    fn outcome(self, ended: driver::Outcome) -> Outcome {
        let mut tally = Tally::of(&ended.record, ended.counts.all());
        (tally.syncs, tally.lost_groups) = self.machine.disk.history();
        tally.millis = self.sim.elapsed().as_millis();
        Outcome {
            record: ended.record,
            tally,
        }
    }
}
