//! A stored message and a user's cursor, as the services hand them around.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, bool, decode_key, decode_varint, encode_key, encode_varint, message,
    skip_field, uint64,
};

use crate::chat::v1 as wire;
use crate::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};

/// A stored message with its place. The wire form is encoded once, when the
/// message is stored, and its bytes are shared ever after; a clone is a counted
/// reference.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(Arc<Parts>);

/// What an [`Envelope`] consists of.
#[derive(PartialEq, Eq)]
pub struct Parts {
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
    /// `duologue.chat.v1.Envelope`, encoded.
    wire: Vec<u8>,
    /// Where the body stands in it.
    body: Range<usize>,
}

impl Deref for Envelope {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
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
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// Bytes that are not an envelope as this version writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded envelope")]
pub struct InvalidEnvelope;

impl Envelope {
    /// Makes the envelope of a message that is about to be stored, and encodes
    /// it. `body` is an encoded `duologue.chat.v1.Body`.
    ///
    /// Written by hand, since every message comes through here: prost would want
    /// every id as a `String` of its own. A test compares it with prost.
    pub fn seal(
        seq: Seq,
        message_id: MessageId,
        sender: UserId,
        recipient: UserId,
        accepted_at: UnixMillis,
        body: &[u8],
    ) -> Self {
        let time = accepted_at.to_wire();
        let texts = [message_id.as_str(), sender.as_str(), recipient.as_str()];
        // Each with its key and length; the numbers take at most 11 bytes.
        let length = texts.iter().map(|text| text.len() + 2).sum::<usize>() + body.len() + 64;
        let mut wire = Vec::with_capacity(length);
        if seq != Seq::ZERO {
            uint64::encode(1, &seq.0, &mut wire);
        }
        for (tag, text) in (2..).zip(texts) {
            bytes_field(tag, text.as_bytes(), &mut wire);
        }
        message::encode(5, &time, &mut wire);
        let body = if body.is_empty() {
            0..0
        } else {
            bytes_field(6, body, &mut wire);
            wire.len() - body.len()..wire.len()
        };
        // Text is the one kind so far, and it counts.
        bool::encode(7, &true, &mut wire);
        Self(Arc::new(Parts {
            seq,
            message_id,
            sender,
            recipient,
            accepted_at,
            wire,
            body,
        }))
    }

    /// Reads an encoded envelope.
    pub fn open(wire: &[u8]) -> Result<Self, InvalidEnvelope> {
        let mut fields = Fields::default();
        let mut rest = wire;
        while !rest.is_empty() {
            fields.take(wire.len(), &mut rest)?;
        }
        let time = fields.accepted_at.ok_or(InvalidEnvelope)?;
        Ok(Self(Arc::new(Parts {
            seq: Seq(fields.seq),
            message_id: id(fields.message_id, MessageId::parse)?,
            sender: id(fields.sender, UserId::parse)?,
            recipient: id(fields.recipient, UserId::parse)?,
            accepted_at: UnixMillis::from_wire(&time),
            wire: wire.into(),
            body: fields.body,
        })))
    }

    /// `duologue.chat.v1.Envelope`, encoded.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// `duologue.chat.v1.Body`, encoded.
    pub fn body(&self) -> &[u8] {
        &self.wire[self.body.clone()]
    }

    /// `duologue.chat.v1.Envelope`.
    pub fn to_wire(&self) -> wire::Envelope {
        // The body was decoded before it was sealed, so this cannot fail; were it
        // wrong, a reader would see an empty envelope and not a panic.
        wire::Envelope::decode(self.wire()).unwrap_or_default()
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

/// The fields of an encoded envelope; texts and the body are left where they are.
#[derive(Default)]
struct Fields<'a> {
    seq: u64,
    message_id: &'a [u8],
    sender: &'a [u8],
    recipient: &'a [u8],
    accepted_at: Option<prost_types::Timestamp>,
    body: Range<usize>,
}

impl<'a> Fields<'a> {
    /// Takes the next field of an envelope of `length` bytes.
    fn take(&mut self, length: usize, rest: &mut &'a [u8]) -> Result<(), InvalidEnvelope> {
        let (tag, kind) = decode_key(rest).map_err(|_| InvalidEnvelope)?;
        match (tag, kind) {
            (1, WireType::Varint) => self.seq = decode_varint(rest).map_err(|_| InvalidEnvelope)?,
            (2, WireType::LengthDelimited) => self.message_id = delimited(rest)?,
            (3, WireType::LengthDelimited) => self.sender = delimited(rest)?,
            (4, WireType::LengthDelimited) => self.recipient = delimited(rest)?,
            (5, WireType::LengthDelimited) => {
                let time = prost_types::Timestamp::decode(delimited(rest)?);
                self.accepted_at = Some(time.map_err(|_| InvalidEnvelope)?);
            }
            (6, WireType::LengthDelimited) => {
                let body = delimited(rest)?.len();
                let end = length - rest.len();
                self.body = end - body..end;
            }
            (1..=6, _) => return Err(InvalidEnvelope),
            (_, kind) => skip_field(kind, tag, rest, DecodeContext::default())
                .map_err(|_| InvalidEnvelope)?,
        }
        Ok(())
    }
}

/// What stands behind its length.
fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], InvalidEnvelope> {
    let length = decode_varint(rest).map_err(|_| InvalidEnvelope)?;
    let length = usize::try_from(length).map_err(|_| InvalidEnvelope)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(InvalidEnvelope)?;
    *rest = after;
    Ok(bytes)
}

fn id<T, E>(bytes: &[u8], parse: fn(&str) -> Result<T, E>) -> Result<T, InvalidEnvelope> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidEnvelope)?;
    parse(text).map_err(|_| InvalidEnvelope)
}

fn bytes_field(tag: u32, bytes: &[u8], wire: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, wire);
    encode_varint(bytes.len() as u64, wire);
    wire.extend_from_slice(bytes);
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

    /// Whether a position, beside zero, is just that of `asked`: then it may be there
    /// because it was asked for.
    pub fn holds_of(self, asked: Self) -> bool {
        let held = |at: Seq, asked: Seq| at == asked && asked > Seq::ZERO;
        held(self.delivered, asked.delivered) || held(self.read, asked.read)
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
            &body.encode_to_vec(),
        )
    }

    #[test]
    fn a_sealed_envelope_opens_as_itself() {
        assert_eq!(Envelope::open(envelope().wire()), Ok(envelope()));
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
    fn an_envelope_without_a_body_opens_as_itself() {
        let (alice, bob) = (
            UserId::parse("alice").unwrap(),
            UserId::parse("bob").unwrap(),
        );
        let id = MessageId::parse("m").unwrap();
        let bare = Envelope::seal(Seq(1), id, alice, bob, UnixMillis(0), &[]);
        assert_eq!(Envelope::open(bare.wire()), Ok(bare));
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
