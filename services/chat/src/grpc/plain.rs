//! Reads the frame that nearly every frame is: a send as every client writes it.
//!
//! prost would make a `String` of each of its texts, only to be parsed and dropped.
//! Whatever is not written in the plain way is left to prost, and so is whatever
//! breaks a rule: nothing is refused here.

use prost::encoding::{decode_varint, encoded_len_varint};

use crate::frame::Ref;

/// `ConverseRequest.ref`, a varint.
const REF: u8 = 1 << 3;
/// `ConverseRequest.send_message`, behind its length; and so below.
const SEND_MESSAGE: u8 = 3 << 3 | 2;
/// `SendMessage.peer`.
const PEER: u8 = 1 << 3 | 2;
/// `SendMessage.message_id`.
const MESSAGE_ID: u8 = 2 << 3 | 2;
/// `SendMessage.after_seq`, a varint.
const AFTER_SEQ: u8 = 3 << 3;
/// `SendMessage.body`.
const BODY: u8 = 4 << 3 | 2;
/// `Body.text`.
const TEXT: u8 = 1 << 3 | 2;

/// A send, each of its fields once and in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    pub(super) reference: Ref,
    pub(super) peer: &'a str,
    pub(super) message_id: &'a str,
    pub(super) after_seq: Option<u64>,
    /// `Body` as prost would encode it.
    pub(super) body: &'a [u8],
    pub(super) text_bytes: usize,
}

/// Reads a frame; none if it is anything else.
pub(super) fn read(frame: &[u8]) -> Option<Plain<'_>> {
    let mut rest = frame;
    let mut reference = None;
    number(REF, &mut rest, &mut reference)?;
    let mut send = last_field(SEND_MESSAGE, rest)?;
    let peer = text(PEER, &mut send)?;
    let message_id = text(MESSAGE_ID, &mut send)?;
    let mut after_seq = None;
    number(AFTER_SEQ, &mut send, &mut after_seq)?;
    let body = last_field(BODY, send)?;
    let text = std::str::from_utf8(last_field(TEXT, body)?).ok()?;
    // Bodies are compared by their bytes, so there must be one way to write each.
    let canonical = 1 + encoded_len_varint(text.len() as u64) + text.len();
    (body.len() == canonical).then_some(Plain {
        reference: reference.unwrap_or_default(),
        peer,
        message_id,
        after_seq,
        body,
        text_bytes: text.len(),
    })
}

/// Takes a number, if the field is next. None: it cannot be read.
fn number(key: u8, rest: &mut &[u8], number: &mut Option<u64>) -> Option<()> {
    if let Some(after) = rest.strip_prefix(&[key]) {
        *rest = after;
        *number = Some(decode_varint(rest).ok()?);
    }
    Some(())
}

fn text<'a>(key: u8, rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(field(key, rest)?).ok()
}

/// What stands behind its length, if the field is next.
fn field<'a>(key: u8, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    *rest = rest.strip_prefix(&[key])?;
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// The same, if nothing follows it.
fn last_field(key: u8, mut rest: &[u8]) -> Option<&[u8]> {
    let bytes = field(key, &mut rest)?;
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use duologue_proto::chat::v1 as wire;
    use duologue_proto::chat::v1::converse_request::Frame;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn send() -> impl Strategy<Value = wire::ConverseRequest> {
        let id = || prop::option::of("[a-z]{0,8}|\\PC{0,4}");
        let fields = (
            any::<u64>(),
            "[a-z]{0,8}",
            id(),
            prop::option::of(0_u64..300),
        );
        let text = prop::option::of(prop::option::of("\\PC{0,200}"));
        (fields, text).prop_map(|((r#ref, peer, message_id, after_seq), text)| {
            let body = text.map(|text| wire::Body {
                kind: text.map(wire::body::Kind::Text),
            });
            let send = wire::SendMessage {
                peer,
                message_id,
                after_seq,
                body,
            };
            wire::ConverseRequest {
                r#ref,
                frame: Some(Frame::SendMessage(send)),
            }
        })
    }

    /// The fields of a plain send.
    type Fields = (Ref, String, String, Option<u64>, Vec<u8>, usize);

    /// What prost reads, if it is a send with all that a plain one has.
    fn by_prost(frame: &[u8]) -> Option<Fields> {
        let request = wire::ConverseRequest::decode(frame).ok()?;
        let Some(Frame::SendMessage(send)) = request.frame else {
            return None;
        };
        let body = send.body?;
        let encoded = body.encode_to_vec();
        let wire::body::Kind::Text(text) = body.kind?;
        let id = send.message_id?;
        let reference = request.r#ref;
        Some((
            reference,
            send.peer,
            id,
            send.after_seq,
            encoded,
            text.len(),
        ))
    }

    fn by_hand(frame: &[u8]) -> Option<Fields> {
        let plain = read(frame)?;
        Some((
            plain.reference,
            plain.peer.to_owned(),
            plain.message_id.to_owned(),
            plain.after_seq,
            plain.body.to_vec(),
            plain.text_bytes,
        ))
    }

    proptest! {
        #[test]
        fn what_it_reads_is_what_prost_reads(
            request in send(), at: prop::sample::Index, byte: u8, cut in 0_usize..3,
        ) {
            let mut frame = request.encode_to_vec();
            if cut > 0 {
                let at = at.index(frame.len().max(1));
                match frame.get_mut(at) {
                    Some(place) if cut == 1 => *place = byte,
                    _ => frame.truncate(at),
                }
            }
            if let Some(read) = by_hand(&frame) {
                prop_assert_eq!(Some(read), by_prost(&frame));
            }
        }

        #[test]
        fn a_send_as_prost_writes_it_is_read(
            reference: u64, peer in "[a-z]{1,64}", id in "[a-z]{1,64}",
            after in prop::option::of(any::<u64>()), text in "\\PC{1,300}",
        ) {
            let send = wire::SendMessage {
                peer,
                message_id: Some(id),
                after_seq: after,
                body: Some(wire::Body { kind: Some(wire::body::Kind::Text(text)) }),
            };
            let frame = Some(Frame::SendMessage(send));
            let frame = wire::ConverseRequest { r#ref: reference, frame }.encode_to_vec();
            prop_assert!(by_hand(&frame).is_some());
            prop_assert_eq!(by_hand(&frame), by_prost(&frame));
        }
    }

    #[test]
    fn what_prost_reads_otherwise_is_left_to_it() {
        let frame =
            |send: &[u8]| [&[SEND_MESSAGE, u8::try_from(send.len()).unwrap()], send].concat();
        let plain = b"\x0a\x01b\x12\x01m\x22\x03\x0a\x01x";
        assert!(read(&frame(plain)).is_some());
        for other in [
            // A length that is not written in the shortest way; twice a peer; a field
            // that is not known; no id; an empty body.
            &b"\x0a\x01b\x12\x01m\x22\x04\x0a\x81\x00x"[..],
            b"\x0a\x01a\x0a\x01b\x12\x01m\x22\x03\x0a\x01x",
            b"\x0a\x01b\x12\x01m\x22\x03\x0a\x01x\x28\x01",
            b"\x0a\x01b\x22\x03\x0a\x01x",
            b"\x0a\x01b\x12\x01m\x22\x00",
        ] {
            assert_eq!(read(&frame(other)), None, "{other:?}");
        }
    }
}
