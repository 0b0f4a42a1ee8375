//! The frames of a `WebSocket`, as far as the driver needs them.

use anyhow::Result;

/// Of a `WebSocket`: the last frame of a message, and the kinds.
const LAST: u8 = 0x80;
pub(super) const BINARY: u8 = 2;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
/// That a frame is masked; with zeros, so that the masked payload is the plain one.
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];
/// As the length: that it stands in the next two bytes.
const LONG: u8 = 126;

/// Writes a whole message, masked.
pub(super) fn socket_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) -> Result<()> {
    out.push(LAST | kind);
    match u8::try_from(payload.len()) {
        Ok(length) if length < LONG => out.push(MASKED | length),
        _ => {
            out.push(MASKED | LONG);
            out.extend_from_slice(&u16::try_from(payload.len())?.to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend_from_slice(payload);
    Ok(())
}

/// A frame of the server's, if all of it was read: its kind, what it holds, and what
/// follows it.
pub(super) fn read_socket_frame(read: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([first, length], rest) = read.split_first_chunk::<2>()?;
    let (length, rest) = match *length {
        LONG => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // No message of a load is as long as what else there is.
        length => (usize::from(length), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first & 0x0f, payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written_but_for_the_mask() {
        for length in [0, 1, 125, 126, 40_000] {
            let payload = vec![7; length];
            let mut out = Vec::new();
            socket_frame(&mut out, BINARY, &payload).unwrap();
            // As a server writes it: no mask.
            out[1] &= !MASKED;
            let start = if length < usize::from(LONG) { 2 } else { 4 };
            out.drain(start..start + MASK.len());
            let whole = out.len();
            out.extend_from_slice(b"next");
            let (kind, read, rest) = read_socket_frame(&out).unwrap();
            assert_eq!((kind, read, rest), (BINARY, &payload[..], &b"next"[..]));
            assert!(read_socket_frame(&out[..whole - 1]).is_none());
        }
    }
}
