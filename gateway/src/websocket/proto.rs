//! The bytes of a call: its messages with their prefixes, and the token that the
//! first one may carry.
//!
//! Nothing else of a message is looked at.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use duologue_proto::limits::MAX_RESPONSE_BYTES;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field,
};

use crate::body::PREFIX_BYTES;

/// Writes a message of the request behind others.
pub(super) fn write(message: &[u8], out: &mut BytesMut) {
    out.reserve(PREFIX_BYTES + message.len());
    out.put_u8(0);
    // Messages are bounded far below.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
}

/// A response that is not gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotGrpc;

/// The messages of a response, from chunks of any size.
#[derive(Debug, Default)]
pub(super) struct Messages {
    chunk: Bytes,
    /// The beginning of a message that ends in a later chunk.
    partial: BytesMut,
}

impl Messages {
    /// Takes the next chunk, once the one before has no more messages.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    /// The next message; none if its rest has not come.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, NotGrpc> {
        if self.partial.is_empty() {
            if let Some(length) = length(&self.chunk)?
                && self.chunk.len() >= PREFIX_BYTES + length
            {
                self.chunk.advance(PREFIX_BYTES);
                return Ok(Some(self.chunk.split_to(length)));
            }
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        }
        self.complete()
    }

    fn complete(&mut self) -> Result<Option<Bytes>, NotGrpc> {
        loop {
            let wanted = match length(&self.partial)? {
                None => PREFIX_BYTES,
                Some(length) => PREFIX_BYTES + length,
            };
            let missing = wanted - self.partial.len();
            if missing == 0 {
                let mut message = std::mem::take(&mut self.partial);
                message.advance(PREFIX_BYTES);
                return Ok(Some(message.freeze()));
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
            let count = missing.min(self.chunk.len());
            self.partial.extend_from_slice(&self.chunk.split_to(count));
        }
    }

    /// Whether the last message was whole.
    pub(super) fn is_whole(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_empty()
    }
}

/// How long the message is whose prefix these bytes begin with.
fn length(bytes: &[u8]) -> Result<Option<usize>, NotGrpc> {
    let [compressed, a, b, c, d, ..] = *bytes else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| NotGrpc)?;
    if compressed != 0 || length > MAX_RESPONSE_BYTES {
        return Err(NotGrpc);
    }
    Ok(Some(length))
}

/// `ConverseRequest.hello`.
const HELLO: u32 = 2;
/// `Hello.access_token`.
const ACCESS_TOKEN: u32 = 10;

/// A first message, apart from its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    /// The message as it is sent on: as it came, but for the token.
    pub(super) message: Vec<u8>,
    /// `Hello.access_token`, unless it is empty.
    pub(super) token: Option<String>,
    /// Whether the message is `Hello`.
    pub(super) is_hello: bool,
}

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl First {
    /// Takes the token out of a message. Fields that are not known here stay as
    /// they are.
    pub(super) fn take(message: Vec<u8>) -> Result<Self, Malformed> {
        let (mut first, mut rest) = (Self::empty(), &*message);
        while !rest.is_empty() {
            let field = rest;
            let (tag, kind) = decode_key(&mut rest).map_err(|_| Malformed)?;
            if (tag, kind) == (HELLO, WireType::LengthDelimited) {
                let key = field.len() - rest.len();
                let hello = delimited(&mut rest)?;
                first.is_hello = true;
                let hello = first.take_token(hello)?;
                first.message.extend_from_slice(&field[..key]);
                encode_varint(hello.len() as u64, &mut first.message);
                first.message.extend_from_slice(&hello);
            } else {
                skip(kind, tag, &mut rest)?;
                first
                    .message
                    .extend_from_slice(&field[..field.len() - rest.len()]);
            }
        }
        if first.token.is_none() {
            // As it came, to the byte.
            first.message = message;
        }
        first.token.take_if(|token| token.is_empty());
        Ok(first)
    }

    fn empty() -> Self {
        Self {
            message: Vec::new(),
            token: None,
            is_hello: false,
        }
    }

    /// `Hello` without the token.
    fn take_token(&mut self, hello: &[u8]) -> Result<Vec<u8>, Malformed> {
        let (mut kept, mut rest) = (Vec::with_capacity(hello.len()), hello);
        while !rest.is_empty() {
            let field = rest;
            let (tag, kind) = decode_key(&mut rest).map_err(|_| Malformed)?;
            if (tag, kind) == (ACCESS_TOKEN, WireType::LengthDelimited) {
                let token = std::str::from_utf8(delimited(&mut rest)?);
                self.token = Some(token.map_err(|_| Malformed)?.to_owned());
            } else {
                skip(kind, tag, &mut rest)?;
                kept.extend_from_slice(&field[..field.len() - rest.len()]);
            }
        }
        Ok(kept)
    }
}

fn skip(kind: WireType, tag: u32, rest: &mut &[u8]) -> Result<(), Malformed> {
    skip_field(kind, tag, rest, DecodeContext::default()).map_err(|_| Malformed)
}

/// What stands behind its length.
fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = decode_varint(rest).map_err(|_| Malformed)?;
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use duologue_proto::chat::v1::{ConverseRequest, Hello, Ping, converse_request::Frame};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn encoded(reference: u64, frame: Frame) -> Vec<u8> {
        let request = ConverseRequest {
            r#ref: reference,
            frame: Some(frame),
        };
        request.encode_to_vec()
    }

    fn hello(token: &str) -> Hello {
        Hello {
            device_id: Some("phone".to_owned()),
            connect_number: Some(7),
            features: vec!["a".to_owned(), "b".to_owned()],
            access_token: token.to_owned(),
            ..Hello::default()
        }
    }

    #[test]
    fn the_token_is_taken_out_and_the_rest_stays() {
        let first = First::take(encoded(9, Frame::Hello(hello("a.b.c")))).unwrap();
        assert_eq!(first.token.as_deref(), Some("a.b.c"));
        assert!(first.is_hello);
        assert_eq!(first.message, encoded(9, Frame::Hello(hello(""))));
    }

    #[test]
    fn what_this_version_does_not_know_is_kept() {
        // Field 31 of the frame, and field 20 of Hello.
        let unknown = [&[0xFA, 0x01, 3][..], b"new"].concat();
        let mut bytes = unknown.clone();
        let inner = [&hello("t").encode_to_vec()[..], &[0xA0, 0x01, 5]].concat();
        bytes.push(0x12);
        encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
        let first = First::take(bytes).unwrap();
        assert_eq!(first.token.as_deref(), Some("t"));
        assert!(first.message.starts_with(&unknown));
        assert!(first.message.ends_with(&[0xA0, 0x01, 5]));
    }

    #[test]
    fn without_a_token_it_passes_to_the_byte() {
        // A length that is written in more bytes than it needs.
        let bytes = vec![0x12, 0x82, 0x00, 0x12, 0x00];
        let first = First::take(bytes.clone());
        assert!(first.is_err() || first.unwrap().message == bytes);
        for frame in [Frame::Hello(hello("")), Frame::Ping(Ping {})] {
            let bytes = encoded(1, frame.clone());
            let first = First::take(bytes.clone()).unwrap();
            assert_eq!(first.message, bytes);
            assert_eq!(first.token, None);
            assert_eq!(first.is_hello, matches!(frame, Frame::Hello(_)));
        }
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        for bytes in [&[0xFF][..], &[0x12, 5, 1], &[0x12, 2, 0x52, 9], &[0x0F]] {
            assert_eq!(First::take(bytes.to_vec()), Err(Malformed), "{bytes:?}");
        }
        let not_utf8 = [0x12, 3, 0x52, 1, 0xFF];
        assert_eq!(First::take(not_utf8.to_vec()), Err(Malformed));
    }

    #[test]
    fn a_compressed_or_oversized_message_is_not_grpc_of_ours() {
        for prefix in [[1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [0, 255, 255, 255, 255]] {
            let mut messages = Messages::default();
            messages.push(Bytes::copy_from_slice(&prefix));
            assert_eq!(messages.next(), Err(NotGrpc), "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_split(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..12),
            cuts in prop::collection::vec(1_usize..60, 1..20),
        ) {
            let mut all = BytesMut::new();
            for message in &messages {
                write(message, &mut all);
            }
            let (mut all, mut reader, mut read) = (all.freeze(), Messages::default(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !all.is_empty() {
                let cut = (*cuts.next().unwrap()).min(all.len());
                reader.push(all.split_to(cut));
                while let Some(message) = reader.next().unwrap() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(reader.is_whole());
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_a_message(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
        ) {
            let mut reader = Messages::default();
            for chunk in chunks {
                let _ = First::take(chunk.clone());
                reader.push(chunk.into());
                while let Ok(Some(_)) = reader.next() {}
                prop_assert!(reader.partial.len() <= PREFIX_BYTES + MAX_RESPONSE_BYTES);
            }
        }

        #[test]
        fn a_first_message_without_its_token_decodes_as_before(
            reference in any::<u64>(),
            token in "[a-zA-Z0-9._-]{0,40}",
            name in ".{0,20}",
        ) {
            let mut said = hello(&token);
            said.client_name = name;
            let first = First::take(encoded(reference, Frame::Hello(said.clone()))).unwrap();
            prop_assert_eq!(first.token.unwrap_or_default(), token);
            said.access_token.clear();
            let sent = ConverseRequest::decode(&*first.message).unwrap();
            prop_assert_eq!(sent, ConverseRequest { r#ref: reference, frame: Some(Frame::Hello(said)) });
        }
    }
}
