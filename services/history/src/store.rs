//! The port to an engine that keeps conversations, and what it promises.
//!
//! Engines: embedded (fjall), in memory, and DynamoDB. The rules of appending,
//! syncing and paging stand once, above this port; an engine decides nothing.

use async_trait::async_trait;
use duologue_proto::ids::{ConversationId, HistoryId, Seq, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_runtime::clock::{Random, RandomExt as _};
use futures_util::future::BoxFuture;

/// A ten-minute window of the activity index: time ÷ 10 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(pub u64);

impl Window {
    /// How long a window is, in milliseconds.
    pub const MILLIS: u64 = 10 * 60 * 1_000;

    /// The window that a time lies in.
    pub fn of(time: UnixMillis) -> Self {
        Self(time.0 / Self::MILLIS)
    }

    /// The first moment of the window.
    pub fn start(self) -> UnixMillis {
        UnixMillis(self.0.saturating_mul(Self::MILLIS))
    }
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The message with its place.
    pub envelope: Envelope,
    /// How many messages that count as unread each side has sent so far, this
    /// one included; by [`ConversationId::side_of`] the sender. In a
    /// conversation with oneself all count on side 0.
    pub sent: [u64; 2],
}

impl StoredMessage {
    /// Whether it belongs to a conversation.
    pub(crate) fn is_of(&self, conversation: &ConversationId) -> bool {
        let between = (&self.envelope.sender, &self.envelope.recipient);
        let (low, high) = (conversation.low(), conversation.high());
        between == (low, high) || between == (high, low)
    }
}

/// Rows that must be durable before, or together with, what they announce:
/// (user, window, conversation) for both users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityRows {
    /// The window of history's clock at this try.
    pub window: Window,
    /// Write the rows. False if this writer knows that they are durable.
    pub write: bool,
    /// Also write both users' conversation rows: with slot 1.
    pub new_conversation: bool,
}

/// Consecutive slots of one conversation to be filled.
#[derive(Debug, Clone)]
pub struct PutRun {
    /// The conversation.
    pub conversation: ConversationId,
    /// The messages; their sequences are consecutive. Never empty.
    pub messages: Vec<StoredMessage>,
    /// Durable before the messages, or together with them.
    pub rows: ActivityRows,
    /// The clock reading that `rows.window` comes from. A put is not sent later
    /// than 10 s after it by the engine's clock.
    pub read_at: UnixMillis,
}

/// What became of a [`PutRun`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOutcome {
    /// So many messages, from the first on, are durable.
    pub stored: usize,
    /// Why the rest are not; none if all are.
    pub stopped: Option<PutStop>,
}

/// Why a slot was not filled by this put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutStop {
    /// The slot holds this message already. Nothing was changed.
    Occupied(Box<StoredMessage>),
    /// The reading is too old; nothing of this slot was sent.
    TooLate,
    /// It may be stored or not: read the same slot strongly, or try it again.
    Unknown,
    /// It is not stored, and will not be by this put.
    Failed(StoreError),
}

/// Whether a read must see every write that was answered before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It must.
    Strong,
    /// It may lag. What it finds is true; what it misses proves nothing.
    Eventual,
}

/// Asks for consecutive slots.
#[derive(Debug, Clone)]
pub struct SlotRange {
    /// The conversation.
    pub conversation: ConversationId,
    /// The lowest sequence wanted; at least 1.
    pub first: Seq,
    /// The highest sequence wanted; slots above the head are absent.
    pub last: Seq,
    /// From the highest down.
    pub backward: bool,
    /// At most this many messages.
    pub max_messages: usize,
    /// At most this many bytes of envelopes, but always one message.
    pub max_bytes: usize,
    /// How fresh.
    pub consistency: Consistency,
}

/// What is stored of the cursors of one conversation, as one of its users sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursors {
    /// The cursor of the user who was asked for.
    pub own: Cursor,
    /// The cursor of the other side; the same in a conversation with oneself.
    pub peer: Cursor,
}

/// One activity row of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activity {
    /// The window.
    pub window: Window,
    /// The other user of the conversation.
    pub peer: UserId,
}

/// Why an engine cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or is overloaded; nothing was changed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It has stopped writing for good, because a write failed. Reads go on.
    /// Whether the operation that meets this was stored is not known: it may have
    /// been part of the write that failed. (For a put that is [`PutStop::Unknown`];
    /// a put that fails with this error was not part of it.)
    #[error("the store has stopped writing: {0}")]
    Stopped(String),
    /// What is stored is not what this version writes.
    #[error("the store holds data that cannot be read: {0}")]
    Corrupt(String),
    /// The request breaks a rule of this port, such as a slot whose predecessor
    /// is absent: a defect of the caller. Nothing was changed.
    #[error("the store refuses the request: {0}")]
    Refused(&'static str),
}

/// An engine that keeps conversations.
///
/// Every answer of "stored" means durable: synced to disk, or confirmed by
/// DynamoDB. No read shows what is not.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The random id of this history.
    fn history_id(&self) -> &HistoryId;

    /// The highest clock reading that is stored. History's time is the larger
    /// of it and the clock.
    fn highest_reading(&self) -> UnixMillis;

    /// Whether it takes writes. An error is for good: the process must restart.
    fn writable(&self) -> Result<(), StoreError>;

    /// Whether `now`, a reading of history's time just taken, is near the time of every
    /// other writer of the engine. An engine with one writer has none.
    async fn check_time(&self, now: UnixMillis) -> Result<(), StoreError> {
        let _ = now;
        Ok(())
    }

    /// The same, as far as it is known without asking.
    fn agrees(&self, now: UnixMillis) -> bool {
        let _ = now;
        true
    }

    /// The same, by asking in any case: so it tells whether the engine can be reached.
    async fn probe(&self, now: UnixMillis) -> Result<(), StoreError> {
        self.check_time(now).await
    }

    /// Makes sure that time does not run back behind a clock reading, also over a
    /// restart: makes it durable, unless what [`Store::check_time`] refuses does that.
    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError>;

    /// Fills consecutive slots, each only if it is absent: always a prefix. The
    /// rows are durable before the first message is, or with it, and stay even
    /// if the messages fail. A put that is tried again is identical to the byte.
    async fn put_run(&self, run: PutRun) -> PutOutcome;

    /// Runs a question that reads several times and writes nothing, where its reads cost
    /// least.
    async fn ask(&self, question: BoxFuture<'static, ()>) {
        question.await;
    }

    /// Writes both users' activity rows of a window, blindly.
    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError>;

    /// Raises a user's cursor to at least `cursor`, and writes both users'
    /// activity rows of the window of `read_at` before it or with it. Returns what is
    /// stored. An engine with other writers does not send it later than a put.
    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError>;

    /// The same where the caller knows that both rows are durable: an engine that pays
    /// for each need not write them again.
    async fn raise_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        self.put_cursor(conversation, user, cursor, read_at).await
    }

    /// The message at the head, read strongly; none in an empty conversation.
    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError>;

    /// Consecutive messages. With [`Consistency::Strong`] every stored one in
    /// the range, up to the maxima; else an unbroken run from the end that the
    /// range starts at.
    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError>;

    /// The stored cursors of `user` and `peer` in their conversation, read
    /// strongly; zeros where nothing is stored.
    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError>;

    /// The same of `user` alone: an engine that pays for each need not read both.
    async fn cursor(&self, user: &UserId, peer: &UserId) -> Result<Cursor, StoreError> {
        Ok(self.cursors(user, peer).await?.own)
    }

    /// The peers of a user's conversations, in order, after `after`; read
    /// strongly.
    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError>;

    /// A user's activity rows from `first` on, in order of (window, peer), after
    /// `after`; read strongly.
    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError>;

    /// A user's activity rows in the reverse order of (window, peer), before
    /// `before`.
    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError>;
}

/// As many messages as a range allows, from the first on. For engines that read
/// one message after another.
pub(crate) fn take_within<E>(
    messages: impl Iterator<Item = Result<StoredMessage, E>>,
    range: &SlotRange,
) -> Result<Vec<StoredMessage>, E> {
    let mut taken: Vec<StoredMessage> = Vec::new();
    let mut bytes: usize = 0;
    for message in messages.take(range.max_messages) {
        let message = message?;
        bytes = bytes.saturating_add(message.envelope.wire().len());
        if bytes > range.max_bytes && !taken.is_empty() {
            break;
        }
        taken.push(message);
    }
    Ok(taken)
}

/// A fresh id for a history that is being made.
pub(crate) fn new_history_id(random: &dyn Random) -> HistoryId {
    HistoryId::parse(&random.id()).expect("32 hexadecimal digits are within the rule")
}
