//! The engine on one machine: fjall, in a directory of its own.
//!
//! Writes go through the group committer on a dedicated thread: each group is one
//! atomic batch, synced before anything of it is answered or can be read. Reads run
//! on the blocking pool, all of them: even a point read may wait for a disk, and a
//! session's task must not. A question that reads several times goes there once and
//! reads on the spot: on a busy machine each hop costs a turn of all tasks. For the
//! same reason reads wait in the pool's own queue, not as tasks.

mod bundle;
mod directory;
mod journal;
pub(crate) mod keys;
mod reads;
mod step;
mod tables;
mod values;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use duologue_proto::ids::{ConversationId, HistoryId, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::{Clock, Random};
use duologue_runtime::faults::{self, Point};
use futures_executor::block_on;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

pub use self::bundle::{MAX_BUNDLE_BYTES, MAX_BUNDLE_MESSAGES};
use self::directory::Directory;
pub use self::directory::FORMAT;
use self::step::EmbeddedStep;
pub use self::step::{MAX_KNOWN_HEADS, MAX_LEVEL_0_TABLES, MAX_SEALED_MEMTABLES, ROOM_POLL};
use self::tables::Tables;
pub use self::tables::{
    CACHE_BYTES, JOURNALS_BYTES, MAX_OPEN_FILES, MESSAGES_BUFFER_BYTES, ROWS_BUFFER_BYTES, WORKERS,
};
use crate::committer::rules::Stored as _;
use crate::committer::{CommitStep, Committer};
use crate::store::{
    Activity, Cursors, PutOutcome, PutRun, SlotRange, Store, StoreError, StoredMessage, Window,
    new_history_id,
};

/// Reads that run or wait for a thread; more callers wait for room.
pub const MAX_QUEUED_READS: usize = 1_024;

thread_local! {
    /// Whether this is a thread of the blocking pool that has run a question.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Why a history cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one has.
    #[error("{} is in use by another process: stop it, or choose another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// It was written by a version that this one does not know.
    #[error("{} holds format {found:?}, and this version reads format {supported} only: use the version that wrote it, or another directory", directory.display())]
    UnknownFormat {
        /// The directory.
        directory: PathBuf,
        /// What it says.
        found: String,
        /// What this version reads.
        supported: u32,
    },
    /// It holds something else than a history; nothing was changed.
    #[error("{} holds {entry:?}, which is not part of a history: choose an empty or a new directory", directory.display())]
    NotAHistory {
        /// The directory.
        directory: PathBuf,
        /// One thing that does not belong.
        entry: String,
    },
    /// The directory cannot be read or written.
    #[error("{} cannot be used: {source}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database in it cannot be opened.
    #[error("the history in {} cannot be opened: {source}", directory.display())]
    Engine {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: StoreError,
    },
}

/// A history on disk. Dropping it commits what is queued and waits for that; then,
/// once the last read has ended, the directory is free again.
pub struct EmbeddedStore {
    committer: Committer,
    readers: Arc<Semaphore>,
    open: Arc<Open>,
}

/// What writer and readers share. The directory is given up after the tables are
/// closed.
struct Open {
    tables: Arc<Tables>,
    _directory: Directory,
}

impl EmbeddedStore {
    /// Opens the history in `directory`, which it has for itself; makes both if
    /// there are none. It blocks.
    pub fn open(
        directory: &Path,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        Self::open_with(directory, clock, random, |step| step)
    }

    /// Like `open`, with something around the commit step.
    fn open_with<S: CommitStep>(
        directory: &Path,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        wrap: impl FnOnce(EmbeddedStep) -> S,
    ) -> Result<Self, OpenError> {
        let claimed = Directory::claim(directory, || new_history_id(random))?;
        let tables = Tables::open(&claimed.tables()).map_err(|source| OpenError::Engine {
            directory: directory.into(),
            source,
        })?;
        faults::point(Point::Opening);
        let tables = Arc::new(tables);
        let step = wrap(EmbeddedStep::new(Arc::clone(&tables), clock));
        let committer = Committer::on_thread(step).map_err(|source| OpenError::Io {
            directory: directory.into(),
            source,
        })?;
        Ok(Self {
            committer,
            readers: Arc::new(Semaphore::new(MAX_QUEUED_READS)),
            open: Arc::new(Open {
                tables,
                _directory: claimed,
            }),
        })
    }

    /// Reads where blocking is allowed. A caller that goes away leaves the read to
    /// end by itself; it counts until then.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if MAY_BLOCK.get() {
            return read(&self.open.tables);
        }
        let open = Arc::clone(&self.open);
        self.on_reader(move || read(&open.tables)).await?
    }

    /// Runs something that may block.
    async fn on_reader<T: Send + 'static>(
        &self,
        blocking: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let lost = || StoreError::Unavailable("the read did not end".into());
        let permit = Arc::clone(&self.readers).acquire_owned().await;
        let permit = permit.map_err(|_| lost())?;
        let reading = tokio::task::spawn_blocking(move || {
            let result = blocking();
            drop(permit);
            result
        });
        reading.await.map_err(|_| lost())
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn history_id(&self) -> &HistoryId {
        self.open.tables.history_id()
    }

    fn highest_reading(&self) -> UnixMillis {
        self.open.tables.reading()
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.committer.writable()
    }

    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.committer.store_reading(reading).await
    }

    async fn put_run(&self, run: PutRun) -> PutOutcome {
        self.committer.put_run(run).await
    }

    async fn ask(&self, question: BoxFuture<'static, ()>) {
        let asked = self.on_reader(move || {
            MAY_BLOCK.set(true);
            block_on(question);
        });
        // A question that was lost is not answered, which its caller sees.
        let _ = asked.await;
    }

    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.committer.put_activity(conversation, window).await
    }

    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        self.committer
            .put_cursor(conversation, user, cursor, Window::of(read_at))
            .await
    }

    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let conversation = conversation.clone();
        self.read(move |tables| tables.head_message(&conversation))
            .await
    }

    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        self.read(move |tables| tables.slots(&range)).await
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        let (user, peer) = (user.clone(), peer.clone());
        self.read(move |tables| tables.both_cursors(&user, &peer))
            .await
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        self.read(move |tables| tables.peers(&user, after.as_ref(), max))
            .await
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        self.read(move |tables| tables.activity_from(&user, first, after.as_ref(), max))
            .await
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let (user, before) = (user.clone(), before.cloned());
        self.read(move |tables| tables.activity_back(&user, before.as_ref(), max))
            .await
    }
}
