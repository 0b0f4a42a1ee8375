//! Frames up, as a device says them.

use duologue_proto::chat::v1::converse_request::Frame;
use duologue_proto::chat::v1::{
    Abandon, AdvanceCursor, ConverseRequest, Hello, Ping, Position, SendMessage,
};

use super::calls::text;

/// A frame that carries a number to be echoed.
pub(crate) fn numbered(reference: u64, frame: Frame) -> ConverseRequest {
    ConverseRequest {
        r#ref: reference,
        frame: Some(frame),
    }
}

/// A device with nothing.
pub(crate) fn hello() -> Hello {
    Hello::default()
}

/// A device by name.
pub(crate) fn device(id: &str, connect_number: u64) -> Hello {
    Hello {
        device_id: Some(id.to_owned()),
        connect_number: Some(connect_number),
        ..Default::default()
    }
}

/// What a device holds of one conversation.
pub(crate) fn position(peer: &str, seq: u64) -> Position {
    Position {
        peer: peer.to_owned(),
        seq,
    }
}

/// The first try of a message.
pub(crate) fn message(peer: &str, id: &str, said: &str) -> SendMessage {
    SendMessage {
        peer: peer.to_owned(),
        message_id: Some(id.to_owned()),
        after_seq: Some(0),
        body: Some(text(said)),
    }
}

/// A send.
pub(crate) fn send(peer: &str, id: &str, said: &str) -> Frame {
    Frame::SendMessage(message(peer, id, said))
}

/// A send that names a sequence from before its first try.
pub(crate) fn send_after(peer: &str, id: &str, said: &str, after_seq: u64) -> Frame {
    Frame::SendMessage(SendMessage {
        after_seq: Some(after_seq),
        ..message(peer, id, said)
    })
}

/// Gives a message up.
pub(crate) fn abandon(id: &str) -> Frame {
    Frame::Abandon(Abandon {
        message_id: id.to_owned(),
    })
}

/// A cursor move.
pub(crate) fn advance(peer: &str, delivered: Option<u64>, read: Option<u64>) -> Frame {
    Frame::AdvanceCursor(AdvanceCursor {
        peer: peer.to_owned(),
        delivered,
        read,
    })
}

/// Asks for a pong.
pub(crate) fn ping() -> Frame {
    Frame::Ping(Ping {})
}
