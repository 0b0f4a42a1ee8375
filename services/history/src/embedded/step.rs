//! The commit step of the embedded engine: one batch per group, synced. It blocks,
//! so it has a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::Clock;
use duologue_runtime::faults::{Mutant, planted};
use fjall::{Keyspace, PersistMode};

use super::tables::Tables;
use crate::committer::rules::{Changes, Stored, plan};
use crate::committer::{CommitError, CommitStep, Operation, Outcome};
use crate::store::{StoreError, StoredMessage};

/// Memtables of a keyspace that may wait to be written out before the writer waits
/// for them.
pub const MAX_SEALED_MEMTABLES: usize = 2;
/// Tables of a keyspace that may wait for compaction before the writer waits.
pub const MAX_LEVEL_0_TABLES: usize = 24;
/// How often the writer looks whether it may go on.
pub const ROOM_POLL: Duration = Duration::from_millis(5);
/// Conversations whose head the writer remembers; more, and it forgets all of them.
pub const MAX_KNOWN_HEADS: usize = 16_384;

/// Writes groups to the tables.
pub(super) struct EmbeddedStep {
    tables: Arc<Tables>,
    clock: Arc<dyn Clock>,
    /// Heads of conversations. There is no other writer.
    heads: HashMap<ConversationId, Seq>,
}

impl EmbeddedStep {
    pub(super) fn new(tables: Arc<Tables>, clock: Arc<dyn Clock>) -> Self {
        Self {
            tables,
            clock,
            heads: HashMap::new(),
        }
    }

    /// Remembers the heads that were made durable.
    fn learn(&mut self, changes: Changes) {
        if self.heads.len() + changes.runs.len() > MAX_KNOWN_HEADS {
            self.heads.clear();
        }
        for (conversation, run) in changes.runs {
            if let Some(last) = run.last() {
                self.heads.insert(conversation, last.envelope.seq);
            }
        }
    }

    /// Waits until the tables keep up. fjall would wait too, at higher numbers, but
    /// inside a commit and without an end if its worker has failed meanwhile.
    fn wait_for_room(&self) -> fjall::Result<()> {
        self.tables.seal_full()?;
        while self.tables.growing().into_iter().any(is_behind) {
            // Syncs nothing; it fails if a worker of fjall has failed, say because
            // the disk is full.
            self.tables.database.persist(PersistMode::Buffer)?;
            thread::sleep(ROOM_POLL);
        }
        Ok(())
    }
}

impl CommitStep for EmbeddedStep {
    async fn commit(&mut self, group: Vec<Operation>) -> Result<Vec<Outcome>, CommitError> {
        let failed = |error: fjall::Error| CommitError(error.to_string());
        self.wait_for_room().map_err(failed)?;
        if planted(Mutant::AnswerBeforeSync) {
            // What was answered before is synced now.
            let synced = self.tables.database.persist(PersistMode::SyncData);
            synced.map_err(failed)?;
        }
        let (changes, outcomes) = plan(&*self, group, self.clock.now());
        if !changes.is_empty() {
            self.tables.write(&changes).map_err(failed)?;
            self.learn(changes);
        }
        Ok(outcomes)
    }
}

impl Stored for EmbeddedStep {
    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.tables.message(conversation, seq)
    }

    fn cursor(&self, conversation: &ConversationId, user: &UserId) -> Result<Cursor, StoreError> {
        self.tables.cursor(conversation, user)
    }

    fn reading(&self) -> UnixMillis {
        self.tables.reading()
    }

    fn head(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        match self.heads.get(conversation) {
            Some(head) => Ok(*head),
            None => self.tables.head_seq(conversation),
        }
    }
}

fn is_behind(keyspace: &Keyspace) -> bool {
    keyspace.sealed_memtable_count() > MAX_SEALED_MEMTABLES
        || keyspace.l0_table_count() > MAX_LEVEL_0_TABLES
}
