//! A disk that loses what was not synced.
//!
//! It is a log of what the groups of the writer changed: a group is written, then
//! synced, and what is behind the last sync may or may not be there after a crash,
//! in the order of writing. It outlives the machine. It knows no rule of what is
//! stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_history::committer::CommitError;
use duologue_history::committer::rules::Changes;
use duologue_history::memory::Journal;
use tokio::time::sleep;

use crate::dice::Dice;

/// The disk of the server's machine. Clones are one disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    sync_millis: (u64, u64),
    synced: Vec<Changes>,
    /// Written behind the last sync.
    tail: Vec<Changes>,
    next_sync: NextSync,
    syncs: u64,
    lost_groups: u64,
}

/// What becomes of the next sync.
#[derive(Clone, Copy)]
enum NextSync {
    Ends,
    Stalls(Duration),
    Fails,
}

impl Disk {
    /// An empty disk, whose syncs take from so many to so many milliseconds.
    pub(crate) fn new(seed: u64, sync_millis: (u64, u64)) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: Dice::new(seed, "disk"),
            sync_millis,
            synced: Vec::new(),
            tail: Vec::new(),
            next_sync: NextSync::Ends,
            syncs: 0,
            lost_groups: 0,
        })))
    }

    /// Everything on it, as a process finds it that starts.
    pub(crate) fn read(&self) -> Vec<Changes> {
        self.lock().synced.clone()
    }

    /// The machine crashes: of what was not synced, some beginning is there.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        let written = u64::try_from(state.tail.len()).unwrap_or_default();
        let kept = state.dice.between((0, written));
        state.lost_groups += written - kept;
        let mut tail = std::mem::take(&mut state.tail);
        tail.truncate(usize::try_from(kept).unwrap_or_default());
        state.synced.append(&mut tail);
        state.next_sync = NextSync::Ends;
    }

    /// The next sync takes longer by so much.
    pub(crate) fn stall(&self, long: Duration) {
        self.lock().next_sync = NextSync::Stalls(long);
    }

    /// The next sync fails.
    pub(crate) fn fail(&self) {
        self.lock().next_sync = NextSync::Fails;
    }

    /// How often it was synced, and how many groups it has lost.
    pub(crate) fn history(&self) -> (u64, u64) {
        let state = self.lock();
        (state.syncs, state.lost_groups)
    }

    fn begin_sync(&self) -> (NextSync, Duration, usize) {
        let mut state = self.lock();
        let next = std::mem::replace(&mut state.next_sync, NextSync::Ends);
        let long = state.dice.millis(state.sync_millis);
        (next, long, state.tail.len())
    }

    fn end_sync(&self, groups: usize) {
        let mut state = self.lock();
        let State { synced, tail, .. } = &mut *state;
        synced.extend(tail.drain(..groups));
        state.syncs += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Disk {
    fn write(&mut self, changes: &Changes) {
        self.lock().tail.push(changes.clone());
    }

    async fn sync(&mut self) -> Result<(), CommitError> {
        let (next, long, groups) = self.begin_sync();
        sleep(long).await;
        match next {
            NextSync::Ends => {}
            NextSync::Stalls(longer) => sleep(longer).await,
            NextSync::Fails => return Err(CommitError("the disk fails".into())),
        }
        self.end_sync(groups);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(reading: u64) -> Changes {
        Changes {
            reading: Some(duologue_proto::ids::UnixMillis(reading)),
            ..Changes::default()
        }
    }

    fn readings(disk: &Disk) -> Vec<u64> {
        let readings = disk.read().into_iter().filter_map(|group| group.reading);
        readings.map(|reading| reading.0).collect()
    }

    /// What is there after a crash with one group synced and two behind it.
    async fn after_a_crash(seed: u64) -> Vec<u64> {
        let mut disk = Disk::new(seed, (1, 5));
        disk.write(&group(1));
        disk.sync().await.unwrap();
        disk.write(&group(2));
        disk.write(&group(3));
        assert_eq!(readings(&disk), [1], "what is not synced is not there yet");
        disk.crash();
        readings(&disk)
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_keeps_what_was_synced_and_any_beginning_of_the_rest() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..30 {
            seen.insert(after_a_crash(seed).await);
        }
        let all = [vec![1], vec![1, 2], vec![1, 2, 3]];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_fails_leaves_open_what_is_there() {
        let mut disk = Disk::new(1, (1, 5));
        disk.write(&group(1));
        disk.fail();
        assert!(disk.sync().await.is_err());
        assert!(readings(&disk).is_empty());
        disk.crash();
        assert!(readings(&disk).len() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_takes_its_time_and_a_stalled_one_longer() {
        let mut disk = Disk::new(1, (3, 3));
        let began = tokio::time::Instant::now();
        disk.sync().await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(3));
        disk.stall(Duration::from_secs(2));
        disk.sync().await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(2_006));
    }
}
