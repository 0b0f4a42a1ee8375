//! The end of a run: nothing more is sent, so that a lost last announcement shows;
//! both users' histories and cursors are read; open sessions have time to catch up.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::calls;
use super::way::Chat;
use super::world::{Stage, World};
use crate::check;
use crate::event::Event;
use crate::record::Record;

/// How long clients have until nothing is under way; cursors take 5 seconds, a
/// connection that hangs is given up after 10.
const READY_LIMIT: Duration = Duration::from_secs(40);
/// How long open sessions have to be shown what they lack.
const HEAL_LIMIT: Duration = Duration::from_secs(10);
/// How long a reading is tried while the server cannot be reached.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// A sequence of readings ends when two are alike, or after as many.
const MAX_READINGS: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
const WINDOW_BYTES: u32 = 256 * 1024;
/// What open sessions lack while these fail.
const HEALING: [&str; 2] = ["eventually_caught_up", "receipts_told"];

/// Ends the run of so many clients; returns its record, and how long it took until
/// nobody lacked anything.
pub(super) async fn finish(world: &World, clients: usize) -> Result<(Record, Duration)> {
    world.enter(Stage::Quiet);
    let quiet_since = Instant::now();
    let settled = world.all_ready(clients, READY_LIMIT).await;
    if settled < clients {
        world.note(Event::Restless { settled, clients });
    }
    let (chat, _gate) = world.link(world.way_of(0, 0), WINDOW_BYTES);
    let mut last = reading(world, &chat).await?;
    for _ in 1..MAX_READINGS {
        sleep(PAUSE).await;
        let next = reading(world, &chat).await?;
        let same = next == last;
        last = next;
        if same {
            break;
        }
    }
    for event in last {
        world.note(event);
    }
    let record = heal(world).await;
    Ok((record, quiet_since.elapsed()))
}

/// Everything that every user can read.
async fn reading(world: &World, chat: &Chat) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for (number, reader) in world.users.iter().enumerate() {
        for peer in world.peers(number) {
            let read = || calls::list(world, chat.clone(), (reader, &peer), 0);
            let messages = insist(read).await.context("a history cannot be read")?;
            events.push(Event::History {
                reader: reader.clone(),
                peer,
                messages,
            });
        }
    }
    for reader in &world.users {
        let read = || calls::cursors(world, chat.clone(), reader);
        let cursors = insist(read).await.context("cursors cannot be read")?;
        events.extend(
            cursors
                .into_iter()
                .map(|(peer, own, other)| Event::Cursors {
                    reader: reader.clone(),
                    peer,
                    own,
                    other,
                }),
        );
    }
    Ok(events)
}

/// Tries again while the server refuses for a reason that passes.
async fn insist<T, F>(mut read: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let limit = Instant::now() + READ_LIMIT;
    loop {
        match read().await {
            Err(status) if Instant::now() < limit => sleep(calls::retry_after(&status)).await,
            read => return read,
        }
    }
}

/// Waits until open sessions lack nothing, or for long; returns the whole record.
async fn heal(world: &World) -> Record {
    let limit = Instant::now() + HEAL_LIMIT;
    loop {
        let mut record = world.recorder.record();
        let at = record.entries.last().map_or(1, |last| last.at + 1);
        let event = Event::End { open: world.open() };
        record.entries.push(crate::record::Entry { at, event });
        let lacking = check::check_by(&record, |rule| HEALING.contains(&rule));
        if lacking.is_empty() || Instant::now() > limit {
            return record;
        }
        sleep(PAUSE).await;
    }
}
