//! A stored message and a user's cursor, as the services hand them around.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::chat::v1 as wire;
use crate::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};

/// A stored message with its place. The wire form is encoded once, when the
/// message is stored, and its bytes are shared ever after; cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its place in the conversation.
    pub seq: Seq,
    /// The id that the sending client chose.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// The other user; the sender in a conversation with oneself.
    pub recipient: UserId,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
    /// `duologue.chat.v1.Body`, encoded.
    pub body: Bytes,
    /// `duologue.chat.v1.Envelope`, encoded.
    wire: Bytes,
}

/// Without what was said.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("seq", &self.seq)
            .field("message_id", &self.message_id)
            .field("sender", &self.sender)
            .field("recipient", &self.recipient)
            .field("accepted_at", &self.accepted_at)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// `duologue.chat.v1.Envelope` with its body left encoded: the same bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Sealed {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(string, tag = "2")]
    message_id: String,
    #[prost(string, tag = "3")]
    sender: String,
    #[prost(string, tag = "4")]
    recipient: String,
    #[prost(message, optional, tag = "5")]
    accepted_at: Option<prost_types::Timestamp>,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
    #[prost(bool, tag = "7")]
    counts_unread: bool,
}

/// Bytes that are not an envelope as this version writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded envelope")]
pub struct InvalidEnvelope;

impl Envelope {
    /// Makes the envelope of a message that is about to be stored, and encodes
    /// it. `body` is an encoded `duologue.chat.v1.Body`.
    pub fn seal(
        seq: Seq,
        message_id: MessageId,
        sender: UserId,
        recipient: UserId,
        accepted_at: UnixMillis,
        body: Bytes,
    ) -> Self {
        let sealed = Sealed {
            seq: seq.0,
            message_id: message_id.as_str().to_owned(),
            sender: sender.as_str().to_owned(),
            recipient: recipient.as_str().to_owned(),
            accepted_at: Some(accepted_at.to_wire()),
            body: body.clone(),
            // Text is the one kind so far, and it counts.
            counts_unread: true,
        };
        let wire = sealed.encode_to_vec().into();
        Self {
            seq,
            message_id,
            sender,
            recipient,
            accepted_at,
            body,
            wire,
        }
    }

    /// Reads an encoded envelope.
    pub fn open(wire: Bytes) -> Result<Self, InvalidEnvelope> {
        let sealed = Sealed::decode(wire.clone()).map_err(|_| InvalidEnvelope)?;
        let accepted_at = sealed.accepted_at.as_ref().ok_or(InvalidEnvelope)?;
        Ok(Self {
            seq: Seq(sealed.seq),
            message_id: MessageId::parse(&sealed.message_id).map_err(|_| InvalidEnvelope)?,
            sender: UserId::parse(&sealed.sender).map_err(|_| InvalidEnvelope)?,
            recipient: UserId::parse(&sealed.recipient).map_err(|_| InvalidEnvelope)?,
            accepted_at: UnixMillis::from_wire(accepted_at),
            body: sealed.body,
            wire,
        })
    }

    /// `duologue.chat.v1.Envelope`, encoded.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// `duologue.chat.v1.Envelope`.
    pub fn to_wire(&self) -> wire::Envelope {
        // The body was decoded before it was sealed, so this cannot fail; were it
        // wrong, a reader would see an empty envelope and not a panic.
        wire::Envelope::decode(self.wire.clone()).unwrap_or_default()
    }

    /// The conversation that the message belongs to.
    pub fn conversation(&self) -> ConversationId {
        ConversationId::of(&self.sender, &self.recipient)
    }

    /// The other user of the conversation, as `user` sees it.
    pub fn peer_of(&self, user: &UserId) -> &UserId {
        if *user == self.sender {
            &self.recipient
        } else {
            &self.sender
        }
    }
}

/// A user's positions in a conversation; they only move forward, and
/// `read <= delivered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Every message up to this one has reached the user.
    pub delivered: Seq,
    /// Every message up to this one has been read.
    pub read: Seq,
}

impl Cursor {
    /// The cursor that a request for `delivered` and `read` asks for: what is
    /// read has been delivered.
    pub fn asked(delivered: Option<Seq>, read: Option<Seq>) -> Self {
        let read = read.unwrap_or_default();
        Self {
            delivered: delivered.unwrap_or_default().max(read),
            read,
        }
    }

    /// The larger of both, position by position.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            delivered: self.delivered.max(other.delivered),
            read: self.read.max(other.read),
        }
    }

    /// Whether every position is at least that of `other`.
    pub fn covers(self, other: Self) -> bool {
        self.max(other) == self
    }

    /// As the wire has it.
    pub fn to_wire(self) -> wire::Cursor {
        wire::Cursor {
            delivered: self.delivered.0,
            read: self.read.0,
        }
    }

    /// From the wire.
    pub fn from_wire(cursor: &wire::Cursor) -> Self {
        Self::asked(Some(Seq(cursor.delivered)), Some(Seq(cursor.read)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        let body = wire::Body {
            kind: Some(wire::body::Kind::Text("hello".into())),
        };
        Envelope::seal(
            Seq(7),
            MessageId::parse("m-1").unwrap(),
            UserId::parse("alice").unwrap(),
            UserId::parse("bob").unwrap(),
            UnixMillis(1_700_000_000_123),
            body.encode_to_vec().into(),
        )
    }

    #[test]
    fn a_sealed_envelope_opens_as_itself() {
        assert_eq!(Envelope::open(envelope().wire().clone()), Ok(envelope()));
    }

    #[test]
    fn a_sealed_envelope_is_the_contract_s_envelope() {
        let wire = envelope().to_wire();
        assert_eq!(
            (wire.seq, wire.sender.as_str(), wire.recipient.as_str()),
            (7, "alice", "bob")
        );
        assert_eq!(
            wire.accepted_at,
            Some(UnixMillis(1_700_000_000_123).to_wire())
        );
        assert_eq!(wire.encode_to_vec(), envelope().wire().to_vec());
    }

    #[test]
    fn what_is_read_has_been_delivered() {
        assert_eq!(
            Cursor::asked(Some(Seq(1)), Some(Seq(3))),
            Cursor {
                delivered: Seq(3),
                read: Seq(3)
            }
        );
    }
}
