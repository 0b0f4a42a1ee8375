//! The promises of the writer, over steps that record, wait or fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::time::Duration;

use duologue_proto::ids::UnixMillis;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::*;
use crate::contract_tests::{START, between, message, run_at, stored, user, waits};

type Commit = Result<Vec<Outcome>, CommitError>;

impl<F: FnMut(Vec<Operation>) -> Commit + Send + 'static> CommitStep for F {
    async fn commit(&mut self, group: Vec<Operation>) -> Commit {
        self(group)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a step may fail; this one does not"
)]
fn done(group: &[Operation]) -> Commit {
    Ok(vec![Outcome::Done(Ok(())); group.len()])
}

fn failed() -> Commit {
    Err(CommitError("the disk is full".into()))
}

fn run() -> PutRun {
    run_at(START, vec![message(&between("alice", "bob"), 1, "a")])
}

fn readings(group: &[Operation]) -> Vec<u64> {
    let reading = |operation: &Operation| {
        let Operation::StoreReading(reading) = operation else {
            panic!("not a reading: {operation:?}");
        };
        reading.0
    };
    group.iter().map(reading).collect()
}

/// Begins all of many operations at once, whatever a task may do in one turn.
fn at_once<F: Future>(many: impl Iterator<Item = F>) -> impl Future<Output = Vec<F::Output>> {
    unconstrained(join_all(many))
}

/// A step that says when a commit began and waits until it may end.
fn gated(
    mut then: impl FnMut(Vec<Operation>) -> Commit + Send + 'static,
) -> (
    impl CommitStep,
    mpsc::Receiver<()>,
    std_mpsc::SyncSender<()>,
) {
    let (began, begins) = mpsc::channel(16);
    let (go, gone) = std_mpsc::sync_channel(16);
    let step = move |group: Vec<Operation>| {
        began.blocking_send(()).unwrap();
        gone.recv().unwrap();
        then(group)
    };
    (step, begins, go)
}

#[tokio::test]
async fn what_is_queued_during_a_commit_is_one_group_in_order() {
    let groups = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&groups);
    let (step, mut begins, go) = gated(move |group| {
        seen.lock().unwrap().push(readings(&group));
        done(&group)
    });
    let committer = Committer::on_thread(step).unwrap();
    let mut first = Box::pin(committer.store_reading(UnixMillis(0)));
    assert!(waits(first.as_mut()).await);
    begins.recv().await.unwrap();
    let rest = (1..=30).map(|reading| committer.store_reading(UnixMillis(reading)));
    let mut rest = Box::pin(at_once(rest));
    assert!(waits(rest.as_mut()).await);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(first.await, Ok(()));
    assert_eq!(rest.await, vec![Ok(()); 30]);
    let groups = groups.lock().unwrap();
    assert_eq!(*groups, [vec![0], (1..=30).collect()]);
}

#[tokio::test(start_paused = true)]
async fn a_task_commits_in_virtual_time_without_a_timer() {
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&commits);
    let committer = Committer::on_task(move |group: Vec<Operation>| {
        counter.fetch_add(1, Ordering::SeqCst);
        done(&group)
    });
    let began = tokio::time::Instant::now();
    at_once((0..100).map(|reading| committer.store_reading(UnixMillis(reading)))).await;
    assert_eq!(commits.load(Ordering::SeqCst), 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_group_is_bounded_in_operations_and_in_bytes() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let committer = Committer::on_task(move |group: Vec<Operation>| {
        seen.lock().unwrap().push(group.len());
        done(&group)
    });
    let count = u64::try_from(2 * MAX_GROUP_OPERATIONS).unwrap();
    at_once((0..count).map(|reading| committer.store_reading(UnixMillis(reading)))).await;
    assert_eq!(*sizes.lock().unwrap(), [MAX_GROUP_OPERATIONS; 2]);

    sizes.lock().unwrap().clear();
    let large = PutRun {
        messages: vec![run().messages[0].clone(); 4_000],
        ..run()
    };
    let bytes = Operation::PutRun(large.clone()).bytes();
    let fit = MAX_GROUP_BYTES.div_ceil(bytes);
    assert!(fit < 7 && 7 * bytes < MAX_QUEUED_BYTES as usize);
    at_once((0..7).map(|_| committer.put_run(large.clone()))).await;
    assert_eq!(sizes.lock().unwrap()[0], fit);
}

/// More than the queue takes at once, by number and by bytes.
#[tokio::test]
async fn callers_wait_for_room_and_all_are_answered() {
    let committer = Committer::on_task(|group: Vec<Operation>| done(&group));
    let count = u64::try_from(3 * MAX_QUEUED_OPERATIONS).unwrap();
    let small = (0..count).map(|reading| committer.store_reading(UnixMillis(reading)));
    assert!(at_once(small).await.iter().all(Result::is_ok));
    let huge = PutRun {
        messages: vec![run().messages[0].clone(); 70_000],
        ..run()
    };
    assert!(Operation::PutRun(huge.clone()).bytes() > MAX_QUEUED_BYTES as usize);
    at_once((0..3).map(|_| committer.put_run(huge.clone()))).await;
    assert_eq!(committer.store_reading(UnixMillis(0)).await, Ok(()));
}

#[tokio::test]
async fn a_failed_commit_answers_its_group_as_unknown_and_the_rest_as_not_done() {
    let (step, mut begins, go) = gated(|_| failed());
    let committer = Committer::on_thread(step).unwrap();
    let (alice, conversation) = (user("alice"), between("alice", "bob"));
    let mut in_group = Box::pin(committer.put_run(run()));
    assert!(waits(in_group.as_mut()).await);
    begins.recv().await.unwrap();
    let mut waiting = Box::pin(committer.put_run(run()));
    assert!(waits(waiting.as_mut()).await);
    assert_eq!(committer.writable(), Ok(()));
    go.send(()).unwrap();

    let stopped = StoreError::Stopped("the disk is full".into());
    let not_done = Some(PutStop::Failed(stopped.clone()));
    let in_group = in_group.await;
    assert_eq!(in_group.stopped, Some(PutStop::Unknown));
    assert_eq!(committer.writable(), Err(stopped.clone()));
    assert_eq!(waiting.await.stopped, not_done);
    assert_eq!(committer.put_run(run()).await.stopped, not_done);
    let cursor = committer.put_cursor(&conversation, &alice, Cursor::default(), Window(1));
    assert_eq!(cursor.await, Err(stopped.clone()));
    let activity = committer.put_activity(&conversation, Window(1));
    assert_eq!(activity.await, Err(stopped.clone()));
    assert_eq!(committer.store_reading(START).await, Err(stopped));
}

#[tokio::test]
async fn a_failed_commit_is_the_last_one() {
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&commits);
    let committer = Committer::on_task(move |_: Vec<Operation>| {
        counter.fetch_add(1, Ordering::SeqCst);
        failed()
    });
    for _ in 0..3 {
        assert!(committer.store_reading(START).await.is_err());
    }
    assert_eq!(commits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_commit_that_panics_is_one_that_failed() {
    let step = |_: Vec<Operation>| -> Commit { panic!("a defect") };
    let committer = Committer::on_thread(step).unwrap();
    assert_eq!(
        committer.put_run(run()).await.stopped,
        Some(PutStop::Unknown)
    );
    let stopped = StoreError::Stopped("the writer panicked".into());
    assert_eq!(committer.writable(), Err(stopped.clone()));
    assert_eq!(committer.store_reading(START).await, Err(stopped));
}

#[tokio::test]
async fn a_step_that_answers_too_little_has_said_nothing() {
    let committer = Committer::on_task(|_: Vec<Operation>| Ok(Vec::new()));
    assert_eq!(
        committer.put_run(run()).await.stopped,
        Some(PutStop::Unknown)
    );
    assert!(committer.store_reading(START).await.is_err());
}

#[tokio::test]
async fn dropping_the_handle_commits_what_is_queued() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&taken);
    let (step, mut begins, go) = gated(move |group| {
        seen.lock().unwrap().extend(readings(&group));
        done(&group)
    });
    let committer = Committer::on_thread(step).unwrap();
    let mut first = Box::pin(committer.store_reading(UnixMillis(1)));
    assert!(waits(first.as_mut()).await);
    begins.recv().await.unwrap();
    let mut second = Box::pin(committer.store_reading(UnixMillis(2)));
    assert!(waits(second.as_mut()).await);
    drop((first, second));
    go.send(()).unwrap();
    go.send(()).unwrap();
    drop(committer);
    assert_eq!(*taken.lock().unwrap(), [1, 2]);
}

#[tokio::test]
async fn an_answer_falls_due_only_after_the_commit() {
    let (step, mut begins, go) = gated(|_| Ok(vec![Outcome::Run(stored(1))]));
    let committer = Committer::on_thread(step).unwrap();
    let mut put = Box::pin(committer.put_run(run()));
    assert!(waits(put.as_mut()).await);
    begins.recv().await.unwrap();
    assert!(waits(put.as_mut()).await);
    go.send(()).unwrap();
    assert_eq!(put.await, stored(1));
}
