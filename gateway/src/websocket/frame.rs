//! RFC 6455 as a server speaks it: bytes become events, and what is to be said
//! becomes bytes.
//!
//! No I/O and no clock. It is written here, since a client's `Close` must leave the
//! way down open until all is answered, which libraries do not offer; and an idle
//! connection keeps no buffer.

use bytes::{Buf as _, BufMut as _, BytesMut};
use duologue_proto::limits::MAX_REQUEST_BYTES;

/// Largest message from the client, in bytes; its fragments count together.
pub const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES;
/// Largest payload of a control frame, as RFC 6455 has it.
const MAX_CONTROL_BYTES: usize = 125;
/// Longest reason of a close frame, in bytes: the code stands before it.
pub(super) const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// The lengths that say that the length follows, in two bytes or in eight.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Which messages a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A whole message of the connection's kind.
    Message(Vec<u8>),
    /// Asks for a pong with the same payload.
    Ping(Vec<u8>),
    /// The answer to a ping, or none.
    Pong,
    /// Nothing follows.
    Close,
}

/// What a client must not do. Nothing can be read after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// RFC 6455 is broken.
    Protocol(&'static str),
    /// A message of the other kind.
    WrongKind,
    /// A message above [`MAX_MESSAGE_BYTES`].
    TooLarge,
    /// Text that is none.
    NotUtf8,
}

/// Reads one connection.
#[derive(Debug)]
pub(super) struct Decoder {
    kind: Kind,
    /// The frame that is being read.
    frame: Option<Header>,
    /// What has come of the message that is being read.
    message: Vec<u8>,
    /// The message's last frame has not begun.
    is_fragmented: bool,
    /// What has come of a control frame, which may stand within a message.
    control: Vec<u8>,
}

/// A frame whose payload is not whole yet.
#[derive(Debug)]
struct Header {
    opcode: u8,
    is_last: bool,
    /// As the next byte needs it.
    mask: [u8; 4],
    left: usize,
}

impl Header {
    fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }

    /// Takes what has come of the payload.
    fn take(&mut self, input: &mut BytesMut, into: &mut Vec<u8>) {
        let count = self.left.min(input.len());
        let start = into.len();
        into.extend_from_slice(&input[..count]);
        unmask(&mut into[start..], self.mask);
        input.advance(count);
        self.left -= count;
        self.mask.rotate_left(count % 4);
    }
}

/// Eight bytes at a time, since every byte of every message comes through here.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

impl Decoder {
    /// For a connection with messages of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            frame: None,
            message: Vec::new(),
            is_fragmented: false,
            control: Vec::new(),
        }
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_within_message(&self) -> bool {
        self.frame.is_some() || self.is_fragmented
    }

    /// The next event, if `input` has the rest of it. What of `input` can be taken
    /// already is taken.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Fault> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            if frame.is_control() {
                frame.take(input, &mut self.control);
            } else {
                frame.take(input, &mut self.message);
            }
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(event) = self.finish(&frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// The header of the next frame, if all of it is there and it may come now.
    fn header(&self, input: &mut BytesMut) -> Result<Option<Header>, Fault> {
        let [first, second, ..] = **input else {
            return Ok(None);
        };
        self.check(first, second)?;
        let extended = match second & !MASKED {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        let size = 2 + extended + 4;
        if input.len() < size {
            return Ok(None);
        }
        let length = length(second & !MASKED, &input[2..2 + extended])?;
        let mut mask = [0; 4];
        mask.copy_from_slice(&input[2 + extended..size]);
        // The message, and not what the frame claims, takes memory; still, what
        // cannot be taken need not be read.
        let before = if first & 0x8 == 0 {
            self.message.len()
        } else {
            0
        };
        let fits = |length: &usize| before + length <= MAX_MESSAGE_BYTES;
        let length = usize::try_from(length).ok().filter(fits);
        input.advance(size);
        Ok(Some(Header {
            opcode: first & 0xF,
            is_last: first & FIN != 0,
            mask,
            left: length.ok_or(Fault::TooLarge)?,
        }))
    }

    /// Whether a frame that begins like this may come now.
    fn check(&self, first: u8, second: u8) -> Result<(), Fault> {
        if first & RESERVED != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        if second & MASKED == 0 {
            return Err(Fault::Protocol("a frame is not masked"));
        }
        match first & 0xF {
            CONTINUATION if self.is_fragmented => Ok(()),
            CONTINUATION => Err(Fault::Protocol("nothing is to be continued")),
            TEXT | BINARY if self.is_fragmented => {
                Err(Fault::Protocol("a message begins within another"))
            }
            TEXT if self.kind == Kind::Text => Ok(()),
            BINARY if self.kind == Kind::Binary => Ok(()),
            TEXT | BINARY => Err(Fault::WrongKind),
            CLOSE | PING | PONG if first & FIN == 0 => {
                Err(Fault::Protocol("a control frame is fragmented"))
            }
            CLOSE | PING | PONG if usize::from(second & !MASKED) > MAX_CONTROL_BYTES => {
                Err(Fault::Protocol("a control frame is too long"))
            }
            CLOSE | PING | PONG => Ok(()),
            _ => Err(Fault::Protocol("the opcode is unknown")),
        }
    }

    /// What a whole frame says, if it is not just a part of a message.
    fn finish(&mut self, frame: &Header) -> Result<Option<Event>, Fault> {
        match frame.opcode {
            CLOSE => check_close(&std::mem::take(&mut self.control)).map(|()| Some(Event::Close)),
            PING => Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            PONG => {
                self.control = Vec::new();
                Ok(Some(Event::Pong))
            }
            _ => {
                self.is_fragmented = !frame.is_last;
                if self.is_fragmented {
                    return Ok(None);
                }
                let message = std::mem::take(&mut self.message);
                if self.kind == Kind::Text && std::str::from_utf8(&message).is_err() {
                    return Err(Fault::NotUtf8);
                }
                Ok(Some(Event::Message(message)))
            }
        }
    }
}

/// A length that was written in the shortest way.
fn length(short: u8, extended: &[u8]) -> Result<u64, Fault> {
    let value = extended
        .iter()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let least = match short {
        LENGTH_16 => u64::from(LENGTH_16),
        LENGTH_64 => 1 << 16,
        short => return Ok(u64::from(short)),
    };
    if value < least || value > u64::MAX / 2 {
        return Err(Fault::Protocol("a length is not written as it must be"));
    }
    Ok(value)
}

/// The payload of a client's close frame.
fn check_close(payload: &[u8]) -> Result<(), Fault> {
    let [high, low, reason @ ..] = payload else {
        return match payload {
            [] => Ok(()),
            _ => Err(Fault::Protocol("a close frame has half a code")),
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol(
            "a close frame has a code that none may have",
        ));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::NotUtf8);
    }
    Ok(())
}

/// Writes a whole message behind others.
pub(super) fn write_message(kind: Kind, payload: &[u8], out: &mut BytesMut) {
    let opcode = match kind {
        Kind::Text => TEXT,
        Kind::Binary => BINARY,
    };
    write(opcode, payload, out);
}

/// Writes a ping.
pub(super) fn write_ping(out: &mut BytesMut) {
    write(PING, &[], out);
}

/// Writes the answer to a ping.
pub(super) fn write_pong(payload: &[u8], out: &mut BytesMut) {
    write(PONG, payload, out);
}

/// Writes a close frame; of a reason above [`MAX_REASON_BYTES`] only the beginning.
pub(super) fn write_close(code: u16, reason: &str, out: &mut BytesMut) {
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    write(CLOSE, &payload, out);
}

/// A server does not mask.
fn write(opcode: u8, payload: &[u8], out: &mut BytesMut) {
    out.reserve(10 + payload.len());
    out.put_u8(FIN | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < LENGTH_16 => out.put_u8(short),
        (_, Ok(length)) => {
            out.put_u8(LENGTH_16);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(LENGTH_64);
            out.put_u64(payload.len() as u64);
        }
    }
    out.put_slice(payload);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
