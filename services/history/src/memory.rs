//! The engine in memory: for tests, and for `--data memory`.
//!
//! Writes go through the same writer and the same rules as those of the embedded
//! engine. Nothing outlives the process, unless there is a [`Journal`]: so a
//! simulation gives it a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use duologue_proto::ids::{ConversationId, HistoryId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::{Clock, Random};
use duologue_runtime::faults::{Mutant, planted};

use crate::committer::rules::{Changes, Stored, plan};
use crate::committer::{CommitError, CommitStep, Committer, Operation, Outcome};
use crate::store::{
    Activity, Cursors, PutOutcome, PutRun, SlotRange, Store, StoreError, StoredMessage, Window,
    new_history_id, take_within,
};

/// A history in memory.
#[derive(Debug)]
pub struct MemoryStore {
    history_id: HistoryId,
    tables: Arc<RwLock<Tables>>,
    committer: Committer,
}

impl MemoryStore {
    /// An empty history. It commits on a task of the current runtime.
    pub fn new(clock: Arc<dyn Clock>, random: &dyn Random) -> Self {
        Self::recover(new_history_id(random), [], NoJournal, clock)
    }

    /// The history that was written to a journal, in the order of writing. It
    /// commits to that journal on a task of the current runtime.
    pub fn recover(
        history_id: HistoryId,
        groups: impl IntoIterator<Item = Changes>,
        journal: impl Journal,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut tables = Tables::default();
        groups.into_iter().for_each(|group| tables.apply(group));
        let tables = Arc::new(RwLock::new(tables));
        let step = MemoryStep {
            tables: Arc::clone(&tables),
            journal,
            clock,
        };
        Self {
            history_id,
            tables,
            committer: Committer::on_task(step),
        }
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a history in memory writes what shall outlive its process.
pub trait Journal: Send + 'static {
    /// Appends what a group changes. It is not durable yet.
    fn write(&mut self, changes: &Changes);

    /// Returns once everything written is durable. After an error, which says that
    /// this is not known, nothing more is written.
    fn sync(&mut self) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// Nothing outlives the process.
struct NoJournal;

impl Journal for NoJournal {
    fn write(&mut self, _: &Changes) {}

    async fn sync(&mut self) -> Result<(), CommitError> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Tables {
    messages: BTreeMap<(ConversationId, Seq), StoredMessage>,
    conversations: BTreeMap<UserId, BTreeSet<UserId>>,
    activity: BTreeMap<UserId, BTreeMap<Window, BTreeSet<UserId>>>,
    cursors: BTreeMap<(ConversationId, UserId), Cursor>,
    reading: UnixMillis,
}

impl Tables {
    fn apply(&mut self, changes: Changes) {
        for message in changes.runs.into_values().flatten() {
            let slot = (message.envelope.conversation(), message.envelope.seq);
            self.messages.insert(slot, message);
        }
        self.cursors.extend(changes.cursors);
        for (user, peer) in changes.conversations {
            self.conversations.entry(user).or_default().insert(peer);
        }
        for (user, Activity { window, peer }) in changes.activity {
            let windows = self.activity.entry(user).or_default();
            windows.entry(window).or_default().insert(peer);
        }
        self.reading = changes.reading.unwrap_or(self.reading);
    }

    /// The messages of a range, in ascending order.
    fn run(
        &self,
        conversation: &ConversationId,
        first: Seq,
        last: Seq,
    ) -> impl DoubleEndedIterator<Item = &StoredMessage> {
        let slots = (first <= last)
            .then(|| (conversation.clone(), first)..=(conversation.clone(), last))
            .map(|range| self.messages.range(range));
        slots.into_iter().flatten().map(|(_, message)| message)
    }
}

impl Stored for Tables {
    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        Ok(self.messages.get(&(conversation.clone(), seq)).cloned())
    }

    fn cursor(&self, conversation: &ConversationId, user: &UserId) -> Result<Cursor, StoreError> {
        let key = (conversation.clone(), user.clone());
        Ok(self.cursors.get(&key).copied().unwrap_or_default())
    }

    fn reading(&self) -> UnixMillis {
        self.reading
    }

    fn head(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        let head = self.run(conversation, Seq::ZERO, Seq(u64::MAX)).next_back();
        Ok(head.map_or(Seq::ZERO, |message| message.envelope.seq))
    }
}

struct MemoryStep<J> {
    tables: Arc<RwLock<Tables>>,
    journal: J,
    clock: Arc<dyn Clock>,
}

impl<J: Journal> CommitStep for MemoryStep<J> {
    async fn commit(&mut self, group: Vec<Operation>) -> Result<Vec<Outcome>, CommitError> {
        let (changes, outcomes) = {
            let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
            plan(&*tables, group, self.clock.now())
        };
        if !changes.is_empty() {
            if planted(Mutant::AnswerBeforeSync) {
                // What is written from here on is synced with the next group.
                self.journal.sync().await?;
            }
            self.journal.write(&changes);
            if !planted(Mutant::AnswerBeforeSync) && !planted(Mutant::NoSync) {
                self.journal.sync().await?;
            }
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            tables.apply(changes);
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn history_id(&self) -> &HistoryId {
        &self.history_id
    }

    fn highest_reading(&self) -> UnixMillis {
        self.tables().reading
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
        let tables = self.tables();
        let mut run = tables.run(conversation, Seq::ZERO, Seq(u64::MAX));
        Ok(run.next_back().cloned())
    }

    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        let tables = self.tables();
        let run = tables.run(&range.conversation, range.first, range.last);
        let run = run.cloned().map(Ok);
        if range.backward {
            take_within(run.rev(), &range)
        } else {
            take_within(run, &range)
        }
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        let conversation = ConversationId::of(user, peer);
        let tables = self.tables();
        Ok(Cursors {
            own: tables.cursor(&conversation, user)?,
            peer: tables.cursor(&conversation, peer)?,
        })
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        let tables = self.tables();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let peers = tables.conversations.get(user).into_iter();
        let peers = peers.flat_map(|peers| peers.range::<UserId, _>((after, Bound::Unbounded)));
        Ok(peers.take(max).cloned().collect())
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let tables = self.tables();
        let first = after.map_or(first, |after| after.window.max(first));
        let windows = tables.activity.get(user).into_iter();
        let rows = windows
            .flat_map(|windows| windows.range(first..))
            .flat_map(|(window, peers)| peers.iter().map(|peer| row(*window, peer)))
            .filter(|row| after.is_none_or(|after| row > after));
        Ok(rows.take(max).collect())
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let tables = self.tables();
        let last = before.map_or(Window(u64::MAX), |before| before.window);
        let windows = tables.activity.get(user).into_iter();
        let rows = windows
            .flat_map(|windows| windows.range(..=last).rev())
            .flat_map(|(window, peers)| peers.iter().rev().map(|peer| row(*window, peer)))
            .filter(|row| before.is_none_or(|before| row < before));
        Ok(rows.take(max).collect())
    }
}

fn row(window: Window, peer: &UserId) -> Activity {
    Activity {
        window,
        peer: peer.clone(),
    }
}
