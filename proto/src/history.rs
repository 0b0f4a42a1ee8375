//! What is said between chat and history, as typed values.
//!
//! In one process these values are handed over as they are; between processes
//! they travel as [`v1`], which `wire::history` writes and reads.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{HistoryId, MessageId, Seq, UnixMillis, UserId};
use crate::message::{Cursor, Envelope};

/// The internal contract, generated from `proto/duologue/history`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    include!("generated/duologue.history.v1.rs");
}

/// Messages of one sender to one conversation, to be stored in this order.
///
/// Always a prefix of those with [`Intent::Store`] is settled: after the first
/// that is not, later ones are only searched for.
#[derive(Debug, Clone)]
pub struct Run {
    /// Who sends.
    pub sender: UserId,
    /// The other user of the conversation.
    pub peer: UserId,
    /// What is sent, the oldest first; 1 to 256.
    pub drafts: Vec<Draft>,
}

/// One message that is not stored yet, or of which that is not known.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// The idempotency key.
    pub message_id: MessageId,
    /// A sequence that existed before the first try; none: only the newest 256
    /// messages are searched.
    pub after_seq: Option<Seq>,
    /// `duologue.chat.v1.Body`, encoded and within its limits.
    pub body: Bytes,
    /// Whether to store it if it is not found.
    pub intent: Intent,
}

/// Without what is said.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("message_id", &self.message_id)
            .field("after_seq", &self.after_seq)
            .field("body_bytes", &self.body.len())
            .field("intent", &self.intent)
            .finish()
    }
}

/// What to do with a draft that is not stored yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Give it the next sequence.
    Store,
    /// Nothing: it will be deferred, unless an earlier try has stored it.
    FindOnly,
}

/// What became of one draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Stored {
        /// The stored message.
        envelope: Envelope,
        /// This try found it stored by an earlier one.
        duplicate: bool,
    },
    /// Another body is stored under this id. Final.
    MessageIdReused,
    /// It is not settled: send it again.
    Unsettled(Unsettled),
}

/// What is called with the answers of a run, one per draft, in their order.
///
/// It is called once, where the run is settled: for the runs of one conversation in the
/// order of what they stored. So it must neither block nor wait. Dropped before, it says
/// that no draft is settled.
pub struct OnAppended {
    drafts: usize,
    relay: Option<Relay>,
    take: Option<Box<dyn FnOnce(Vec<Appended>) + Send>>,
}

type Relay = Box<dyn FnOnce(&[Appended], bool) + Send>;

impl OnAppended {
    /// For a run of so many drafts.
    pub fn new(drafts: usize, take: impl FnOnce(Vec<Appended>) + Send + 'static) -> Self {
        Self {
            drafts,
            relay: None,
            take: Some(Box::new(take)),
        }
    }

    /// Calls this first, also if the answers come only after [`OnAppended::give_up`]:
    /// that is told, too, since then who asked does not get them.
    #[must_use]
    pub fn relaying(mut self, relay: impl FnOnce(&[Appended], bool) + Send + 'static) -> Self {
        self.relay = Some(Box::new(relay));
        self
    }

    /// The answers are here.
    pub fn call(mut self, answers: Vec<Appended>) {
        if let Some(relay) = self.relay.take() {
            relay(&answers, self.take.is_none());
        }
        if let Some(take) = self.take.take() {
            take(answers);
        }
    }

    /// Who asked waits no longer: no draft is settled, for all that is known. What is
    /// stored nevertheless shall be relayed.
    pub fn give_up(&mut self) {
        if let Some(take) = self.take.take() {
            let unavailable = Appended::Unsettled(Unsettled {
                reason: UnsettledReason::Unavailable,
                head: None,
                retry_after: None,
            });
            take(vec![unavailable; self.drafts]);
        }
    }
}

impl Drop for OnAppended {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for OnAppended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnAppended")
            .field("drafts", &self.drafts)
            .finish_non_exhaustive()
    }
}

/// Why a draft is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// The reason.
    pub reason: UnsettledReason,
    /// The head of the conversation, where it is known.
    pub head: Option<Seq>,
    /// Wait at least this long.
    pub retry_after: Option<Duration>,
}

/// Why a draft is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsettledReason {
    /// [`Intent::FindOnly`], or behind one of its run that is not settled; an
    /// earlier copy was searched for and is not there.
    NotFound,
    /// More than 256 messages follow `after_seq`.
    AfterSeqTooOld,
    /// `after_seq` is above the strongly read head.
    AfterSeqAhead,
    /// Too many writers at once.
    Contended,
    /// The store cannot be reached, refuses writes, or its answer is unknown.
    Unavailable,
}

/// Asks for messages of one conversation in order, read strongly.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// Who reads.
    pub user: UserId,
    /// The other user of the conversation.
    pub peer: UserId,
    /// Where to start.
    pub start: ReadStart,
    /// At most this many messages.
    pub max_messages: usize,
    /// At most this many bytes of envelopes, but always one message.
    pub max_bytes: usize,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStart {
    /// After this sequence.
    After(Seq),
    /// At the first message accepted at or after this time.
    AcceptedSince(UnixMillis),
}

/// Messages of one conversation.
#[derive(Debug, Clone)]
pub struct ReadPage {
    /// The sequence before the first message; the head if there is none.
    pub after: Seq,
    /// Consecutive messages from `after` on.
    pub messages: Vec<Envelope>,
    /// The head when the page was read.
    pub head: Seq,
}

/// Asks what changed for a user.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Whose conversations.
    pub user: UserId,
    /// From the last sync; empty: all conversations.
    pub token: String,
    /// Conversations to list in any case, by their other user.
    pub named: Vec<UserId>,
    /// Continues after this peer.
    pub after: Option<UserId>,
    /// At most this many conversations.
    pub max_conversations: usize,
}

/// A page of what changed, in order of the peer.
#[derive(Debug, Clone)]
pub struct SyncPage {
    /// The history that was read.
    pub history_id: HistoryId,
    /// Holds v, the time read before the rows. Of several pages, the first
    /// page's token counts.
    pub token: String,
    /// v less the slack: nothing stored before it can be unknown to who holds
    /// `token`.
    pub token_floor: UnixMillis,
    /// The same of the token in the request; none if there was none, or it was
    /// too old.
    pub since: Option<UnixMillis>,
    /// The conversations.
    pub conversations: Vec<SyncedConversation>,
    /// Whether more follow.
    pub more: bool,
}

/// A conversation that may have changed, read strongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedConversation {
    /// The other user.
    pub peer: UserId,
    /// The highest stored sequence.
    pub head: Seq,
    /// The user's cursor.
    pub own_cursor: Cursor,
    /// The peer's cursor.
    pub peer_cursor: Cursor,
}

/// What became of a cursor move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorAdvanced {
    /// It is durable.
    Stored {
        /// The stored cursor: the larger of what was stored and what was asked.
        cursor: Cursor,
        /// Whether this move changed it. It may be said of one that another replica
        /// has made just before.
        moved: bool,
    },
    /// It is above the strongly read head; nothing was changed.
    AboveHead {
        /// The head.
        head: Seq,
    },
}

/// Asks for a page of messages.
#[derive(Debug, Clone)]
pub struct ListMessages {
    /// Who reads.
    pub user: UserId,
    /// The other user of the conversation.
    pub peer: UserId,
    /// At most this many; within the limits.
    pub page_size: usize,
    /// Empty: the first page.
    pub page_token: String,
    /// The oldest first.
    pub forward: bool,
    /// Only above this sequence.
    pub after_seq: Option<Seq>,
    /// Only below this sequence.
    pub before_seq: Option<Seq>,
}

/// A page of messages.
#[derive(Debug, Clone)]
pub struct MessagesPage {
    /// In the order asked for.
    pub messages: Vec<Envelope>,
    /// Empty: this was the last page.
    pub next_page_token: String,
    /// The head when the page was read.
    pub head: Seq,
}

/// Asks for a page of conversations, the most recently active first.
#[derive(Debug, Clone)]
pub struct ListConversations {
    /// Whose conversations.
    pub user: UserId,
    /// At most this many; within the limits.
    pub page_size: usize,
    /// Empty: the first page.
    pub page_token: String,
}

/// A page of conversations.
#[derive(Debug, Clone)]
pub struct ConversationsPage {
    /// The most recently active first.
    pub conversations: Vec<ConversationSummary>,
    /// Empty: this was the last page.
    pub next_page_token: String,
}

/// One conversation as its user sees it.
#[derive(Debug, Clone)]
pub struct ConversationSummary {
    /// The other user.
    pub peer: UserId,
    /// The message at the head.
    pub last_message: Envelope,
    /// The peer's messages after the user's read cursor that count as unread.
    pub unread: u64,
    /// The user's cursor.
    pub own_cursor: Cursor,
    /// The peer's cursor.
    pub peer_cursor: Cursor,
}

/// Why history cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The store cannot be reached or has stopped.
    #[error("history is not available")]
    Unavailable {
        /// Wait at least this long.
        retry_after: Option<Duration>,
    },
    /// A sync token that is garbled, of another user, or of another history.
    #[error("the sync token is not one of this user and history")]
    InvalidSyncToken,
    /// A page token that is garbled or of another query.
    #[error("the page token is not one of this query")]
    InvalidPageToken,
    /// A position above the strongly read head.
    #[error("the position is above the head {head}")]
    PositionAhead {
        /// The head.
        head: Seq,
    },
}
