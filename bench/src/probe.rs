//! How busy the server, its core, the disk and the driver were between two times.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::machine::per_second;

/// What times are counted in, in `/proc`: hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// One reading of everything.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    at: Instant,
    server: Duration,
    driver: Duration,
    core: Core,
    /// How many flushes the disk has done; none if that is not told.
    flushes: Option<u64>,
}

/// The difference of two readings, as shares of the time between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) server_cpu: Duration,
    /// The server's share of its core.
    pub(crate) server: f64,
    /// How much of the server's core was used by anybody.
    pub(crate) core: f64,
    /// How much of it was idle while somebody on it waited for the disk.
    pub(crate) waiting: f64,
    pub(crate) driver: f64,
    pub(crate) flushes_per_second: Option<f64>,
}

/// The least that the server's core must have been busy, or busy or waiting for
/// the disk: else something else was measured.
const SERVER_BUSY: f64 = 0.95;
/// The most that the driver may have been busy.
const DRIVER_BUSY: f64 = 0.90;
/// The most that others may have had of the server's core.
const OTHERS_BUSY: f64 = 0.05;

impl Use {
    /// Who else than the server, if anybody, decided what was measured.
    pub(crate) fn disturbed(&self) -> Option<&'static str> {
        if self.driver >= DRIVER_BUSY {
            Some("the driver was the limit")
        } else if self.core - self.server > OTHERS_BUSY {
            Some("others used the server's core")
        } else {
            None
        }
    }

    /// Why this measures something else than the most that the server can do; none
    /// if it does not.
    pub(crate) fn void(&self) -> Option<&'static str> {
        let idle = self.core + self.waiting < SERVER_BUSY;
        self.disturbed()
            .or(idle.then_some("the server was not busy"))
    }

    /// What bounds the server: its core, or the disk.
    pub(crate) fn limit(&self) -> &'static str {
        match self.void() {
            Some(why) => why,
            None if self.core >= SERVER_BUSY => "core",
            None => "disk",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// The server's processes.
    pub(crate) servers: Vec<u32>,
    /// The server's core.
    pub(crate) core: usize,
    /// Where the server's data is.
    pub(crate) device: (u64, u64),
}

#[derive(Debug, Clone, Copy)]
struct Core {
    busy: Duration,
    waiting: Duration,
    idle: Duration,
}

impl Probe {
    pub(crate) fn read(&self) -> Result<Reading> {
        Ok(Reading {
            at: Instant::now(),
            server: self
                .servers
                .iter()
                .map(|it| cpu_of(*it))
                .sum::<Result<_>>()?,
            driver: cpu_of(std::process::id())?,
            core: core(self.core)?,
            flushes: flushes(self.device),
        })
    }
}

impl Reading {
    pub(crate) fn until(&self, later: &Self) -> Use {
        let time = later.at - self.at;
        let share = |from: Duration, to: Duration| (to.saturating_sub(from)).div_duration_f64(time);
        let (from, to) = (&self.core, &later.core);
        let busy = to.busy.saturating_sub(from.busy);
        let waiting = to.waiting.saturating_sub(from.waiting);
        let all = busy + waiting + to.idle.saturating_sub(from.idle);
        let flushes = self.flushes.zip(later.flushes);
        Use {
            server_cpu: later.server.saturating_sub(self.server),
            server: share(self.server, later.server),
            core: busy.div_duration_f64(all.max(TICK)),
            waiting: waiting.div_duration_f64(all.max(TICK)),
            driver: share(self.driver, later.driver),
            flushes_per_second: flushes.map(|(from, to)| per_second(to - from, time)),
        }
    }
}

/// User and system time of a process.
fn cpu_of(process: u32) -> Result<Duration> {
    let [user, system] = times_of(process)?;
    Ok(user + system)
}

/// User and system time of a process, apart.
pub(crate) fn times_of(process: u32) -> Result<[Duration; 2]> {
    let stat =
        fs::read_to_string(format!("/proc/{process}/stat")).context("the server has ended")?;
    // The name may hold anything; what follows it does not.
    let (_, fields) = stat.rsplit_once(')').context("unreadable /proc/PID/stat")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let mut next = || ticks_of(ticks.next().context("unreadable /proc/PID/stat")?);
    Ok([next()?, next()?])
}

fn core(core: usize) -> Result<Core> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let times = line.with_context(|| format!("there is no core {core}"))?;
    let times: Vec<Duration> = times
        .split_whitespace()
        .take(8)
        .map(ticks_of)
        .collect::<Result<_>>()?;
    let [user, nice, system, idle, waiting, irq, softirq, steal] = times[..] else {
        anyhow::bail!("unreadable /proc/stat");
    };
    Ok(Core {
        busy: user + nice + system + irq + softirq + steal,
        waiting,
        idle,
    })
}

fn ticks_of(ticks: &str) -> Result<Duration> {
    Ok(TICK * ticks.parse()?)
}

fn flushes((major, minor): (u64, u64)) -> Option<u64> {
    let stats = fs::read_to_string("/proc/diskstats").ok()?;
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<u64>().ok());
    stats.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let device = (number(fields.next())?, number(fields.next())?);
        // The name, then fifteen others.
        (device == (major, minor)).then(|| number(fields.nth(16)))?
    })
}
