//! `bench cluster`: pairs whose users are on different chat nodes, beside the same
//! pairs on one node of the same processes, and in the one process.
//!
//! All server processes share the first core: what is compared is what a message costs
//! all of them together.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use duologue_runtime::auth::DevKey;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::driver::{self, Load, To, Users, When};
use crate::machine::{self, per_second};
use crate::options::{Repeats, Subject};
use crate::probe::{Probe, Reading, Use, times_of};
use crate::say;
use crate::server::{Door, FLAGS, Kind, Place, Running, Server};
use crate::throughput::{Row, TEXT_BYTES, Times, millis};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    rounds: Repeats,
    /// The loads: pairs and window
    #[arg(
        long,
        value_name = "LOAD",
        value_delimiter = ',',
        default_value = "100x1,100x16"
    )]
    rows: Vec<Row>,
}

/// Where the users of a pair are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In the one process.
    OneProcess,
    /// On one chat node of the split system.
    OneNode,
    /// Each on another chat node.
    TwoNodes,
}

const WAYS: [Way; 3] = [Way::OneProcess, Way::OneNode, Way::TwoNodes];

/// The processes of a system, which end when this is dropped.
struct System {
    /// With their names.
    processes: Vec<(&'static str, u32)>,
    /// Where the users enter.
    addresses: Vec<SocketAddr>,
    door: Door,
    data: PathBuf,
    _running: Parts,
}

enum Parts {
    One {
        _server: Server,
    },
    Split {
        _running: Vec<Running>,
        _data: TempDir,
    },
}

impl System {
    fn start(way: Way, place: &Place) -> Result<Self> {
        if way == Way::OneProcess {
            let server = Server::start(Kind::Duologue, place)?;
            return Ok(Self {
                processes: vec![("duologue", server.process())],
                addresses: vec![server.address],
                door: server.door()?,
                data: server.data().to_owned(),
                _running: Parts::One { _server: server },
            });
        }
        let data = TempDir::new_in(&place.folder)?;
        let key = DevKey::load_or_create(data.path())?;
        let keys = data.path().join("keys.json");
        fs::write(&keys, key.public_jwks())?;
        let mut running = Vec::new();
        let mut processes = Vec::new();
        let mut begin = |name: &'static str, arguments: Vec<String>, says| {
            let program = place.program.with_file_name(program(name));
            let (process, address) = Running::run(place, &program, arguments, says)?;
            processes.push((name, process.process()));
            running.push(process);
            anyhow::Ok(address)
        };
        let inner = || INNER.map(str::to_owned).to_vec();
        let mut history = inner();
        history.push(format!("--data={}", data.path().display()));
        let history = begin("history", history, "internal")?;
        let presence = begin("presence", inner(), "internal")?;
        let mut addresses = Vec::new();
        for node in ["chat-1", "chat-2"] {
            let mut chat = FLAGS.map(str::to_owned).to_vec();
            chat.extend([
                "--internal-listen=127.0.0.1:0".to_owned(),
                format!("--node={node}"),
                format!("--history=http://{history}"),
                format!("--presence=http://{presence}"),
                format!("--jwt-public-key={}", keys.display()),
            ]);
            addresses.push(begin(node, chat, "gRPC")?);
        }
        if way == Way::OneNode {
            addresses.truncate(1);
        }
        Ok(Self {
            processes,
            addresses,
            door: Door::Key(key),
            data: data.path().to_owned(),
            _running: Parts::Split {
                _running: running,
                _data: data,
            },
        })
    }

    fn read(&self, core: usize) -> Result<Moment> {
        let probe = Probe {
            servers: self.processes.iter().map(|(_, process)| *process).collect(),
            core,
            device: machine::device_of(&self.data)?,
        };
        let times = self.processes.iter().map(|(_, it)| times_of(*it));
        Ok(Moment {
            reading: probe.read()?,
            times: times.collect::<Result<_>>()?,
            loopback: loopback()?,
        })
    }
}

/// Of the programs that only services call.
const INNER: [&str; 4] = [
    "--internal-listen=127.0.0.1:0",
    "--admin-listen=127.0.0.1:0",
    "--log",
    "warn",
];

fn program(name: &str) -> String {
    format!("duologue-{}", name.split('-').next().unwrap_or(name))
}

/// What is read at both ends of what is measured.
struct Moment {
    reading: Reading,
    times: Vec<[Duration; 2]>,
    loopback: [u64; 2],
}

/// Packets and bytes that went over loopback so far.
fn loopback() -> Result<[u64; 2]> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"))
        .context("there is no loopback")?;
    let fields: Vec<&str> = line.split_whitespace().take(2).collect();
    let [bytes, packets] = fields[..] else {
        anyhow::bail!("unreadable /proc/net/dev");
    };
    Ok([packets.parse()?, bytes.parse()?])
}

/// What one round came to.
#[derive(Clone)]
struct Outcome {
    rate: f64,
    /// Milliseconds: p50 and p99 of acknowledgement, then of delivery.
    latency: [f64; 4],
    /// Microseconds of CPU per message: of each process, as user and in the kernel.
    cpu: Vec<(&'static str, [f64; 2])>,
    /// Packets and bytes per message over loopback, the driver's among them.
    loopback: [f64; 2],
    used: Use,
}

impl Outcome {
    fn cpu(&self) -> f64 {
        self.cpu
            .iter()
            .map(|(_, [user, kernel])| user + kernel)
            .sum()
    }

    /// What the kernel has done for those that write to no disk: sockets.
    fn sockets(&self) -> f64 {
        let diskless = self.cpu.iter();
        let diskless = diskless.filter(|(name, _)| !matches!(*name, "duologue" | "history"));
        diskless.map(|(_, [_, kernel])| kernel).sum()
    }
}

async fn measure(way: Way, row: Row, times: Times, place: &Place) -> Result<Outcome> {
    let system = System::start(way, place)?;
    let members = system.door.members(driver::pairs("user", 2 * row.pairs))?;
    let users = Users {
        addresses: &system.addresses,
        members: &members,
        per_connection: driver::per_connection(members.len()),
        text_bytes: TEXT_BYTES,
        messages: u64::MAX,
        to: To::Peers,
    };
    let mut load = Load::start(&users, When::Window(row.window)).await?;
    let moments = RefCell::new(Vec::with_capacity(2));
    let read = || {
        moments.borrow_mut().push(system.read(place.core)?);
        Ok(())
    };
    let measured = load.measure(times.warm, times.measured, read).await?;
    load.finish().await?;
    let moments = moments.borrow();
    let [from, to] = &moments[..] else {
        anyhow::bail!("nothing was read");
    };
    let messages = measured.counts.stored.min(measured.counts.delivered);
    ensure!(messages > 0, "nothing was delivered");
    let each = |time: Duration| 1e6 / per_second(messages, time);
    let spent = from.times.iter().zip(&to.times);
    let spent =
        spent.map(|(from, to)| std::array::from_fn(|at| each(to[at].saturating_sub(from[at]))));
    let names = system.processes.iter().map(|(name, _)| *name);
    let latency = |share| {
        let times = [&measured.to_stored, &measured.to_delivered];
        times.map(|times| millis(times.quantile(share)))
    };
    let ([stored, delivered], [stored99, delivered99]) = (latency(0.5), latency(0.99));
    Ok(Outcome {
        rate: per_second(messages, measured.time),
        latency: [stored, stored99, delivered, delivered99],
        cpu: names.zip(spent).collect(),
        loopback: std::array::from_fn(|at| share(to.loopback[at] - from.loopback[at], messages)),
        used: from.reading.until(&to.reading),
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

/// Measures and prints. The ways take turns within each round, so that what changes on
/// the machine meanwhile strikes all.
pub(crate) fn run(runtime: &Runtime, options: &Options) -> Result<()> {
    let (_folder, place) = options.subject.place()?;
    let times = options.rounds.times();
    for row in &options.rows {
        let mut rounds = WAYS.map(|_| Vec::new());
        for round in 1..=options.rounds.count() {
            for (way, rounds) in WAYS.into_iter().zip(&mut rounds) {
                let outcome = LocalSet::new()
                    .block_on(runtime, measure(way, *row, times, &place))
                    .with_context(|| format!("{way:?} failed at {row}"))?;
                say(&format!(
                    "round {round} {row} {way:?}: {:.0} messages/s, {:.1} µs of CPU each",
                    outcome.rate,
                    outcome.cpu()
                ));
                rounds.push(outcome);
            }
        }
        print(*row, &rounds.map(median));
    }
    Ok(())
}

/// The round with the median cost: its numbers belong together.
fn median(mut rounds: Vec<Outcome>) -> Outcome {
    rounds.sort_by(|one, other| one.cpu().total_cmp(&other.cpu()));
    let middle = rounds.len() / 2;
    rounds.swap_remove(middle)
}

fn print(row: Row, outcomes: &[Outcome; 3]) {
    say(
        "\n| load | way | messages/s | CPU per message, µs | ack p50 / p99, ms | delivery p50 / \
         p99, ms | core busy + waiting for disk | driver | loopback packets, bytes per message | \
         limit |\n|---|---|---|---|---|---|---|---|---|---|",
    );
    for (way, outcome) in WAYS.iter().zip(outcomes) {
        let [stored, stored99, delivered, delivered99] = outcome.latency;
        let [packets, bytes] = outcome.loopback;
        let used = &outcome.used;
        say(&format!(
            "| {row} | {way:?} | {:.0} | {:.2} | {stored:.2} / {stored99:.2} | {delivered:.2} / \
             {delivered99:.2} | {:.0} % + {:.0} % | {:.0} % | {packets:.2}, {bytes:.0} | {} |",
            outcome.rate,
            outcome.cpu(),
            used.core * 100.0,
            used.waiting * 100.0,
            used.driver * 100.0,
            used.limit(),
        ));
    }
    say(
        "\n| load | way | process | user, µs per message | kernel, µs per message |\n|---|---|---|---|---|",
    );
    for (way, outcome) in WAYS.iter().zip(outcomes) {
        for (name, [user, kernel]) in &outcome.cpu {
            say(&format!(
                "| {row} | {way:?} | {name} | {user:.2} | {kernel:.2} |"
            ));
        }
    }
    let [process, one, two] = outcomes;
    let more = two.cpu() - one.cpu();
    say(&format!(
        "\n{row}, two nodes: {:.2} of one node's CPU per message (wanted: at most 2), {:.2} of \
         the one process's. Of {more:.2} µs more than one node, {:.2} µs are the kernel's for \
         chat and presence, which have no disk: sockets; {:.2} packets and {:.0} bytes more \
         per message.\n",
        two.cpu() / one.cpu(),
        two.cpu() / process.cpu(),
        two.sockets() - one.sockets(),
        two.loopback[0] - one.loopback[0],
        two.loopback[1] - one.loopback[1],
    ));
}
