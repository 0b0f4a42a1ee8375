//! The frames of a session as typed values: what a device says and is told.
//!
//! `grpc` converts them to and from the wire; nothing here knows the wire.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use duologue_proto::ids::{
    DeviceId, HistoryId, MessageId, NodeId, Seq, SessionId, UnixMillis, UserId,
};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::UserPresence;
use duologue_runtime::refusal::Refusal;

/// A number that the client chose, echoed in the answer; 0: none.
pub type Ref = u64;

/// A frame from the device.
#[derive(Debug)]
pub enum Up {
    /// Opens the session, or fails to.
    Hello(Result<Box<Hello>, Refusal>),
    /// Asks to store a message.
    Send(Send),
    /// A send that no try could make valid; its ids are as they came.
    InvalidSend(Rejection),
    /// Gives up a deferred message.
    Abandon(MessageId),
    /// Moves cursors.
    Advance(Advance),
    /// A cursor move that no try could make valid.
    InvalidAdvance(CursorRejection),
    /// Asks for a pong.
    Ping,
    /// Breaks the contract; the session ends.
    Broken(Refusal),
}

/// Opens a session and says what the device has.
#[derive(Debug, Clone, Default)]
pub struct Hello {
    /// The device and its connect number; none: a fresh device.
    pub device: Option<(DeviceId, u64)>,
    /// The history that token and positions belong to.
    pub history_id: Option<HistoryId>,
    /// From the last `CaughtUp`; empty: none.
    pub sync_token: String,
    /// What the device holds without a gap.
    pub positions: Vec<(UserId, Seq)>,
    /// Cursor moves that it has not seen confirmed.
    pub cursors: Vec<Result<Advance, CursorRejection>>,
    /// The client's name and version, for the log.
    pub client: String,
}

/// A message to be stored.
#[derive(Clone)]
pub struct Send {
    /// The other user.
    pub peer: UserId,
    /// The idempotency key.
    pub message_id: MessageId,
    /// A sequence from before the first try.
    pub after_seq: Option<Seq>,
    /// `duologue.chat.v1.Body`, encoded.
    pub body: Bytes,
    /// The user's rate of sends is above the limit: wait this long.
    pub over_rate: Option<Duration>,
    /// The text is longer than this deployment allows, though not than the
    /// contract does: refuse it, unless it is stored already.
    pub too_long: Option<Box<Rejection>>,
}

/// Without what is said.
impl fmt::Debug for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("peer", &self.peer)
            .field("message_id", &self.message_id)
            .field("after_seq", &self.after_seq)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A cursor move.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The other user.
    pub peer: UserId,
    /// Where the cursors should be at least.
    pub asked: Cursor,
}

/// Why a message is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedReason {
    /// A field is outside its rule.
    Invalid,
    /// The text is too long.
    TooLong,
    /// Another body is stored under this id.
    MessageIdReused,
}

/// A message refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The message's id as it was sent.
    pub message_id: String,
    /// The other user as it was sent.
    pub peer: String,
    /// Why.
    pub reason: RejectedReason,
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
}

/// Why a message is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferredReason {
    /// An earlier message of the session to the conversation is deferred.
    BehindEarlier,
    /// The user sends too fast.
    RateLimited,
    /// Too many messages follow `after_seq`.
    AfterSeqTooOld,
    /// `after_seq` is above the head.
    AfterSeqAhead,
    /// Too many writers.
    Contended,
    /// The store cannot be reached.
    Unavailable,
}

/// Why a cursor move is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorRejectedReason {
    /// A field is outside its rule.
    Invalid,
    /// It is above the head.
    AboveHead,
    /// The store cannot be reached.
    Unavailable,
}

/// A refused cursor move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRejection {
    /// The other user as it was sent.
    pub peer: String,
    /// Why.
    pub reason: CursorRejectedReason,
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
    /// The head, where the cursor was above it.
    pub head: Option<Seq>,
}

/// Why the server ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// A newer session of the device took over.
    Superseded,
    /// The node stops.
    ShuttingDown,
    /// The token expired.
    Unauthenticated,
    /// The client broke the contract.
    ProtocolError,
    /// Not the history that the client knows.
    HistoryChanged,
    /// The session's state is full.
    Resync,
    /// Nothing was heard from the client for too long.
    Idle,
    /// The server failed.
    Internal,
}

/// What a new session is told first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The caller.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The session.
    pub session: SessionId,
    /// The node.
    pub node: NodeId,
    /// The history.
    pub history_id: HistoryId,
    /// The server's clock.
    pub server_time: UnixMillis,
    /// The longest text in force.
    pub max_text_bytes: usize,
}

/// A frame to the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    /// The session is open.
    Welcome(Box<Welcome>),
    /// A message of this session is durable.
    Stored {
        /// The message's id.
        message_id: MessageId,
        /// The other user.
        peer: UserId,
        /// Its place.
        seq: Seq,
        /// An earlier try had stored it.
        duplicate: bool,
        /// When it was accepted.
        accepted_at: UnixMillis,
    },
    /// A message is refused for good.
    Rejected(Box<Rejection>),
    /// A message is not settled.
    Deferred {
        /// The message's id.
        message_id: MessageId,
        /// The other user.
        peer: UserId,
        /// Why.
        reason: DeferredReason,
        /// Wait at least this long.
        retry_after: Option<Duration>,
        /// The head, where it is known.
        head: Option<Seq>,
    },
    /// A message of one of the user's conversations.
    Delivered(Envelope),
    /// A cursor move is stored.
    CursorStored {
        /// The other user.
        peer: UserId,
        /// What is stored.
        cursor: Cursor,
    },
    /// A cursor move is refused.
    CursorRejected(Box<CursorRejection>),
    /// A cursor moved.
    Receipt {
        /// The other user.
        peer: UserId,
        /// Whose cursor.
        user: UserId,
        /// Where it is.
        cursor: Cursor,
    },
    /// A user went online or offline.
    Presence(UserPresence),
    /// What was shown of presence is not true any longer.
    PresenceReset,
    /// Everything up to here has been shown.
    CaughtUp {
        /// For the next `Hello`.
        token: String,
    },
    /// The answer to a ping.
    Pong,
    /// The stream is alive.
    Heartbeat,
    /// The last frame.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// For a person.
        detail: String,
        /// Wait at least this long.
        retry_after: Option<Duration>,
    },
}

/// What any frame takes beside its variable parts, in bytes.
pub const FRAME: usize = 256;

impl Down {
    /// About what the frame takes in memory, and no less than on the wire; the
    /// outbox's limit counts it.
    pub fn cost(&self) -> usize {
        match self {
            Self::Delivered(envelope) => FRAME + envelope.wire().len(),
            Self::Rejected(rejection) => {
                FRAME + rejection.detail.len() + rejection.message_id.len() + rejection.peer.len()
            }
            Self::CursorRejected(rejection) => {
                FRAME + rejection.detail.len() + rejection.peer.len()
            }
            Self::CaughtUp { token } => FRAME + token.len(),
            Self::Goodbye { detail, .. } => FRAME + detail.len(),
            Self::Welcome(_) => 2 * FRAME,
            Self::Stored { .. }
            | Self::Deferred { .. }
            | Self::CursorStored { .. }
            | Self::Receipt { .. }
            | Self::Presence(_)
            | Self::PresenceReset
            | Self::Pong
            | Self::Heartbeat => FRAME,
        }
    }
}
