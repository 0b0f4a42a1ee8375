//! What the kernel says of memory, directories and the disk, and of the machine.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::histogram::Histogram;

/// Syncs of one probe.
const PROBE_SYNCS: usize = 300;
/// What a probe writes before each: about what a group of a few messages takes.
const PROBE_BYTES: usize = 4 * 1024;

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
    memory_kib(process, "VmRSS:")
}

/// The most that it was since [`forget_peak`], in KiB.
pub(crate) fn peak_kib(process: u32) -> Result<u64> {
    memory_kib(process, "VmHWM:")
}

/// The most memory of a process is from now on what it has now.
pub(crate) fn forget_peak(process: u32) -> Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5").context("cannot forget a peak of memory")
}

fn memory_kib(process: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let number = kib(&status, name).context("the kernel tells no memory")?;
    Ok(number.parse()?)
}

/// The number on a line such as `VmRSS:     1234 kB`.
fn kib<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// What a directory takes on its disk, in bytes.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64> {
    /// What blocks are counted in, whatever the disk has.
    const BLOCK_BYTES: u64 = 512;
    let about = fs::symlink_metadata(path)?;
    let mut bytes = about.blocks() * BLOCK_BYTES;
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_its_name() {
        let status = "Name:\tduologue\nVmHWM:\t   23456 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some("12345"));
        assert_eq!(kib(status, "VmHWM:"), Some("23456"));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let folder = tempfile::tempdir().unwrap();
        let before = disk_bytes(folder.path()).unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), vec![7; 1 << 20]).unwrap();
        File::open(inner.join("file")).unwrap().sync_all().unwrap();
        let grown = disk_bytes(folder.path()).unwrap() - before;
        assert!((1 << 20..1 << 21).contains(&grown), "{grown}");
    }
}
