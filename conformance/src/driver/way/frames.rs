//! The messages of a gRPC body: out of it and into it; and the token in the first.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame;
use prost::Message as _;
use tonic::Status;

/// Before a message: that it is not compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The next message of what was read, if all of it was.
pub(super) fn take(read: &mut BytesMut) -> Option<Bytes> {
    let prefix = read.get(1..PREFIX_BYTES)?;
    let length = usize::try_from(u32::from_be_bytes(prefix.try_into().ok()?)).ok()?;
    if read.len() < PREFIX_BYTES + length {
        return None;
    }
    read.advance(PREFIX_BYTES);
    Some(read.split_to(length).freeze())
}

/// A message as it stands in a body.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // No message comes near.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// A first message with this token.
pub(super) fn with_token(message: &Bytes, token: &str) -> Result<Bytes, Status> {
    let mut request = wire::ConverseRequest::decode(message.clone())
        .map_err(|error| Status::internal(error.to_string()))?;
    if let Some(Frame::Hello(hello)) = &mut request.frame {
        token.clone_into(&mut hello.access_token);
    }
    Ok(request.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let body = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let (mut read, mut all) = (BytesMut::new(), Vec::new());
        for byte in body {
            read.put_u8(byte);
            all.extend(take(&mut read));
        }
        assert_eq!(all, ["one", "", "three"]);
        assert!(read.is_empty());
    }
}
