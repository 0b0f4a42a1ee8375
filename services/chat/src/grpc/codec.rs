//! How frames and messages become bytes.
//!
//! An envelope was encoded when it was stored; its bytes are copied into every
//! stream that shows it, never encoded again. `Converse` and `Subscribe` share one
//! encoding, since their responses have the same field numbers.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, BytesMut};
use duologue_proto::chat::v1::ConverseResponse;
use duologue_proto::ids::{Seq, UnixMillis, UserId};
use duologue_proto::message::Envelope;
use duologue_runtime::refusal::Refusal;
use prost::Message;
use prost::encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{down, plain, up};
use crate::core::Core;
use crate::frame::{Down, Ref, Up};
use crate::outbox::WRITE_BYTES;

/// First size of a request's buffer. Every idle stream has one.
const BUFFER_BYTES: usize = 256;

/// Reads a request message.
pub(super) struct RequestDecoder<T>(PhantomData<fn() -> T>);

impl<T> Default for RequestDecoder<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default> Decoder for RequestDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = T::decode(&mut *bytes);
        // What is left of a message that cannot be read must not be read as the
        // next one.
        bytes.advance(bytes.remaining());
        message.map(Some).map_err(|_| {
            Refusal::field("request", "is not a protobuf message of this call's kind").into_status()
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}

/// Reads the frames of a session, and checks them.
pub(super) struct SessionDecoder {
    core: Arc<Core>,
    user: UserId,
    /// To whom the last plain send was: mostly the next one is too.
    peer: Option<UserId>,
}

impl SessionDecoder {
    pub(super) fn new(core: Arc<Core>, user: UserId) -> Self {
        Self {
            core,
            user,
            peer: None,
        }
    }
}

impl Decoder for SessionDecoder {
    type Item = (Ref, Up);
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<(Ref, Up)>, Status> {
        let whole = bytes.chunk().len() == bytes.remaining();
        let plain = whole.then(|| plain::read(bytes.chunk())).flatten();
        let sent =
            plain.and_then(|plain| up::plain(&self.core, &self.user, &mut self.peer, &plain));
        if sent.is_some() {
            bytes.advance(bytes.remaining());
            return Ok(sent);
        }
        let request = RequestDecoder::default().decode(bytes)?;
        Ok(request.map(|request| up::frame(&self.core, &self.user, request)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}

/// Writes a response message.
pub(super) struct ResponseEncoder<T>(PhantomData<fn() -> T>);

impl<T: Message> Encoder for ResponseEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(bytes)
            .map_err(|_| Refusal::internal().into_status())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}

/// The codec of a unary call.
pub(super) struct Unary<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for Unary<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Unary<T, U>
where
    T: Message + Default + 'static,
    U: Message + 'static,
{
    type Encode = U;
    type Decode = T;
    type Encoder = ResponseEncoder<U>;
    type Decoder = RequestDecoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        ResponseEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

/// `ConverseResponse.ref`.
const REF: u32 = 1;
/// `ConverseResponse.stored`.
const STORED: u32 = 3;
/// `ConverseResponse.message_delivered`.
const MESSAGE_DELIVERED: u32 = 6;
/// `MessageDelivered.envelope`.
const ENVELOPE: u32 = 1;
/// What stands before a message of a stream: not compressed, and its length.
const HEADER_BYTES: usize = 5;

/// Writes a frame of a stream behind others.
///
/// The two kinds that make up nearly all frames are written by hand: an envelope
/// from the bytes that were stored, an answer from its ids as they are. Tests
/// compare both with prost.
pub(super) fn write(reference: Ref, down: Down, bytes: &mut BytesMut) {
    let start = bytes.len();
    bytes.reserve(down.cost());
    bytes.put_bytes(0, HEADER_BYTES);
    match down {
        Down::Delivered(envelope) => delivered(&envelope, bytes),
        Down::Stored {
            message_id,
            peer,
            seq,
            duplicate,
            accepted_at,
        } => {
            let ids = [message_id.as_str(), peer.as_str()];
            stored(reference, ids, seq, duplicate, accepted_at, bytes);
        }
        Down::Welcome(_)
        | Down::Rejected(_)
        | Down::Deferred { .. }
        | Down::CursorStored { .. }
        | Down::CursorRejected(_)
        | Down::Receipt { .. }
        | Down::Presence(_)
        | Down::PresenceReset
        | Down::CaughtUp { .. }
        | Down::Pong
        | Down::Heartbeat
        | Down::Goodbye { .. } => {
            let response = ConverseResponse {
                r#ref: reference,
                frame: Some(down::to_wire(down)),
            };
            response.encode_raw(bytes);
        }
    }
    // Frames are shorter than 64 KiB.
    let length = u32::try_from(bytes.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    bytes[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

fn delivered(envelope: &Envelope, bytes: &mut BytesMut) {
    let wire = envelope.wire();
    let length = wire.len() as u64;
    let inner = key_len(ENVELOPE) + encoded_len_varint(length) + wire.len();
    encode_key(MESSAGE_DELIVERED, WireType::LengthDelimited, bytes);
    encode_varint(inner as u64, bytes);
    encode_key(ENVELOPE, WireType::LengthDelimited, bytes);
    encode_varint(length, bytes);
    bytes.put_slice(wire);
}

/// `ids` are `Stored.message_id` and `peer`.
fn stored(
    reference: Ref,
    ids: [&str; 2],
    seq: Seq,
    duplicate: bool,
    accepted_at: UnixMillis,
    bytes: &mut BytesMut,
) {
    let time = accepted_at.to_wire();
    let text_len = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    let inner = ids.iter().map(|text| text_len(text)).sum::<usize>()
        + encoding::uint64::encoded_len(3, &seq.0)
        + if duplicate {
            encoding::bool::encoded_len(4, &duplicate)
        } else {
            0
        }
        + encoding::message::encoded_len(5, &time);
    if reference != 0 {
        encoding::uint64::encode(REF, &reference, bytes);
    }
    encode_key(STORED, WireType::LengthDelimited, bytes);
    encode_varint(inner as u64, bytes);
    for (tag, text) in (1..).zip(ids) {
        encode_key(tag, WireType::LengthDelimited, bytes);
        encode_varint(text.len() as u64, bytes);
        bytes.put_slice(text.as_bytes());
    }
    encoding::uint64::encode(3, &seq.0, bytes);
    if duplicate {
        encoding::bool::encode(4, &duplicate, bytes);
    }
    encoding::message::encode(5, &time, bytes);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use duologue_proto::chat::v1::{SubscribeResponse, converse_response, subscribe_response};
    use duologue_proto::ids::MessageId;
    use proptest::prelude::*;

    use super::*;

    /// The message of one frame, without what stands before it.
    fn written(reference: Ref, down: Down) -> Bytes {
        let mut bytes = BytesMut::from(&b"before"[..]);
        write(reference, down, &mut bytes);
        let mut bytes = bytes.freeze().split_off("before".len());
        let message = bytes.split_off(HEADER_BYTES);
        assert_eq!(bytes[0], 0);
        assert_eq!(
            bytes[1..],
            u32::try_from(message.len()).unwrap().to_be_bytes()
        );
        message
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn envelope() -> Envelope {
        let id = MessageId::parse("m").unwrap();
        let (alice, bob) = (user("alice"), user("bob"));
        Envelope::seal(Seq(9), id, alice, bob, UnixMillis(5), &[])
    }

    #[test]
    fn an_envelope_s_bytes_are_what_the_contract_says() {
        let bytes = written(0, Down::Delivered(envelope()));
        let read = ConverseResponse::decode(bytes.clone()).unwrap();
        let Some(converse_response::Frame::MessageDelivered(delivered)) = &read.frame else {
            panic!("{read:?}")
        };
        assert_eq!(delivered.envelope, Some(envelope().to_wire()));
        assert_eq!(read.encode_to_vec(), bytes);
    }

    proptest! {
        #[test]
        fn an_answer_s_bytes_are_what_prost_writes(
            reference: u64, id in "[a-zA-Z0-9_-]{1,64}", peer in "[a-z]{1,64}",
            seq in 1_u64.., duplicate: bool, time in 0_u64..1 << 50,
        ) {
            let down = Down::Stored {
                message_id: MessageId::parse(&id).unwrap(),
                peer: user(&peer),
                seq: Seq(seq),
                duplicate,
                accepted_at: UnixMillis(time),
            };
            let response = ConverseResponse {
                r#ref: reference,
                frame: Some(down::to_wire(down.clone())),
            };
            prop_assert_eq!(written(reference, down), response.encode_to_vec());
        }
    }

    #[test]
    fn subscribe_reads_what_converse_writes() {
        for (down, field) in [
            (Down::Delivered(envelope()), "MessageDelivered"),
            (Down::Heartbeat, "Heartbeat"),
            (Down::CaughtUp { token: "t".into() }, "CaughtUp"),
        ] {
            let read = SubscribeResponse::decode(written(0, down)).unwrap();
            let frame: subscribe_response::Frame = read.frame.unwrap();
            assert!(format!("{frame:?}").starts_with(field));
        }
    }
}
