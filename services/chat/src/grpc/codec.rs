//! How frames and messages become bytes.
//!
//! An envelope was encoded when it was stored; its bytes are copied into every
//! stream that shows it, never encoded again. `Converse` and `Subscribe` share one
//! encoding, since their responses have the same field numbers.

use std::marker::PhantomData;

use duologue_proto::chat::v1::ConverseResponse;
use duologue_runtime::refusal::Refusal;
use prost::Message;
use prost::bytes::{Buf as _, BufMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::down;
use crate::frame::Down;
use crate::outbox::DownFrame;

/// First size of a stream's buffers: most frames are smaller.
const BUFFER_BYTES: usize = 1024;
/// A write to the connection takes frames up to so many bytes together.
pub const WRITE_BYTES: usize = 16 * 1024;

/// Reads a request message.
pub(super) struct RequestDecoder<T>(PhantomData<fn() -> T>);

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

/// The codec of a session's stream.
pub(super) struct Frames<T>(PhantomData<fn() -> T>);

impl<T> Default for Frames<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for Frames<T> {
    type Encode = DownFrame;
    type Decode = T;
    type Encoder = FrameEncoder;
    type Decoder = RequestDecoder<T>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

/// Writes frames down.
pub(super) struct FrameEncoder;

impl Encoder for FrameEncoder {
    type Item = DownFrame;
    type Error = Status;

    fn encode(&mut self, frame: DownFrame, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(frame, bytes).map_err(|_| Refusal::internal().into_status())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}

/// `ConverseResponse.message_delivered`.
const MESSAGE_DELIVERED: u32 = 6;
/// `MessageDelivered.envelope`.
const ENVELOPE: u32 = 1;

fn write(frame: DownFrame, bytes: &mut impl BufMut) -> Result<(), prost::EncodeError> {
    let (reference, down) = frame;
    let Down::Delivered(envelope) = down else {
        let response = ConverseResponse {
            r#ref: reference,
            frame: Some(down::to_wire(down)),
        };
        return response.encode(bytes);
    };
    let length = envelope.wire().len() as u64;
    let inner = key_len(ENVELOPE) + encoded_len_varint(length) + envelope.wire().len();
    encode_key(MESSAGE_DELIVERED, WireType::LengthDelimited, bytes);
    encode_varint(inner as u64, bytes);
    encode_key(ENVELOPE, WireType::LengthDelimited, bytes);
    encode_varint(length, bytes);
    bytes.put_slice(envelope.wire());
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use duologue_proto::chat::v1::{SubscribeResponse, converse_response, subscribe_response};
    use duologue_proto::ids::{MessageId, Seq, UnixMillis, UserId};
    use duologue_proto::message::Envelope;

    use super::*;

    fn written(frame: DownFrame) -> Bytes {
        let mut bytes = BytesMut::new();
        write(frame, &mut bytes).unwrap();
        bytes.freeze()
    }

    fn envelope() -> Envelope {
        let user = |name| UserId::parse(name).unwrap();
        let id = MessageId::parse("m").unwrap();
        Envelope::seal(
            Seq(9),
            id,
            user("alice"),
            user("bob"),
            UnixMillis(5),
            Bytes::new(),
        )
    }

    #[test]
    fn an_envelope_s_bytes_are_what_the_contract_says() {
        let bytes = written((0, Down::Delivered(Box::new(envelope()))));
        let read = ConverseResponse::decode(bytes.clone()).unwrap();
        let Some(converse_response::Frame::MessageDelivered(delivered)) = &read.frame else {
            panic!("{read:?}")
        };
        assert_eq!(delivered.envelope, Some(envelope().to_wire()));
        assert_eq!(read.encode_to_vec(), bytes);
    }

    #[test]
    fn subscribe_reads_what_converse_writes() {
        for (down, field) in [
            (Down::Delivered(Box::new(envelope())), "MessageDelivered"),
            (Down::Heartbeat, "Heartbeat"),
            (Down::CaughtUp { token: "t".into() }, "CaughtUp"),
        ] {
            let read = SubscribeResponse::decode(written((0, down))).unwrap();
            let frame: subscribe_response::Frame = read.frame.unwrap();
            assert!(format!("{frame:?}").starts_with(field));
        }
    }
}
