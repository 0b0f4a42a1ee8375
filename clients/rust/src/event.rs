//! What the client tells the application: typed events.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::ids::{MessageId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;

/// Something that happened. Events come in order, and none is dropped: an
/// application that is slow slows the reading of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session is open; what was missed follows, then [`Event::CaughtUp`].
    Connected(Session),
    /// The session ended, or could not be opened.
    Disconnected {
        /// Why, for a person.
        cause: String,
        /// The next try comes after this long.
        retry_in: Duration,
    },
    /// A message took its place in a conversation. Those of one conversation come
    /// in order and without gaps, own ones included; only in a conversation of which
    /// the device holds nothing yet, [`Event::Stored`] may be all that tells of them.
    /// After a restart of the program, the last ones before it may come again.
    Message(Message),
    /// A message of this device is stored durably. It comes at least once for
    /// every message sent, unless that is rejected or abandoned.
    Stored(Stored),
    /// A message of this device is refused for good.
    Rejected(Rejected),
    /// A message of this device is not settled yet; the client sends it again.
    Deferred {
        /// The message.
        message_id: MessageId,
        /// The other user of the conversation.
        peer: UserId,
        /// Why.
        reason: DeferredReason,
    },
    /// Everything up to `seq` has reached the peer.
    Delivered {
        /// The peer.
        peer: UserId,
        /// The last message that has reached them.
        seq: Seq,
    },
    /// Everything up to `seq` has been read by the peer.
    Read {
        /// The peer.
        peer: UserId,
        /// The last message that they have read.
        seq: Seq,
    },
    /// Another device of this user moved the user's own cursor.
    OwnCursor {
        /// The other user of the conversation.
        peer: UserId,
        /// Where the cursor is now.
        cursor: Cursor,
    },
    /// A user went online or offline.
    PresenceChanged(Presence),
    /// What was told of presence is not true any longer: who is online follows,
    /// and everybody else is offline.
    PresenceReset,
    /// Every message that existed when the device synced has been shown.
    CaughtUp,
    /// A newer session of this device took over. The client does not connect
    /// again by itself; [`crate::Client::reconnect`] takes the device back.
    Superseded,
    /// The server has another history: positions were dropped, and messages may
    /// be shown again. Messages that are not settled are sent to it.
    HistoryChanged,
    /// The client cannot go on by itself; [`crate::Client::reconnect`] tries once
    /// more.
    Stopped(StopReason),
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The user, as the token says.
    pub user: UserId,
    /// The session.
    pub session_id: String,
    /// The node that serves it.
    pub node_id: String,
    /// The server's version.
    pub server_version: String,
    /// The longest text, in bytes of UTF-8.
    pub max_text_bytes: usize,
}

/// A message in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The other user of the conversation.
    pub peer: UserId,
    /// Its place in the conversation.
    pub seq: Seq,
    /// The id that the sending client chose.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// What it says.
    pub content: Content,
    /// When the server accepted it.
    pub accepted_at: UnixMillis,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A kind that this version does not know: show a placeholder and go on.
    Unknown,
}

/// A message of this device is stored durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message.
    pub message_id: MessageId,
    /// The other user of the conversation.
    pub peer: UserId,
    /// Its place in the conversation.
    pub seq: Seq,
    /// An earlier try had stored it; or may have, where the message was shown to this
    /// device before its last try was answered.
    pub duplicate: bool,
    /// When the server accepted it.
    pub accepted_at: UnixMillis,
}

/// A message of this device is refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The message.
    pub message_id: MessageId,
    /// The other user of the conversation.
    pub peer: UserId,
    /// Why.
    pub reason: RejectedReason,
    /// The field at fault.
    pub field: String,
    /// What is wrong, with the limit and what to do, for a person.
    pub detail: String,
}

/// Why a message is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedReason {
    /// A field is outside its rule.
    Invalid,
    /// The text is longer than the server allows.
    TooLong,
    /// Another text is stored under this id.
    MessageIdReused,
    /// A reason that this version does not know.
    Other,
}

/// Why a message is not settled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeferredReason {
    /// An earlier message to the conversation is deferred.
    BehindEarlier,
    /// The user sends faster than is allowed.
    RateLimited,
    /// Too much was written since the message was first sent; the client looks
    /// through it.
    AfterSeqTooOld,
    /// The client knows another history than the server.
    AfterSeqAhead,
    /// Too many writers at once.
    Contended,
    /// The store cannot be reached, or its answer is unknown.
    Unavailable,
    /// A reason that this version does not know.
    Other,
}

/// A user's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Whose presence this is.
    pub user: UserId,
    /// Whether at least one session of theirs is open.
    pub online: bool,
    /// When they were last online, to the minute, if they are not and it is known.
    pub last_seen: Option<UnixMillis>,
}

/// Why the client cannot go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The token was refused and its source has no other.
    Unauthenticated {
        /// What the server said.
        detail: String,
    },
    /// The token is another user's than the one this state belongs to.
    OtherUser {
        /// Whose state it is.
        expected: UserId,
        /// Whose token it is.
        actual: UserId,
    },
    /// The server refuses the session for a reason that a retry does not change.
    Refused {
        /// What the server said.
        detail: String,
    },
    /// State could not be saved. Nothing more is sent; the client has ended.
    Persistence {
        /// What failed.
        detail: String,
    },
}

impl Content {
    pub(crate) fn from_wire(body: Option<wire::Body>) -> Self {
        match body.and_then(|body| body.kind) {
            Some(wire::body::Kind::Text(text)) => Self::Text(text),
            None => Self::Unknown,
        }
    }
}

impl Message {
    /// The message of an envelope, as `user` sees it; none if a field is outside
    /// its rule.
    pub(crate) fn from_wire(envelope: wire::Envelope, user: &UserId) -> Option<Self> {
        let other = if envelope.sender == user.as_str() {
            &envelope.recipient
        } else {
            &envelope.sender
        };
        let peer = UserId::parse(other).ok()?;
        Self::in_conversation(envelope, peer)
    }

    /// The message of an envelope of the conversation with `peer`.
    pub(crate) fn in_conversation(envelope: wire::Envelope, peer: UserId) -> Option<Self> {
        let sender = UserId::parse(&envelope.sender).ok()?;
        Some(Self {
            peer,
            seq: Seq(envelope.seq),
            message_id: MessageId::parse(&envelope.message_id).ok()?,
            sender,
            content: Content::from_wire(envelope.body),
            accepted_at: time(envelope.accepted_at),
        })
    }
}

impl Presence {
    pub(crate) fn from_wire(presence: &wire::UserPresence) -> Option<Self> {
        Some(Self {
            user: UserId::parse(&presence.user).ok()?,
            online: presence.availability() == wire::Availability::Online,
            last_seen: presence.last_seen.as_ref().map(UnixMillis::from_wire),
        })
    }
}

impl From<wire::RejectedReason> for RejectedReason {
    fn from(reason: wire::RejectedReason) -> Self {
        match reason {
            wire::RejectedReason::Unspecified => Self::Other,
            wire::RejectedReason::Invalid => Self::Invalid,
            wire::RejectedReason::TooLong => Self::TooLong,
            wire::RejectedReason::MessageIdReused => Self::MessageIdReused,
        }
    }
}

impl From<wire::DeferredReason> for DeferredReason {
    fn from(reason: wire::DeferredReason) -> Self {
        match reason {
            wire::DeferredReason::Unspecified => Self::Other,
            wire::DeferredReason::BehindEarlier => Self::BehindEarlier,
            wire::DeferredReason::RateLimited => Self::RateLimited,
            wire::DeferredReason::AfterSeqTooOld => Self::AfterSeqTooOld,
            wire::DeferredReason::AfterSeqAhead => Self::AfterSeqAhead,
            wire::DeferredReason::Contended => Self::Contended,
            wire::DeferredReason::Unavailable => Self::Unavailable,
        }
    }
}

/// A time of the wire; 1970 if it is absent.
pub(crate) fn time(wire: Option<prost_types::Timestamp>) -> UnixMillis {
    wire.as_ref().map(UnixMillis::from_wire).unwrap_or_default()
}

/// A duration of the wire; none if it is absent or negative.
pub(crate) fn duration(wire: Option<prost_types::Duration>) -> Option<Duration> {
    wire.and_then(|wire| Duration::try_from(wire).ok())
}
