//! What the kernel says of processes, cores and the disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::histogram::Histogram;

/// What times are counted in, in `/proc`: hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// Syncs of one probe.
const PROBE_SYNCS: usize = 300;
/// What a probe writes before each: about what a group of a few messages takes.
const PROBE_BYTES: usize = 4 * 1024;

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

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// The server's process.
    pub(crate) server: u32,
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
            server: cpu_of(self.server)?,
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

/// So many in such a time.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The device of a path, as `/proc/diskstats` names it.
pub(crate) fn device_of(path: &Path) -> Result<(u64, u64)> {
    let device = fs::metadata(path)?.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff_ff00);
    Ok((major, minor))
}

/// Binds a process and all its threads to one core.
pub(crate) fn pin(process: u32, core: usize) -> Result<()> {
    let pinned = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("cannot run taskset, of util-linux")?;
    ensure!(pinned.success(), "taskset failed");
    Ok(())
}

/// How long syncs of the disk take that `folder` is on.
pub(crate) fn probe_syncs(folder: &Path) -> Result<Histogram> {
    let mut file = File::create(folder.join("probe"))?;
    let mut times = Histogram::default();
    for _ in 0..PROBE_SYNCS {
        file.write_all(&[7; PROBE_BYTES])?;
        let started = Instant::now();
        file.sync_data()?;
        times.add(started.elapsed());
    }
    fs::remove_file(folder.join("probe"))?;
    Ok(times)
}

/// Memory of a process that is in use, in KiB.
pub(crate) fn resident_kib(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("the kernel tells no memory")?.parse()?)
}

/// Which machine this is.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
        .map_or("unknown", str::trim);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores ({model}), Linux {}", kernel.trim())
}

/// User and system time of a process.
fn cpu_of(process: u32) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{process}/stat")).context("the server has ended")?;
    // The name may hold anything; what follows it does not.
    let (_, fields) = stat.rsplit_once(')').context("unreadable /proc/PID/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(ticks_of).sum()
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
