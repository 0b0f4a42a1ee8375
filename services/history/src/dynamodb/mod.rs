//! The engine on DynamoDB: any number of replicas over the same two tables.
//!
//! No index, no transaction, no scan. Nothing is kept in memory but the highest reading
//! of this replica. Unlike an engine with one writer it does not look at the slot before
//! the one that it fills: its writers know that it is filled, for they have seen it, and
//! to look would cost a read for every message.
//!
//! Time: several replicas share no highest reading. Each compares history's time with
//! DynamoDB's, and refuses to go on while it is more than [`MAX_SKEW`] off; so two
//! replicas, or one before and after its restart, differ by at most twice that, which
//! the slack of a sync covers.

mod identity;
mod puts;
mod reads;
mod rows;
pub mod schema;
mod values;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use duologue_dynamodb::tables::{Report, check};
use duologue_dynamodb::{DynamoDb, Failure};
use duologue_proto::ids::{ConversationId, HistoryId, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::{Clock, Random};

use crate::store::{
    Activity, Cursors, PutOutcome, PutRun, SlotRange, Store, StoreError, StoredMessage, Window,
};
pub use identity::MAX_IDENTITY_ROUNDS;
use puts::Reading;
pub use reads::MAX_PAGE_SLOTS;
use rows::RowRange;
pub use rows::{MAX_CURSOR_ROUNDS, MAX_PAGE_ROWS};
pub use schema::TABLES;
use schema::{MESSAGES, USERS};

/// How far history's time may be off DynamoDB's.
pub const MAX_SKEW: Duration = Duration::from_secs(30);

/// A history on DynamoDB.
pub struct DynamoStore {
    database: DynamoDb,
    clock: Arc<dyn Clock>,
    history_id: HistoryId,
    /// Of this replica.
    highest_reading: AtomicU64,
    messages: String,
    users: String,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The tables are not there, or not as they must be.
    #[error(transparent)]
    Tables(#[from] Report),
    /// The history cannot be named.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DynamoStore {
    /// Opens the history in tables that are there. A history that has no id gets one.
    pub async fn open(
        database: DynamoDb,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        let tables = check(&database, &TABLES).await?;
        let facts = tables.first().ok_or(schema::corrupt("no tables"))?;
        let history_id = identity::establish(&database, facts, random).await?;
        Ok(Self {
            messages: database.table(&MESSAGES),
            users: database.table(&USERS),
            database,
            clock,
            history_id,
            highest_reading: AtomicU64::new(0),
        })
    }

    fn reading(&self) -> UnixMillis {
        UnixMillis(self.highest_reading.load(Ordering::SeqCst))
    }

    fn raise_reading(&self, reading: UnixMillis) {
        self.highest_reading.fetch_max(reading.0, Ordering::SeqCst);
    }

    /// A reading of now, if the clocks agree.
    async fn checked(&self, read_at: UnixMillis) -> Result<Reading, StoreError> {
        let now = self.clock.now().max(self.reading());
        self.check_time(now).await?;
        Ok(Reading::of(self, read_at))
    }

    fn skew(&self, now: UnixMillis) -> Option<Duration> {
        self.database.server_time().least_skew(now)
    }
}

#[async_trait]
impl Store for DynamoStore {
    fn history_id(&self) -> &HistoryId {
        &self.history_id
    }

    fn highest_reading(&self) -> UnixMillis {
        self.reading()
    }

    fn writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn agrees(&self, now: UnixMillis) -> bool {
        self.skew(now).is_some_and(|skew| skew <= MAX_SKEW)
    }

    /// Between answers DynamoDB's time is reckoned; what seems to be off may be so
    /// since the machine slept, and is judged by a new answer.
    async fn check_time(&self, now: UnixMillis) -> Result<(), StoreError> {
        if self.agrees(now) {
            return Ok(());
        }
        self.probe(now).await
    }

    async fn probe(&self, now: UnixMillis) -> Result<(), StoreError> {
        identity::find(&self.database, false).await?;
        match self.skew(now) {
            Some(_) if self.agrees(now) => Ok(()),
            Some(skew) => {
                let text = format!("history's time is {} s off DynamoDB's", skew.as_secs());
                Err(StoreError::Unavailable(text))
            }
            None => Err(StoreError::Unavailable("DynamoDB tells no time".into())),
        }
    }

    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.raise_reading(reading);
        Ok(())
    }

    async fn put_run(&self, run: PutRun) -> PutOutcome {
        self.fill(run).await
    }

    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.mark(conversation, Some(window), false).await?;
        self.raise_reading(window.start());
        Ok(())
    }

    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        let peer = peer_of(conversation, user)?;
        let reading = self.checked(read_at).await?;
        self.put_activity(conversation, Window::of(read_at)).await?;
        self.raise_to(user, &peer, cursor, &reading).await
    }

    async fn raise_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        let peer = peer_of(conversation, user)?;
        let reading = self.checked(read_at).await?;
        self.raise_to(user, &peer, cursor, &reading).await
    }

    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.last_message(conversation).await
    }

    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        self.messages(range).await
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        self.read_cursors(user, peer).await
    }

    async fn cursor(&self, user: &UserId, peer: &UserId) -> Result<Cursor, StoreError> {
        self.read_cursor(user, peer).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        let range = RowRange {
            user,
            between: schema::conversations(),
            after: after.map(schema::conversation),
            backward: false,
            max,
        };
        self.rows(range, schema::peer_of).await
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let range = RowRange {
            user,
            between: schema::activity_from(first),
            after: after
                .filter(|row| row.window >= first)
                .map(schema::activity),
            backward: false,
            max,
        };
        self.rows(range, schema::activity_of).await
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let range = RowRange {
            user,
            between: schema::activity_from(Window(0)),
            after: before.map(schema::activity),
            backward: true,
            max,
        };
        self.rows(range, schema::activity_of).await
    }
}

fn peer_of(conversation: &ConversationId, user: &UserId) -> Result<UserId, StoreError> {
    let mut sides = conversation.sides();
    let side = sides.find(|(of, _)| of == user);
    let refused = StoreError::Refused("the user is not of the conversation");
    side.map(|(_, peer)| peer).ok_or(refused)
}

/// Whatever fails, nothing that is answered depends on it; why it failed is logged
/// where it is handled.
fn unavailable(failure: Failure) -> StoreError {
    StoreError::Unavailable(failure.to_string())
}
