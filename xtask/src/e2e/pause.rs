//! SIGSTOP for half a minute, then SIGCONT, under load: to the clients the server
//! hangs, to the server all of them do. In the end everybody has caught up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conformance::driver::Kind;
use conformance::event::Event;
use tokio::time::{Instant, sleep};

use super::Setup;
use super::load::{Load, Serving, drive, met, note};

/// How long the server stands still.
const PAUSE: Duration = Duration::from_secs(30);
/// Time for clients to do what they like before and after.
const AROUND: Duration = Duration::from_secs(3);
/// Events before the pause.
const FLOW: u64 = 1_000;

/// Stops the server and lets it go on; says what that met.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let seed = setup.seed;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let server = Serving::new(folder.path())
        .start(&setup.program, &[])
        .await?;
    let wild = PAUSE + AROUND + AROUND;
    let loads = [
        Load::new(Kind::Stubs, seed, wild),
        Load::new(Kind::Client, seed.wrapping_add(1), wild),
    ];
    let breaks = async {
        for load in &loads {
            load.flows(FLOW, Instant::now() + AROUND).await;
        }
        let what = format!("SIGSTOP for {} s", PAUSE.as_secs());
        server.signal("STOP").await?;
        // Whatever is sent from now on is not answered.
        sleep(AROUND).await;
        note(&loads, &Event::Kill { what });
        sleep(PAUSE.saturating_sub(AROUND)).await;
        server.signal("CONT").await?;
        note(&loads, &Event::Heal);
        Ok(())
    };
    let addresses = [server.grpc()];
    let data = folder.path().join("data");
    let place = (addresses.as_slice(), data.as_path());
    let ((), records) = drive(&loads, place, breaks, &setup.records).await?;
    let (unanswered, duplicates) = met(&records);
    ensure!(unanswered > 0, "it met no send without an answer");
    Ok(format!(
        "{} s, and everybody has caught up; {unanswered} sends had to be made again, \
         {duplicates} of them were duplicates; seed {seed}",
        PAUSE.as_secs()
    ))
}
