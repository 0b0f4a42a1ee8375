//! How long a start takes on what is stored.

use std::time::Duration;

use anyhow::Result;

use crate::machine;
use crate::server::{Place, Server};

/// Starts that are measured.
const STARTS: usize = 5;

/// What was seen.
#[derive(Debug)]
pub(super) struct Starts {
    /// In order of their length.
    pub(super) times: Vec<Duration>,
    /// Memory of the last one, in KiB, when it says that it serves.
    pub(super) resident_kib: u64,
    /// Of the data directory.
    pub(super) disk_bytes: u64,
}

/// Kills the server and starts it again, several times.
pub(super) fn measure(server: &mut Server, place: &Place) -> Result<Starts> {
    let disk_bytes = machine::disk_bytes(server.data())?;
    let mut times = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        times.push(server.restart(place)?);
    }
    let resident_kib = machine::resident_kib(server.process())?;
    times.sort_unstable();
    Ok(Starts {
        times,
        resident_kib,
        disk_bytes,
    })
}
