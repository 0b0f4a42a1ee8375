//! The tables of the embedded engine: one fjall database, its keyspaces, and the
//! one write that the engine is made of. What is read stands in `reads`.
//!
//! **No reader sees what is not on disk.** fjall 3.1 commits a batch in this order,
//! under the lock of its journal: append the batch to the journal; sync it, since
//! every batch here asks for that; only then apply it to the memtables and publish
//! its sequence number. If appending or syncing fails it returns before the
//! memtables are touched, and refuses every later batch (`WriteBatch::commit`). So
//! what a read finds has been synced, and what failed is never found. At opening it
//! syncs the journal before it replays it. Reads go through snapshots, which see a
//! batch whole or not at all.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use duologue_proto::ids::{ConversationId, HistoryId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::faults::{self, Mutant, Point, planted};
use fjall::config::{FilterPolicy, PartitioningPolicy};
use fjall::{
    AbstractTree as _, CompressionType, Database, DatabaseBuilder, Keyspace, KeyspaceCreateOptions,
    PersistMode,
};

use super::journal::{Journals, mend};
use super::values::Unreadable;
use super::{bundle, keys, values};
use crate::committer::rules::{Changes, Stored};
use crate::store::{StoreError, StoredMessage};

/// Blocks of tables kept in memory, in bytes.
pub const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// A memtable of messages is written out once it is larger, in bytes. This and the
/// next are kept by a keyspace as they were when it was made.
pub const MESSAGES_BUFFER_BYTES: u64 = 32 * 1024 * 1024;
/// The same of every other keyspace.
pub const ROWS_BUFFER_BYTES: u64 = 2 * 1024 * 1024;
/// Journals on disk, in bytes, beyond which the oldest is made superfluous.
pub const JOURNALS_BYTES: u64 = 128 * 1024 * 1024;
/// Table files kept open.
pub const MAX_OPEN_FILES: usize = 128;
/// Threads that write out and compact tables. Of two or more, fjall 3.1 keeps the
/// first for writing out, and it spins while another one compacts.
pub const WORKERS: usize = 1;

const META: &str = "meta";
const MESSAGES: &str = "messages";
const CONVERSATIONS: &str = "conversations";
const ACTIVITY: &str = "activity";
const CURSORS: &str = "cursors";

/// The keyspaces, which fjall numbers from 1 in the order in which they were made; 0
/// is its own.
const KEYSPACES: usize = 5;

const HISTORY_ID: &str = "history_id";
const HIGHEST_READING: &str = "highest_reading";

/// All that is stored.
pub(super) struct Tables {
    history_id: HistoryId,
    highest_reading: AtomicU64,
    pub(super) messages: Keyspace,
    pub(super) conversations: Keyspace,
    pub(super) activity: Keyspace,
    pub(super) cursors: Keyspace,
    meta: Keyspace,
    // Dropped last: it closes the files.
    pub(super) database: Database,
}

impl Tables {
    /// Makes an empty history at `path`, and closes it: all of it is on disk.
    pub(super) fn create(path: &Path, history_id: &HistoryId) -> fjall::Result<()> {
        let database = open_database(path)?;
        for name in [MESSAGES, CONVERSATIONS, ACTIVITY, CURSORS] {
            database.keyspace(name, || options(name))?;
        }
        let meta = database.keyspace(META, || options(META))?;
        faults::point(Point::Opening);
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, HISTORY_ID, values::encode_history_id(history_id));
        batch.commit()
    }

    /// Opens the history at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = recover_database(path)?;
        faults::point(Point::Opening);
        Self::of(database)
    }

    fn of(database: Database) -> Result<Self, StoreError> {
        let keyspace = |name| {
            if !database.keyspace_exists(name) {
                return Err(Unreadable("a keyspace that is missing").into());
            }
            database
                .keyspace(name, || options(name))
                .map_err(engine_error)
        };
        let meta = keyspace(META)?;
        let id = meta.get(HISTORY_ID).map_err(engine_error)?;
        let id = id.ok_or(Unreadable("the history id"))?;
        let reading = meta.get(HIGHEST_READING).map_err(engine_error)?;
        let reading = reading.map_or(Ok(UnixMillis(0)), |value| values::decode_reading(&value))?;
        Ok(Self {
            history_id: values::decode_history_id(&id)?,
            highest_reading: AtomicU64::new(reading.0),
            messages: keyspace(MESSAGES)?,
            conversations: keyspace(CONVERSATIONS)?,
            activity: keyspace(ACTIVITY)?,
            cursors: keyspace(CURSORS)?,
            meta,
            database,
        })
    }

    /// The random id of this history.
    pub(super) fn history_id(&self) -> &HistoryId {
        &self.history_id
    }

    /// Makes changes durable, all or nothing; then readers see them. After an error
    /// they may be in the journal and show after a restart, but not before.
    pub(super) fn write(&self, changes: &Changes) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(durability()));
        for (user, peer) in &changes.conversations {
            let key = keys::conversation(user, peer);
            batch.insert(&self.conversations, key, values::ROW);
        }
        for (user, row) in &changes.activity {
            batch.insert(&self.activity, keys::activity(user, row), values::ROW);
        }
        let mut value = Vec::new();
        for (conversation, run) in &changes.runs {
            for messages in bundle::cut(run) {
                let Some(last) = messages.last() else { break };
                bundle::encode(messages, &mut value);
                let key = keys::message(conversation, last.envelope.seq);
                batch.insert(&self.messages, key, value.as_slice());
            }
        }
        for ((conversation, user), cursor) in &changes.cursors {
            let key = keys::cursor(conversation, user);
            batch.insert(&self.cursors, key, values::encode_cursor(*cursor));
        }
        if let Some(reading) = changes.reading {
            batch.insert(&self.meta, HIGHEST_READING, values::encode_reading(reading));
        }
        batch.commit()?;
        if let Some(reading) = changes.reading {
            self.highest_reading.store(reading.0, Ordering::Release);
        }
        Ok(())
    }

    /// Seals the memtables that are full, to be written out. fjall 3.1 leaves that to its
    /// worker and tells it so at every commit: while it is busy a memtable grows without
    /// an end, and with a thousand such messages waiting for it the worker waits for
    /// itself, for ever.
    pub(super) fn seal_full(&self) -> fjall::Result<()> {
        for keyspace in self.growing() {
            if keyspace.tree.active_memtable().size() > buffer_bytes(keyspace.name()) {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
    }

    /// The keyspaces that grow.
    pub(super) fn growing(&self) -> [&Keyspace; 5] {
        [
            &self.messages,
            &self.conversations,
            &self.activity,
            &self.cursors,
            &self.meta,
        ]
    }
}

impl Stored for Tables {
    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.slot(conversation, seq)
    }

    fn head(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        self.head_seq(conversation)
    }

    fn cursor(&self, conversation: &ConversationId, user: &UserId) -> Result<Cursor, StoreError> {
        let value = self.cursors.get(keys::cursor(conversation, user));
        match value.map_err(engine_error)? {
            Some(value) => Ok(values::decode_cursor(&value)?),
            None => Ok(Cursor::default()),
        }
    }

    fn reading(&self) -> UnixMillis {
        UnixMillis(self.highest_reading.load(Ordering::Acquire))
    }
}

/// What a commit waits for: a sync, but where the lack of one is planted.
fn durability() -> PersistMode {
    if planted(Mutant::NoSync) || planted(Mutant::AnswerBeforeSync) {
        PersistMode::Buffer
    } else {
        PersistMode::SyncData
    }
}

/// What an error of fjall means to a reader. Its text holds no stored content.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "fjall may add errors; whatever is not of the system is of the data"
)]
pub(super) fn engine_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            StoreError::Unavailable(error.to_string())
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn builder(path: &Path) -> DatabaseBuilder<Database> {
    Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNALS_BYTES)
        .max_cached_files(Some(MAX_OPEN_FILES))
        .worker_threads(WORKERS)
        // Messages are short, and a sync costs more than the bytes.
        .journal_compression(CompressionType::None)
}

fn open_database(path: &Path) -> fjall::Result<Database> {
    builder(path).open()
}

/// Opens a database of which a loss of power may have torn the journal's end; one
/// whose journal is damaged before that, or that lacks a file, is refused.
fn recover_database(path: &Path) -> Result<Database, StoreError> {
    let refused = |what: String| Err(StoreError::Corrupt(format!("{what}; nothing was changed")));
    for keyspace in 0..=KEYSPACES {
        // Without it fjall takes the keyspace for one that never came to be, and
        // removes it.
        let current = path.join(format!("keyspaces/{keyspace}/current"));
        let there = current.try_exists();
        if !there.map_err(|error| engine_error(error.into()))? {
            return refused(format!("{} is missing", current.display()));
        }
    }
    match mend(path).map_err(|error| engine_error(error.into()))? {
        Journals::Whole => {}
        Journals::Mended => tracing::warn!(
            "the journal's last batch was torn, and is dropped: unless the disk has damaged it \
             later, nothing in it was acknowledged"
        ),
        Journals::Missing(number) => {
            let journal = path.join(format!("{number}.jnl"));
            return refused(format!("{} is missing", journal.display()));
        }
        Journals::Damaged(journal, place) => {
            return refused(format!(
                "{} is damaged at byte {place}, before messages that were acknowledged",
                journal.display()
            ));
        }
    }
    open_database(path).map_err(engine_error)
}

fn buffer_bytes(name: &str) -> u64 {
    if name == MESSAGES {
        MESSAGES_BUFFER_BYTES
    } else {
        ROWS_BUFFER_BYTES
    }
}

fn options(name: &str) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default()
        .max_memtable_size(buffer_bytes(name))
        // Of the lower levels, where nearly everything is. Else the index of a table, a
        // block of a megabyte, would be read to find one key in it.
        .index_block_partitioning_policy(PartitioningPolicy::new([false, false, true]));
    // Messages are not kept apart from their keys, though compaction would then copy
    // less: fjall 3.1 does not sync the folder of such files before it drops the
    // journal, and what was acknowledged might be gone after a loss of power.
    match name {
        CURSORS | META => options,
        // Filters serve point reads, and of the others there are none.
        _ => options.filter_policy(FilterPolicy::disabled()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract_tests::{START, user};
    use crate::store::{Activity, Window};

    #[test]
    fn a_memtable_that_is_full_is_sealed_though_no_worker_does_it() {
        let directory = tempfile::tempdir().unwrap();
        Tables::create(directory.path(), &HistoryId::parse("h").unwrap()).unwrap();
        // All of fjall's are busy for as long as the test lasts.
        let database = builder(directory.path()).worker_threads_unchecked(0);
        let tables = Tables::of(database.open().unwrap()).unwrap();
        let sealed = || {
            let counts = tables.growing().map(Keyspace::sealed_memtable_count);
            counts.into_iter().sum::<usize>()
        };
        let write = |peers: std::ops::Range<u32>| {
            let window = Window::of(START);
            let rows = peers.map(|number| {
                let peer = user(&format!("{number:064}"));
                (user("alice"), Activity { window, peer })
            });
            let changes = Changes {
                activity: rows.collect(),
                ..Changes::default()
            };
            tables.write(&changes).unwrap();
            tables.seal_full().unwrap();
        };
        write(0..1);
        assert_eq!(sealed(), 0);
        write(1..40_000);
        assert_eq!(sealed(), 1);
        assert_eq!(tables.activity.tree.active_memtable().size(), 0);
        write(40_000..40_001);
        assert_eq!(sealed(), 1);
    }
}
