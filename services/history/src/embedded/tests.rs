//! What the embedded engine promises beyond the contract of all engines: about its
//! directory, its disk, and the end of the process.

mod damage;
mod runs;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;

use duologue_proto::ids::{ConversationId, Seq};
use duologue_runtime::clock::{ManualClock, SeededRandom};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::*;
use crate::committer::{CommitError, Operation, Outcome};
use crate::contract_tests::{START, all, between, message, run_at, stored, user, waits};
use crate::store::PutStop;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START))
}

fn try_open(directory: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(directory, clock(), &SeededRandom::new(1))
}

fn open(directory: &TempDir) -> EmbeddedStore {
    try_open(directory.path()).unwrap()
}

fn alice_and_bob() -> ConversationId {
    between("alice", "bob")
}

async fn put(store: &EmbeddedStore, seq: u64) -> PutOutcome {
    let id = format!("m{seq}");
    let run = run_at(START, vec![message(&alice_and_bob(), seq, &id)]);
    store.put_run(run).await
}

async fn count(store: &EmbeddedStore) -> usize {
    store.slots(all(&alice_and_bob())).await.unwrap().len()
}

/// A step with something before every commit.
struct Before<S, F>(S, F);

impl<S: CommitStep, F: FnMut() -> Result<(), CommitError> + Send + 'static> CommitStep
    for Before<S, F>
{
    async fn commit(&mut self, group: Vec<Operation>) -> Result<Vec<Outcome>, CommitError> {
        (self.1)()?;
        self.0.commit(group).await
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (alice, bob) = (user("alice"), user("bob"));
    let cursor = Cursor::asked(Some(Seq(2)), Some(Seq(1)));
    let store = open(&directory);
    let id = store.history_id().clone();
    for seq in 1..=3 {
        assert_eq!(put(&store, seq).await, stored(1));
    }
    let moved = store
        .put_cursor(&alice_and_bob(), &bob, cursor, START)
        .await;
    assert_eq!(moved, Ok(cursor));
    let messages = store.slots(all(&alice_and_bob())).await;
    drop(store);

    let store = open(&directory);
    assert_eq!(*store.history_id(), id);
    assert_eq!(store.highest_reading(), START);
    assert_eq!(store.slots(all(&alice_and_bob())).await, messages);
    assert_eq!(store.cursors(&bob, &alice).await.unwrap().own, cursor);
    assert_eq!(
        store.conversations(&bob, None, 10).await,
        Ok(vec![alice.clone()])
    );
    let row = Activity {
        window: Window::of(START),
        peer: bob,
    };
    assert_eq!(store.activity_back(&alice, None, 10).await, Ok(vec![row]));
    assert_eq!(put(&store, 4).await, stored(1));
}

#[tokio::test]
async fn two_histories_have_two_ids() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let random = SeededRandom::new(7);
    let [one, other] = directories
        .each_ref()
        .map(|directory| EmbeddedStore::open(directory.path(), clock(), &random).unwrap());
    assert_ne!(one.history_id(), other.history_id());
}

#[tokio::test]
async fn a_directory_in_use_is_refused_by_name_and_free_again_after_the_drop() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let refused = try_open(directory.path()).err().unwrap();
    assert!(
        matches!(&refused, OpenError::Locked { directory: named } if named == directory.path())
    );
    assert!(
        refused
            .to_string()
            .contains(&*directory.path().to_string_lossy())
    );
    assert_eq!(put(&store, 1).await, stored(1));
    drop(store);
    assert_eq!(count(&open(&directory)).await, 1);
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory));
    let file = directory.path().join("format");
    for text in ["1\n", "3\n", "", "2.0\n", "\u{fffd}"] {
        fs::write(&file, text).unwrap();
        let refused = try_open(directory.path()).err().unwrap();
        let found = text.trim_end();
        assert!(
            matches!(&refused, OpenError::UnknownFormat { found: told, supported: FORMAT, .. } if told == found),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        try_open(directory.path()),
        Err(OpenError::UnknownFormat { .. })
    ));
    fs::write(&file, "2\n").unwrap();
    drop(open(&directory));
}

#[test]
fn a_directory_that_holds_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "precious").unwrap();
    let refused = try_open(directory.path()).err().unwrap();
    assert!(matches!(&refused, OpenError::NotAHistory { entry, .. } if entry == "thesis.txt"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let file = directory.path().join("thesis.txt");
    assert!(matches!(try_open(&file), Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn a_creation_that_was_interrupted_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let unfinished = directory.path().join("tables.new");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("0.jnl"), "torn").unwrap();
    fs::write(directory.path().join("format"), "").unwrap();
    let store = open(&directory);
    assert_eq!(put(&store, 1).await, stored(1));
    assert!(!unfinished.exists());
}

#[cfg(unix)]
#[test]
fn a_new_directory_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data").join("history");
    let _store = try_open(&path).unwrap();
    for private in [path.clone(), path.join("tables")] {
        let mode = fs::metadata(private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[tokio::test]
async fn after_a_failed_commit_reads_go_on_and_do_not_show_it() {
    let directory = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let random = SeededRandom::new(1);
    let store = EmbeddedStore::open_with(directory.path(), clock(), &random, |step| {
        Before(step, move || {
            if fails.load(Ordering::SeqCst) {
                Err(CommitError("no space left".into()))
            } else {
                Ok(())
            }
        })
    });
    let store = store.unwrap();
    assert_eq!(put(&store, 1).await, stored(1));
    failing.store(true, Ordering::SeqCst);
    assert_eq!(put(&store, 2).await.stopped, Some(PutStop::Unknown));
    failing.store(false, Ordering::SeqCst);
    let stopped = StoreError::Stopped("no space left".into());
    let not_done = Some(PutStop::Failed(stopped.clone()));
    assert_eq!(put(&store, 2).await.stopped, not_done);
    assert_eq!(store.writable(), Err(stopped));
    assert_eq!(count(&store).await, 1);
    assert_eq!(store.highest_reading(), START);
    drop(store);
    let store = open(&directory);
    assert_eq!(store.writable(), Ok(()));
    assert_eq!(put(&store, 2).await, stored(1));
}

#[tokio::test]
async fn what_a_commit_has_not_synced_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (began, mut begins) = mpsc::channel(4);
    let (go, gone) = std_mpsc::sync_channel(4);
    let random = SeededRandom::new(1);
    let store = EmbeddedStore::open_with(directory.path(), clock(), &random, |step| {
        Before(step, move || {
            began.blocking_send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        })
    });
    let store = store.unwrap();
    let mut first = Box::pin(put(&store, 1));
    assert!(waits(first.as_mut()).await);
    begins.recv().await.unwrap();
    assert_eq!(store.head(&alice_and_bob()).await, Ok(None));
    go.send(()).unwrap();
    assert_eq!(first.await, stored(1));
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn a_burst_behind_one_commit_costs_one_more() {
    const BURST: usize = 200;

    let directory = tempfile::tempdir().unwrap();
    let (began, mut begins) = mpsc::channel(4);
    let (go, gone) = std_mpsc::sync_channel(4);
    let random = SeededRandom::new(1);
    let store = EmbeddedStore::open_with(directory.path(), clock(), &random, |step| {
        Before(step, move || {
            began.blocking_send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        })
    });
    let store = store.unwrap();
    let mut first = Box::pin(put(&store, 1));
    assert!(waits(first.as_mut()).await);
    begins.recv().await.unwrap();
    let puts = (0..BURST).map(|n| {
        let conversation = between("carol", &format!("u{n}"));
        store.put_run(run_at(START, vec![message(&conversation, 1, "a")]))
    });
    let mut puts = Box::pin(unconstrained(join_all(puts)));
    assert!(waits(puts.as_mut()).await);
    // Room for two commits, and none for a third.
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(first.await, stored(1));
    assert_eq!(puts.await, vec![stored(1); BURST]);
}
