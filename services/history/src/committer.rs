//! One writer for all: what is queued while one commit runs becomes the next one.
//!
//! Owns the queue, the writer, and what happens when a commit fails. What a commit
//! does stands behind [`CommitStep`]; the rules that every engine's step applies
//! are in [`rules`]. There is no timer: a lone operation is committed at once, and
//! under load a group grows as long as the sync before it takes.
//!
//! **A failed commit stops the writer for good.** Its outcome cannot be known, so
//! the operations of that group are answered as unknown, everything behind them as
//! not done, and the process must restart to learn what is on disk.

mod operation;
pub mod rules;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use duologue_proto::ids::{ConversationId, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::faults::{self, Point};
use futures_executor::block_on;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use self::operation::{Operation, Outcome};
use crate::store::{PutOutcome, PutRun, PutStop, StoreError, Window};

/// Operations that wait for the next group; more callers wait for room.
pub const MAX_QUEUED_OPERATIONS: usize = 1_024;
/// Bytes of operations that wait or are being committed.
pub const MAX_QUEUED_BYTES: u32 = 16 * 1024 * 1024;
/// Operations in one group.
pub const MAX_GROUP_OPERATIONS: usize = 512;
/// A group takes no further operation once it holds so many bytes.
pub const MAX_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Applies groups of operations, one after another.
pub trait CommitStep: Send + 'static {
    /// Applies a group in its order and makes it durable, all or nothing, before
    /// any reader sees any of it. Returns one outcome per operation. After an
    /// error, which says that the group's fate is not known, it is not called
    /// again.
    ///
    /// On a thread it may block; on a task it waits.
    fn commit(
        &mut self,
        group: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Outcome>, CommitError>> + Send;
}

/// Why a commit failed. What of its group is stored is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommitError(pub String);

/// The handle that operations are given to.
///
/// A caller that goes away while it waits changes nothing: an operation that was
/// queued is committed. Dropping the handle commits what is queued and, where the
/// writer has a thread, waits for it.
#[derive(Debug)]
pub struct Committer {
    /// None only while it is being dropped.
    queue: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    stopped: Arc<OnceLock<StoreError>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Committer {
    /// Commits on a thread of its own, for a step that blocks.
    pub fn on_thread(step: impl CommitStep) -> io::Result<Self> {
        let (mut committer, inbox) = Self::new();
        let work = Work::new(step, &committer);
        let thread = thread::Builder::new()
            .name("history-writer".into())
            .spawn(move || block_on(work.run(inbox)))?;
        committer.thread = Some(thread);
        Ok(committer)
    }

    /// Commits on a task of the current runtime, for a step that does not block;
    /// so a simulation in virtual time can run it.
    pub fn on_task(step: impl CommitStep) -> Self {
        let (committer, inbox) = Self::new();
        let work = Work::new(step, &committer);
        // It ends by itself once the handle is gone and the queue is empty.
        duologue_runtime::task::spawn("history-writer", work.run(inbox));
        committer
    }

    /// Whether operations are taken. An error is for good.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.stopped.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// See [`crate::store::Store::put_run`].
    pub async fn put_run(&self, run: PutRun) -> PutOutcome {
        let stop = match self.submit(Operation::PutRun(run)).await {
            Ok(Outcome::Run(outcome)) => return outcome,
            Ok(Outcome::Cursor(_) | Outcome::Done(_)) | Err(Lost::InCommit) => PutStop::Unknown,
            Err(Lost::BeforeCommit) => PutStop::Failed(self.why_stopped()),
        };
        PutOutcome {
            stored: 0,
            stopped: Some(stop),
        }
    }

    /// See [`crate::store::Store::put_activity`].
    pub async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.submit_simple(Operation::PutActivity {
            conversation: conversation.clone(),
            window,
        })
        .await
    }

    /// See [`crate::store::Store::store_reading`].
    pub async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.submit_simple(Operation::StoreReading(reading)).await
    }

    /// See [`crate::store::Store::put_cursor`].
    pub async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        window: Window,
    ) -> Result<Cursor, StoreError> {
        let operation = Operation::PutCursor {
            conversation: conversation.clone(),
            user: user.clone(),
            cursor,
            window,
        };
        match self.submit(operation).await {
            Ok(Outcome::Cursor(result)) => result,
            Ok(Outcome::Run(_) | Outcome::Done(_)) | Err(_) => Err(self.why_stopped()),
        }
    }

    async fn submit_simple(&self, operation: Operation) -> Result<(), StoreError> {
        match self.submit(operation).await {
            Ok(Outcome::Done(result)) => result,
            Ok(Outcome::Run(_) | Outcome::Cursor(_)) | Err(_) => Err(self.why_stopped()),
        }
    }

    async fn submit(&self, operation: Operation) -> Result<Outcome, Lost> {
        let queue = self.queue.as_ref().ok_or(Lost::BeforeCommit)?;
        let bytes = u32::try_from(operation.bytes()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(bytes.clamp(1, MAX_QUEUED_BYTES))
            .await
            .map_err(|_| Lost::BeforeCommit)?;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            operation,
            answer,
            room,
        };
        queue.send(request).await.map_err(|_| Lost::BeforeCommit)?;
        match answered.await {
            Ok(Answer::Committed(outcome)) => Ok(outcome),
            Ok(Answer::NotTaken) => Err(Lost::BeforeCommit),
            Err(_) => Err(Lost::InCommit),
        }
    }

    fn new() -> (Self, Inbox) {
        let (queue, inbox) = mpsc::channel(MAX_QUEUED_OPERATIONS);
        let room = Semaphore::new(MAX_QUEUED_BYTES as usize);
        let committer = Self {
            queue: Some(queue),
            room: Arc::new(room),
            stopped: Arc::default(),
            thread: None,
        };
        (committer, Inbox(inbox))
    }

    fn why_stopped(&self) -> StoreError {
        let lost = || StoreError::Stopped("the writer is gone".into());
        self.stopped.get().cloned().unwrap_or_else(lost)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // The writer ends once it has taken what is queued.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the history panicked");
        }
    }
}

/// Why an operation has no outcome.
enum Lost {
    /// It was never part of a commit.
    BeforeCommit,
    /// It was part of a commit that failed.
    InCommit,
}

#[derive(Debug)]
enum Answer {
    Committed(Outcome),
    /// The writer had stopped before.
    NotTaken,
}

#[derive(Debug)]
struct Request {
    operation: Operation,
    /// Dropped without an answer: the outcome is not known.
    answer: oneshot::Sender<Answer>,
    room: OwnedSemaphorePermit,
}

/// The writer's end of the queue: cuts it into groups.
struct Inbox(mpsc::Receiver<Request>);

impl Inbox {
    /// Waits for an operation and takes all that wait with it; none once the
    /// handle is gone and the queue is empty.
    async fn next(&mut self) -> Option<Vec<Request>> {
        let first = self.0.recv().await?;
        Some(self.fill(first))
    }

    fn fill(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = first.operation.bytes();
        let mut group = vec![first];
        while group.len() < MAX_GROUP_OPERATIONS
            && bytes < MAX_GROUP_BYTES
            && let Ok(request) = self.0.try_recv()
        {
            bytes += request.operation.bytes();
            group.push(request);
        }
        group
    }
}

/// The writer's state between groups.
struct Work<S> {
    step: S,
    stopped: Arc<OnceLock<StoreError>>,
}

impl<S: CommitStep> Work<S> {
    fn new(step: S, committer: &Committer) -> Self {
        Self {
            step,
            stopped: Arc::clone(&committer.stopped),
        }
    }

    async fn run(mut self, mut inbox: Inbox) {
        while let Some(group) = inbox.next().await {
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, group: Vec<Request>) {
        let mut operations = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for request in group {
            operations.push(request.operation);
            waiting.push((request.answer, request.room));
        }
        if self.stopped.get().is_some() {
            for (answer, _room) in waiting {
                // A caller that went away needs no answer; so below.
                let _ = answer.send(Answer::NotTaken);
            }
            return;
        }
        // Until the commit returns, even by a panic, nothing more is taken.
        let mut guard = StopOnPanic(Some(&self.stopped));
        let result = self.step.commit(operations).await;
        guard.0 = None;
        match result {
            Ok(outcomes) => {
                faults::point(Point::Committed);
                for (outcome, (answer, _room)) in outcomes.into_iter().zip(waiting) {
                    let _ = answer.send(Answer::Committed(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed: no more writes until the process restarts");
                // Told before the answers, which fall due as `waiting` is dropped.
                let _ = self.stopped.set(StoreError::Stopped(error.to_string()));
            }
        }
    }
}

struct StopOnPanic<'a>(Option<&'a OnceLock<StoreError>>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if let Some(stopped) = self.0 {
            let _ = stopped.set(StoreError::Stopped("the writer panicked".into()));
        }
    }
}
