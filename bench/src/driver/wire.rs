//! HTTP/2 and gRPC as far as the driver needs them, and sends that are encoded
//! ahead.
//!
//! A client library would cost as much as the server, which is what is measured.

use anyhow::{Context as _, Result};
use duologue_proto::chat::v1::{Body, ConverseRequest, Hello, SendMessage, body, converse_request};
use prost::Message as _;

/// What both sides may send on one stream, or one connection, at most.
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The window of a connection before anything is said of it.
pub(super) const FIRST_WINDOW: u32 = 65_535;
/// The payload of a frame at most, as the protocol has it by default.
pub(super) const MAX_PAYLOAD: usize = 16 * 1024;
/// Of every frame.
pub(super) const HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
/// Of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's header, read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [a, b, c, kind, flags, s @ ..] = *header;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(s) & MAX_WINDOW,
        })
    }

    /// Whether it may end a call.
    pub(super) fn ends_stream(self) -> bool {
        (self.kind == HEADERS || self.kind == DATA) && self.flags & END_STREAM != 0
    }
}

/// Writes a frame's header.
pub(super) fn header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// What a client says first: windows so large that they never bind.
pub(super) fn preface(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let settings: [(u16, u32); 3] = [(1, 0), (2, 0), (4, MAX_WINDOW)];
    header(out, 6 * settings.len(), SETTINGS, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    window_update(out, 0, MAX_WINDOW - FIRST_WINDOW);
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    header(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}

/// Opens a call of one of chat's methods.
pub(super) fn open_call(out: &mut Vec<u8>, stream: u32, method: &str, token: &str) {
    open_call_as(out, (stream, "application/grpc"), method, token);
}

/// The same with a content-type.
pub(super) fn open_call_as(
    out: &mut Vec<u8>,
    (stream, content_type): (u32, &str),
    method: &str,
    token: &str,
) {
    // POST, http; then literals that are never indexed, after names of the
    // static table where it has them.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        text(&mut block, value);
    };
    literal(&[0x04], &format!("/duologue.chat.v1.ChatService/{method}"));
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], content_type);
    literal(b"\x00\x02te", "trailers");
    literal(&[0x0f, 0x08], &format!("Bearer {token}"));
    header(out, block.len(), HEADERS, END_HEADERS, stream);
    out.extend_from_slice(&block);
}

/// A string of HPACK, not compressed.
fn text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap_or(0));
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).unwrap_or(0) | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap_or(0));
    }
    out.extend_from_slice(text.as_bytes());
}

/// A message of gRPC.
pub(super) fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// What opens a session.
pub(super) fn hello(hello: Hello) -> Vec<u8> {
    let request = ConverseRequest {
        r#ref: 0,
        frame: Some(converse_request::Frame::Hello(hello)),
    };
    message(&request.encode_to_vec())
}

/// Gives every whole frame; returns how many bytes they are.
pub(super) fn each_frame(
    bytes: &[u8],
    mut take: impl FnMut(Header, &[u8]) -> Result<()>,
) -> Result<usize> {
    let mut rest = bytes;
    while let Some(header) = Header::read(rest) {
        let Some(payload) = rest.get(HEADER..HEADER + header.length) else {
            break;
        };
        take(header, payload)?;
        rest = &rest[HEADER + header.length..];
    }
    Ok(bytes.len() - rest.len())
}

/// Gives every whole message of gRPC; returns how many bytes they are.
pub(super) fn each_message(
    bytes: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<usize> {
    let mut rest = bytes;
    while let Some(([_, length @ ..], after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((message, after)) = after.split_at_checked(length) else {
            break;
        };
        take(message)?;
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

/// A send, encoded once; only its id and `after_seq` change.
pub(super) struct Template {
    bytes: Vec<u8>,
    id: usize,
    after: usize,
}

/// Hexadecimal digits of a message id.
pub(super) const ID: usize = 16;
/// A number of seven bits per byte, written with so many bytes however small.
const PADDED: usize = 5;
/// The greatest number of so many bytes: encodes without padding to as many.
const WIDEST: u64 = (1 << (7 * PADDED)) - 1;

impl Template {
    pub(super) fn new(peer: &str, text_bytes: usize) -> Result<Self> {
        let request = ConverseRequest {
            r#ref: 0,
            frame: Some(converse_request::Frame::SendMessage(SendMessage {
                peer: peer.to_owned(),
                message_id: Some("~".repeat(ID)),
                after_seq: Some(WIDEST),
                body: Some(Body {
                    kind: Some(body::Kind::Text("x".repeat(text_bytes))),
                }),
            })),
        };
        let bytes = message(&request.encode_to_vec());
        let id = find(&bytes, &[b'~'; ID])?;
        let after = find(&bytes, &[0xff, 0xff, 0xff, 0xff, 0x7f])?;
        Ok(Self { bytes, id, after })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>, id: u64, after: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (at, digit) in self.bytes[self.id..self.id + ID].iter_mut().enumerate() {
            *digit = DIGITS[(id >> (4 * (ID - 1 - at)) & 15) as usize];
        }
        for (at, byte) in self.bytes[self.after..self.after + PADDED]
            .iter_mut()
            .enumerate()
        {
            let more = if at + 1 < PADDED { 128 } else { 0 };
            *byte = (after >> (7 * at) & 127) as u8 | more;
        }
        out.extend_from_slice(&self.bytes);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Result<usize> {
    bytes
        .windows(what.len())
        .position(|window| window == what)
        .context("a send is not encoded as expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_what_the_contract_says() {
        let mut template = Template::new("bob", 100).unwrap();
        let mut out = Vec::new();
        template.write(&mut out, 0xabc, 300);
        assert_eq!(out.len(), template.len());
        let request = ConverseRequest::decode(&out[5..]).unwrap();
        let Some(converse_request::Frame::SendMessage(send)) = request.frame else {
            panic!("another frame")
        };
        assert_eq!(send.message_id.as_deref(), Some("0000000000000abc"));
        assert_eq!((send.peer.as_str(), send.after_seq), ("bob", Some(300)));
    }

    #[test]
    fn a_long_token_fits_into_the_headers() {
        let mut out = Vec::new();
        open_call(&mut out, 1, "Converse", &"t".repeat(300));
        let header = Header::read(&out).unwrap();
        assert_eq!(header.length, out.len() - HEADER);
        assert_eq!((header.stream, header.ends_stream()), (1, false));
    }

    #[test]
    fn what_is_cut_short_is_left_for_the_next_read() {
        let mut bytes = Vec::new();
        header(&mut bytes, 8, DATA, 0, 1);
        bytes.extend_from_slice(&message(b"abc"));
        let whole = bytes.len();
        bytes.extend_from_slice(&[0, 0, 9]);
        let mut messages = Vec::new();
        let taken = each_frame(&bytes, |_, payload| {
            let taken = each_message(payload, |message| {
                messages.push(message.to_vec());
                Ok(())
            })?;
            assert_eq!(taken, payload.len());
            Ok(())
        });
        assert_eq!(taken.unwrap(), whole);
        assert_eq!(messages, [b"abc".to_vec()]);
        assert_eq!(
            each_message(&message(b"abc")[..7], |_| panic!("not whole")).unwrap(),
            0
        );
    }
}
