//! HTTP/2 and protobuf as far as the driver needs them: frames that are made
//! ahead, answers of which only the needed fields are looked at.
//!
//! A client library would cost as much as the server, which is what is measured.

use anyhow::{Context as _, Result, bail, ensure};
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

/// Opens a call of `Converse`.
pub(super) fn open_call(out: &mut Vec<u8>, stream: u32, token: &str) {
    // POST, http; then literals that are never indexed, after names of the
    // static table where it has them.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        text(&mut block, value);
    };
    literal(&[0x04], "/duologue.chat.v1.ChatService/Converse");
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
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

/// `Hello` of a client without a device.
pub(super) fn hello() -> Vec<u8> {
    let request = ConverseRequest {
        r#ref: 0,
        frame: Some(converse_request::Frame::Hello(Hello::default())),
    };
    message(&request.encode_to_vec())
}

/// A send, encoded once; only its id and `after_seq` change.
pub(super) struct Template {
    bytes: Vec<u8>,
    id: usize,
    after: usize,
}

/// Hexadecimal digits of a message id.
const ID: usize = 16;
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

/// A frame down, as far as the driver cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Down {
    CaughtUp,
    Stored {
        id: u64,
        seq: u64,
    },
    Delivered {
        id: u64,
        seq: u64,
    },
    /// `Welcome`, receipts, presence.
    Other,
}

/// Reads one `ConverseResponse`.
pub(super) fn read_down(bytes: &[u8]) -> Result<Down> {
    let mut fields = Fields(bytes);
    let mut down = Down::Other;
    while let Some((field, value)) = fields.next()? {
        down = match (field, value) {
            (3, Value::Bytes(stored)) => {
                let (seq, id) = seq_and_id(stored, 3, 1)?;
                Down::Stored { id, seq }
            }
            (6, Value::Bytes(delivered)) => {
                let (seq, id) = seq_and_id(envelope(delivered)?, 1, 2)?;
                Down::Delivered { id, seq }
            }
            (11, _) => Down::CaughtUp,
            (4 | 5 | 14, Value::Bytes(what)) => {
                bail!(
                    "the server refused (field {field}): {}",
                    String::from_utf8_lossy(what)
                )
            }
            _ => down,
        };
    }
    Ok(down)
}

fn envelope(delivered: &[u8]) -> Result<&[u8]> {
    match Fields(delivered).next()? {
        Some((1, Value::Bytes(envelope))) => Ok(envelope),
        _ => bail!("a delivery without its envelope"),
    }
}

fn seq_and_id(bytes: &[u8], seq_field: u64, id_field: u64) -> Result<(u64, u64)> {
    let mut fields = Fields(bytes);
    let (mut seq, mut id) = (None, None);
    while seq.is_none() || id.is_none() {
        match fields.next()?.context("an answer without seq or id")? {
            (field, Value::Number(number)) if field == seq_field => seq = Some(number),
            (field, Value::Bytes(bytes)) if field == id_field => id = Some(number(bytes)?),
            _ => {}
        }
    }
    Ok((seq.unwrap_or_default(), id.unwrap_or_default()))
}

/// The number that a message id is.
fn number(id: &[u8]) -> Result<u64> {
    ensure!(id.len() == ID, "a message id that was never given");
    id.iter().try_fold(0_u64, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => bail!("a message id that was never given"),
        };
        Ok(number << 4 | u64::from(digit))
    })
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?)?;
                let (bytes, rest) = self
                    .0
                    .split_at_checked(length)
                    .context("a field that is cut short")?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            kind => bail!("a field of wire type {kind}"),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().context("a number that is cut short")?;
            self.0 = rest;
            number |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Ok(number);
            }
        }
        bail!("a number that is too long")
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::chat::v1::{
        ConverseResponse, Envelope, MessageDelivered, Rejected, Stored, converse_response,
    };

    use super::*;

    fn down(frame: converse_response::Frame) -> Result<Down> {
        let response = ConverseResponse {
            r#ref: 7,
            frame: Some(frame),
        };
        read_down(&response.encode_to_vec())
    }

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
    fn answers_are_read_and_refusals_are_errors() {
        let stored = Stored {
            message_id: "00000000000000ff".into(),
            peer: "bob".into(),
            seq: 5,
            ..Stored::default()
        };
        assert_eq!(
            down(converse_response::Frame::Stored(stored)).unwrap(),
            Down::Stored { id: 255, seq: 5 }
        );
        let envelope = Envelope {
            seq: 6,
            message_id: "0000000000000010".into(),
            ..Envelope::default()
        };
        let delivered = MessageDelivered {
            envelope: Some(envelope),
        };
        assert_eq!(
            down(converse_response::Frame::MessageDelivered(delivered)).unwrap(),
            Down::Delivered { id: 16, seq: 6 }
        );
        assert!(down(converse_response::Frame::Rejected(Rejected::default())).is_err());
    }

    #[test]
    fn a_long_token_fits_into_the_headers() {
        let mut out = Vec::new();
        open_call(&mut out, 1, &"t".repeat(300));
        let header = Header::read(&out).unwrap();
        assert_eq!(header.length, out.len() - HEADER);
        assert_eq!((header.stream, header.ends_stream()), (1, false));
    }
}
