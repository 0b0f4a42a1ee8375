//! Messages per second, and what each costs the server, beside the bare relay.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::driver::{self, Door, Load, Measured, To, Users, When};
use crate::histogram::Histogram;
use crate::machine::{self, per_second};
use crate::probe::{Probe, Use};
use crate::server::{Kind, Place, Server};

/// Length of the texts.
pub(crate) const TEXT_BYTES: usize = 100;

/// A load: pairs of users, and how many messages of each are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) pairs: usize,
    pub(crate) window: usize,
}

/// The rows of the table.
pub(crate) const ROWS: [Row; 5] = [
    Row::new(10, 1),
    Row::new(100, 1),
    Row::new(1_000, 1),
    Row::new(10, 16),
    Row::new(100, 16),
];

impl Row {
    pub(crate) const fn new(pairs: usize, window: usize) -> Self {
        Self { pairs, window }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.pairs, self.window)
    }
}

impl std::str::FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('x');
        numbers
            .and_then(|(pairs, window)| Some(Row::new(pairs.parse().ok()?, window.parse().ok()?)))
            .filter(|row| row.pairs > 0 && row.window > 0)
            .ok_or_else(|| "must be pairs and window, such as 100x16".to_owned())
    }
}

/// How long what is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
}

/// What one round of one server under one load came to.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Messages per second that were acknowledged and delivered.
    pub(crate) rate: f64,
    /// CPU time of the server per message, in microseconds.
    pub(crate) cpu: f64,
    /// Milliseconds: p50 and p99 of acknowledgement, then of delivery.
    pub(crate) latency: [f64; 4],
    /// Own messages shown to their sender, of all.
    pub(crate) echoed: f64,
    pub(crate) used: Use,
    /// Milliseconds of a sync of the disk: p50 and p99.
    pub(crate) sync: [f64; 2],
    /// How late the driver was with what is sent by the clock: p99, in
    /// milliseconds.
    pub(crate) late: f64,
}

/// Runs one round of so many pairs.
pub(crate) async fn measure(
    kind: Kind,
    pairs: usize,
    when: When,
    times: Times,
    place: &Place,
) -> Result<Outcome> {
    let syncs = machine::probe_syncs(&place.folder)?;
    let server = Server::start(kind, place)?;
    let probe = server.probe(place)?;
    let members = server.members(driver::pairs("user", 2 * pairs))?;
    let users = Users {
        addresses: &[server.address],
        members: &members,
        per_connection: driver::per_connection(members.len()),
        text_bytes: TEXT_BYTES,
        messages: u64::MAX,
        to: To::Peers,
    };
    let load = Load::start(&users, when).await?;
    observe(load, &probe, times, &syncs).await
}

/// Runs one round by one door.
pub(crate) async fn measure_door(
    door: Door,
    row: Row,
    times: Times,
    place: &Place,
) -> Result<Outcome> {
    let syncs = machine::probe_syncs(&place.folder)?;
    let server = Server::start(Kind::Duologue, place)?;
    let probe = server.probe(place)?;
    let members = server.members(driver::pairs("user", 2 * row.pairs))?;
    let users = Users {
        addresses: &[server.address_of(door)?],
        members: &members,
        per_connection: 1,
        text_bytes: TEXT_BYTES,
        messages: u64::MAX,
        to: To::Peers,
    };
    let load = Load::start_by(door, &users, row.window).await?;
    observe(load, &probe, times, &syncs).await
}

async fn observe(
    mut load: Load,
    probe: &Probe,
    times: Times,
    syncs: &Histogram,
) -> Result<Outcome> {
    let readings = RefCell::new(Vec::with_capacity(2));
    let read = || {
        readings.borrow_mut().push(probe.read()?);
        Ok(())
    };
    let measured = load.measure(times.warm, times.measured, read).await?;
    load.finish().await?;
    let used = match &readings.borrow()[..] {
        [from, to] => from.until(to),
        _ => anyhow::bail!("nothing was read"),
    };
    Ok(outcome(&measured, used, syncs))
}

fn outcome(measured: &Measured, used: Use, syncs: &Histogram) -> Outcome {
    let messages = measured.counts.stored.min(measured.counts.delivered);
    let latency = |share| {
        let times = [&measured.to_stored, &measured.to_delivered];
        times.map(|times| millis(times.quantile(share)))
    };
    let ([stored, delivered], [stored99, delivered99]) = (latency(0.5), latency(0.99));
    let rate = per_second(messages, measured.time);
    Outcome {
        rate,
        cpu: 1e6 / per_second(messages, used.server_cpu),
        latency: [stored, stored99, delivered, delivered99],
        echoed: per_second(measured.counts.echoed, measured.time) / rate,
        used,
        sync: [0.5, 0.99].map(|share| millis(syncs.quantile(share))),
        late: millis(measured.late.quantile(0.99)),
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The median of several rounds, number by number.
pub(crate) fn median(rounds: &[Outcome]) -> Outcome {
    let of = |number: &dyn Fn(&Outcome) -> f64| {
        let mut numbers: Vec<f64> = rounds.iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    };
    Outcome {
        rate: of(&|round| round.rate),
        cpu: of(&|round| round.cpu),
        latency: std::array::from_fn(|at| of(&|round| round.latency[at])),
        echoed: of(&|round| round.echoed),
        used: Use {
            server_cpu: Duration::ZERO,
            server: of(&|round| round.used.server),
            core: of(&|round| round.used.core),
            waiting: of(&|round| round.used.waiting),
            driver: of(&|round| round.used.driver),
            flushes_per_second: Some(of(&|round| {
                round.used.flushes_per_second.unwrap_or_default()
            })),
        },
        sync: std::array::from_fn(|at| of(&|round| round.sync[at])),
        late: of(&|round| round.late),
    }
}
