//! A user who was away, and the server's memory while it catches up.

use std::time::Duration;

use anyhow::{Result, ensure};
use duologue_proto::chat::v1::Hello;
use tokio::time::{Instant, sleep};

use super::fill::{self, Crowd};
use crate::driver;
use crate::machine;
use crate::probe::{Probe, Use};
use crate::server::Server;

/// How long the server rests before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) messages: u64,
    pub(super) time: Duration,
    pub(super) used: Use,
    /// Memory before, at its most, and a while after, in KiB.
    pub(super) memory_kib: [u64; 3],
}

/// The reader of the crowd catches up, knowing nothing, or what `hello` says.
pub(super) async fn measure(
    server: &Server,
    probe: &Probe,
    crowd: &Crowd,
    hello: Hello,
) -> Result<Missed> {
    let token = server.token(&driver::name(crowd.to, 0))?;
    sleep(REST).await;
    let process = server.process();
    machine::forget_peak(process)?;
    let resident = machine::resident_kib(process)?;
    let (before, started) = (probe.read()?, Instant::now());
    let known = fill::catch_up(server.address, &token, hello).await?;
    let (time, used) = (started.elapsed(), before.until(&probe.read()?));
    ensure!(
        known.messages == crowd.total(),
        "{} messages were shown of {}",
        known.messages,
        crowd.total()
    );
    let peak = machine::peak_kib(process)?;
    sleep(REST).await;
    Ok(Missed {
        messages: known.messages,
        time,
        used,
        memory_kib: [resident, peak, machine::resident_kib(process)?],
    })
}
