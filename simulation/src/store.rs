//! The engine in memory with reads that take time, as those of a disk do. What they
//! find is of some moment in between.

use std::time::Duration;

use async_trait::async_trait;
use duologue_history::memory::MemoryStore;
use duologue_history::store::{
    Activity, Cursors, PutOutcome, PutRun, SlotRange, Store, StoreError, StoredMessage, Window,
};
use duologue_proto::ids::{ConversationId, HistoryId, UnixMillis, UserId};
use duologue_proto::message::Cursor;

use crate::dice::Dice;

/// How long calls take.
pub(crate) struct Pace {
    dice: Dice,
    millis: u64,
}

impl Pace {
    /// Calls take up to so many milliseconds.
    pub(crate) fn new(dice: Dice, millis: u64) -> Self {
        Self { dice, millis }
    }

    /// Something in a call that takes time before and after it.
    pub(crate) async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.wait().await;
        let result = call.await;
        self.wait().await;
        result
    }

    async fn wait(&self) {
        let wait = self.dice.millis((0, self.millis / 2));
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A store whose reads take time.
pub(crate) struct SlowStore {
    store: MemoryStore,
    pace: Pace,
}

impl SlowStore {
    pub(crate) fn new(store: MemoryStore, pace: Pace) -> Self {
        Self { store, pace }
    }
}

#[async_trait]
impl Store for SlowStore {
    fn history_id(&self) -> &HistoryId {
        self.store.history_id()
    }

    fn highest_reading(&self) -> UnixMillis {
        self.store.highest_reading()
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.store.writable()
    }

    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.store.store_reading(reading).await
    }

    async fn put_run(&self, run: PutRun) -> PutOutcome {
        self.store.put_run(run).await
    }

    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.store.put_activity(conversation, window).await
    }

    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        self.store
            .put_cursor(conversation, user, cursor, read_at)
            .await
    }

    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.pace.around(self.store.head(conversation)).await
    }

    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        self.pace.around(self.store.slots(range)).await
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        self.pace.around(self.store.cursors(user, peer)).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        let call = self.store.conversations(user, after, max);
        self.pace.around(call).await
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let call = self.store.activity_from(user, first, after, max);
        self.pace.around(call).await
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let call = self.store.activity_back(user, before, max);
        self.pace.around(call).await
    }
}
