//! What a client causes and sees, as plain values.
//!
//! What a client causes is recorded before it is given to the transport, what it
//! sees after it was received. So "before" in a record is before in real time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A user's id.
pub type User = String;
/// A message's id, chosen by its sender.
pub type MessageId = String;
/// Numbers one stream of one device; in client mode, one client.
pub type SessionNumber = u64;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins.
    Begin {
        /// Decides what the clients do.
        seed: u64,
        /// Which clients, and by which ways: `stubs`, `client`, `stubs by json`.
        mode: String,
    },
    /// A device opens a stream; its `Hello` is sent after this.
    Connect(Connect),
    /// The session is open.
    Welcome {
        /// The session.
        session: SessionNumber,
    },
    /// The server says that everything has been shown.
    CaughtUp {
        /// The session.
        session: SessionNumber,
        /// The sync token; empty where the client keeps it to itself.
        token: String,
    },
    /// The server ends the stream.
    Goodbye {
        /// The session.
        session: SessionNumber,
        /// The name of the reason in the contract.
        reason: String,
    },
    /// The Rust client says that it cannot go on by itself.
    Stopped {
        /// The session.
        session: SessionNumber,
        /// Why.
        reason: String,
    },
    /// The stream is over.
    Disconnect {
        /// The session.
        session: SessionNumber,
        /// Who ended it and how, for a person.
        cause: String,
    },
    /// One try of a message.
    Send(Send),
    /// A deferred message is given up in its lane.
    Abandon {
        /// The lane.
        lane: u64,
        /// Who gives up.
        user: User,
        /// The message.
        message_id: MessageId,
    },
    /// A try is answered: the message is durable.
    Stored(Stored),
    /// A try is answered: the message is refused for good.
    Rejected(Refused),
    /// A try is answered: the message is not settled.
    Deferred(Refused),
    /// A try has no answer and will get none.
    Unanswered(Refused),
    /// A session is shown a message.
    Delivered {
        /// The session.
        session: SessionNumber,
        /// The message.
        envelope: Envelope,
    },
    /// A cursor is asked to move.
    CursorAsked(CursorMove),
    /// The move is stored; with the stored cursor.
    CursorStored(CursorMove),
    /// The move is refused, or its outcome is not known.
    CursorRefused(CursorMove),
    /// A session is shown a cursor.
    Receipt {
        /// The session.
        session: SessionNumber,
        /// The other user of the conversation.
        peer: User,
        /// Whose cursor.
        user: User,
        /// Where it is.
        cursor: Cursor,
    },
    /// The connection of a session stands still: what is said on it does not arrive.
    Frozen {
        /// The session.
        session: SessionNumber,
    },
    /// It moves again.
    Thawed {
        /// The session.
        session: SessionNumber,
    },
    /// The server, or the way to it, is broken from now on.
    Kill {
        /// What was done, for a person.
        what: String,
    },
    /// It works again.
    Heal,
    /// In the end some clients are still without an answer, or without a session.
    Restless {
        /// How many have nothing under way.
        settled: usize,
        /// How many there are.
        clients: usize,
    },
    /// The whole of a conversation at the end, as one of its users reads it.
    History {
        /// Who reads.
        reader: User,
        /// The other user.
        peer: User,
        /// In the order read, the oldest first.
        messages: Vec<Envelope>,
    },
    /// The cursors of a conversation at the end.
    Cursors {
        /// Who reads.
        reader: User,
        /// The other user.
        peer: User,
        /// The reader's cursor.
        own: Cursor,
        /// The other user's cursor.
        other: Cursor,
    },
    /// The run is over.
    End {
        /// Sessions that are still open, and have had time to catch up.
        open: BTreeSet<SessionNumber>,
    },
}

/// The way by which a session came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// `Converse`.
    Converse,
    /// `Subscribe`.
    Subscribe,
    /// The Rust client: one session for its whole life, however often it connects.
    Client,
}

/// The way in for a client's calls.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// gRPC over HTTP/2, to the server itself.
    #[default]
    Native,
    /// gRPC-Web over HTTP/1.1; there is no `Converse`.
    GrpcWeb,
    /// `Converse` as a `WebSocket` of protobuf, everything else by gRPC-Web.
    WebSocket,
    /// The same as a `WebSocket` of JSON.
    Json,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Native, Self::GrpcWeb, Self::WebSocket, Self::Json];

    /// Whether `Converse` goes by it.
    pub const fn has_converse(self) -> bool {
        !matches!(self, Self::GrpcWeb)
    }

    /// As people name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::GrpcWeb => "grpc-web",
            Self::WebSocket => "websocket",
            Self::Json => "json",
        }
    }
}

/// A device's `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Numbers the session.
    pub session: SessionNumber,
    /// Whose device.
    pub user: User,
    /// The device.
    pub device: String,
    /// Its connect number.
    pub number: u64,
    /// How it comes.
    pub door: Door,
    /// The way of its calls.
    #[serde(default)]
    pub way: Way,
    /// The sync token; empty: none.
    pub token: String,
    /// The positions named, by peer.
    pub positions: BTreeMap<User, u64>,
    /// What the device holds although it does not say so: it may be shown again.
    pub held: BTreeMap<User, u64>,
}

/// One try of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Numbers the try.
    pub try_number: u64,
    /// What keeps its sends in order: the session, or a call of its own.
    pub lane: u64,
    /// The session; none for a unary call.
    pub session: Option<SessionNumber>,
    /// The sender.
    pub user: User,
    /// The recipient.
    pub peer: User,
    /// The message.
    pub message_id: MessageId,
    /// A sequence that existed before the first try; none where the client keeps
    /// it to itself.
    pub after_seq: Option<u64>,
    /// Stands for the body.
    pub body: u64,
}

/// The answer "stored".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The try that is answered; none where the client tries by itself.
    pub try_number: Option<u64>,
    /// The session that was told; none for a unary call.
    pub session: Option<SessionNumber>,
    /// The sender.
    pub user: User,
    /// The recipient.
    pub peer: User,
    /// The message.
    pub message_id: MessageId,
    /// Its place.
    pub seq: u64,
    /// An earlier try had stored it.
    pub duplicate: bool,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
}

/// Any other answer to a try, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The try; none where the client tries by itself.
    pub try_number: Option<u64>,
    /// The sender.
    pub user: User,
    /// The message.
    pub message_id: MessageId,
    /// The name of the reason in the contract.
    pub reason: String,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Its place.
    pub seq: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender: User,
    /// Who shall get it.
    pub recipient: User,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
    /// Stands for the body.
    pub body: u64,
}

/// A user's positions in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to here has reached the user.
    pub delivered: u64,
    /// Everything up to here was read.
    pub read: u64,
}

/// A cursor on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorMove {
    /// Numbers the move; 0: one that was repeated in `Hello`.
    pub number: u64,
    /// The session; none for a unary call.
    pub session: Option<SessionNumber>,
    /// Whose cursor.
    pub user: User,
    /// The other user of the conversation.
    pub peer: User,
    /// Where it shall be, or is.
    pub cursor: Cursor,
}

/// The two users of a conversation, in order.
pub type Pair = (User, User);

/// The conversation of two users.
pub fn pair(one: &str, other: &str) -> Pair {
    let (low, high) = if one <= other {
        (one, other)
    } else {
        (other, one)
    };
    (low.to_owned(), high.to_owned())
}

impl Envelope {
    /// The conversation that the message says it belongs to.
    pub fn pair(&self) -> Pair {
        pair(&self.sender, &self.recipient)
    }

    /// The other user, as `user` sees it.
    pub fn peer_of(&self, user: &str) -> &str {
        if self.sender == user {
            &self.recipient
        } else {
            &self.sender
        }
    }
}

impl Cursor {
    /// The larger of both, position by position.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            delivered: self.delivered.max(other.delivered),
            read: self.read.max(other.read),
        }
    }

    /// Whether no position is below that of `other`.
    pub fn covers(self, other: Self) -> bool {
        self.max(other) == self
    }
}

/// Stands for a text in a record, which holds no texts (FNV-1a, 64 bits).
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
