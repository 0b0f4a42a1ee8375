//! Frames up, from the wire: every field is checked here, and nowhere else.

use bytes::Bytes;
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame;
use duologue_proto::ids::{DeviceId, HistoryId, InvalidId, MessageId, Seq, UserId};
use duologue_proto::limits::{
    MAX_CLIENT_NAME_BYTES, MAX_FEATURES, MAX_POSITIONS, MAX_TEXT_BYTES, MAX_TOKEN_BYTES,
};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::refusal::{Reason, Refusal};
use prost::Message as _;
use tokio::time::Instant;

use super::plain::Plain;
use crate::core::Core;
use crate::frame::{
    Advance, CursorRejectedReason, CursorRejection, Hello, Ref, RejectedReason, Rejection, Send, Up,
};

/// Of an id that breaks its rule so much is echoed.
pub const MAX_ECHO_BYTES: usize = 128;

/// A field that is outside its rule.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) reason: RejectedReason,
    pub(super) field: &'static str,
    pub(super) detail: String,
}

impl Invalid {
    fn field(field: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            reason: RejectedReason::Invalid,
            field,
            detail: detail.to_string(),
        }
    }
}

impl Invalid {
    fn reject(self, message_id: String, peer: String) -> Rejection {
        Rejection {
            message_id,
            peer,
            reason: self.reason,
            field: self.field,
            detail: self.detail,
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::field(invalid.field, invalid.detail)
    }
}

/// A frame of `Converse`. Also takes the send from the user's rate.
pub(super) fn frame(core: &Core, user: &UserId, request: wire::ConverseRequest) -> (Ref, Up) {
    let up = match request.frame {
        Some(Frame::Hello(hello)) => Up::Hello(self::hello("hello.", hello).map(Box::new)),
        Some(Frame::SendMessage(send)) => send_message(core, user, send),
        Some(Frame::Abandon(abandon)) => self::abandon(&abandon),
        Some(Frame::AdvanceCursor(advance)) => match self::advance(&advance) {
            Ok(advance) => Up::Advance(advance),
            Err(rejection) => Up::InvalidAdvance(rejection),
        },
        Some(Frame::Ping(wire::Ping {})) => Up::Ping,
        None => Up::Broken(Refusal::new(
            Reason::UnknownFrame,
            "the frame is of no kind that this server knows",
        )),
    };
    (request.r#ref, up)
}

fn send_message(core: &Core, user: &UserId, send: wire::SendMessage) -> Up {
    let id = send.message_id.as_deref();
    let checked = self::send(core, &send.peer, id, send.after_seq, send.body.as_ref());
    match checked {
        Ok(mut send) => {
            send.over_rate = core.sends.take(user, Instant::now()).err();
            Up::Send(send)
        }
        Err(invalid) => {
            let id = send.message_id.unwrap_or_default();
            Up::InvalidSend(invalid.reject(echo(id), echo(send.peer)))
        }
    }
}

/// A send that is written plainly; none if any field breaks its rule, which
/// [`frame`] has the words for. `last` is the peer of the last one.
pub(super) fn plain(
    core: &Core,
    user: &UserId,
    last: &mut Option<UserId>,
    plain: &Plain<'_>,
) -> Option<(Ref, Up)> {
    if plain.text_bytes == 0 || plain.text_bytes > core.config.max_text_bytes {
        return None;
    }
    let message_id = MessageId::parse(plain.message_id).ok()?;
    if last.as_ref().is_none_or(|last| last.as_str() != plain.peer) {
        *last = Some(UserId::parse(plain.peer).ok()?);
    }
    let send = Send {
        peer: last.clone()?,
        message_id,
        after_seq: plain.after_seq.map(Seq),
        body: Bytes::copy_from_slice(plain.body),
        over_rate: core.sends.take(user, Instant::now()).err(),
        too_long: None,
    };
    Some((plain.reference, Up::Send(send)))
}

fn abandon(abandon: &wire::Abandon) -> Up {
    match MessageId::parse(&abandon.message_id) {
        Ok(message_id) => Up::Abandon(message_id),
        Err(error) => Up::Broken(Refusal::field("abandon.message_id", error)),
    }
}

/// The fields of a send, by either door.
pub(super) fn send(
    core: &Core,
    peer: &str,
    message_id: Option<&str>,
    after_seq: Option<u64>,
    body: Option<&wire::Body>,
) -> Result<Send, Invalid> {
    let peer = UserId::parse(peer).map_err(|error| Invalid::field("peer", error))?;
    let message_id = match message_id {
        Some(id) => MessageId::parse(id),
        None => MessageId::parse(&core.random.id()),
    };
    let message_id = message_id.map_err(|error| Invalid::field("message_id", error))?;
    let (body, text_bytes) = self::body(body)?;
    let max = core.config.max_text_bytes;
    let too_long = (text_bytes > max).then(|| {
        let too_long = too_long(text_bytes, max);
        Box::new(too_long.reject(message_id.to_string(), peer.to_string()))
    });
    Ok(Send {
        peer,
        message_id,
        after_seq: after_seq.map(Seq),
        body,
        over_rate: None,
        too_long,
    })
}

/// The encoded body, and how long its text is.
fn body(body: Option<&wire::Body>) -> Result<(Bytes, usize), Invalid> {
    let body = body.ok_or_else(|| Invalid::field("body", "must be given"))?;
    let Some(wire::body::Kind::Text(text)) = &body.kind else {
        return Err(Invalid::field(
            "body.kind",
            "must be a kind that this server knows: text",
        ));
    };
    match text.len() {
        0 => Err(Invalid::field("body.text", "must not be empty")),
        bytes if bytes > MAX_TEXT_BYTES => Err(too_long(bytes, MAX_TEXT_BYTES)),
        bytes => Ok((body.encode_to_vec().into(), bytes)),
    }
}

fn too_long(bytes: usize, max: usize) -> Invalid {
    Invalid {
        reason: RejectedReason::TooLong,
        field: "body.text",
        detail: format!("is {bytes} bytes of UTF-8 long; at most {max} are allowed"),
    }
}

/// What a cursor move asks for.
pub(super) fn cursor(delivered: Option<u64>, read: Option<u64>) -> Result<Cursor, Invalid> {
    if delivered.is_none() && read.is_none() {
        return Err(Invalid::field(
            "delivered",
            "must be given, or read, or both",
        ));
    }
    Ok(Cursor::asked(delivered.map(Seq), read.map(Seq)))
}

fn advance(advance: &wire::AdvanceCursor) -> Result<Advance, CursorRejection> {
    let checked = || {
        let peer = UserId::parse(&advance.peer).map_err(|error| Invalid::field("peer", error))?;
        Ok(Advance {
            peer,
            asked: cursor(advance.delivered, advance.read)?,
        })
    };
    checked().map_err(|invalid: Invalid| CursorRejection {
        peer: echo(advance.peer.clone()),
        reason: CursorRejectedReason::Invalid,
        field: invalid.field,
        detail: invalid.detail,
        head: None,
    })
}

/// `Hello`, by either door; `at` stands before the names of its fields.
pub(super) fn hello(at: &'static str, hello: wire::Hello) -> Result<Hello, Refusal> {
    bounded(at, "client_name", &hello.client_name, MAX_CLIENT_NAME_BYTES)?;
    bounded(
        at,
        "client_version",
        &hello.client_version,
        MAX_CLIENT_NAME_BYTES,
    )?;
    bounded(at, "sync_token", &hello.sync_token, MAX_TOKEN_BYTES)?;
    counted(at, "features", hello.features.len(), MAX_FEATURES)?;
    for feature in &hello.features {
        bounded(at, "features", feature, MAX_CLIENT_NAME_BYTES)?;
    }
    counted(at, "positions", hello.positions.len(), MAX_POSITIONS)?;
    counted(at, "cursors", hello.cursors.len(), MAX_POSITIONS)?;
    if !hello.access_token.is_empty() {
        return Err(Refusal::field(
            format!("{at}access_token"),
            "is for WebSocket only; give the token as authorization metadata",
        ));
    }
    let history_id = (!hello.history_id.is_empty()).then(|| HistoryId::parse(&hello.history_id));
    Ok(Hello {
        device: device(at, &hello)?,
        history_id: history_id
            .transpose()
            .map_err(|error| Refusal::field(format!("{at}history_id"), error))?,
        positions: positions(at, &hello.positions)?,
        cursors: hello.cursors.iter().map(advance).collect(),
        client: format!("{} {}", hello.client_name, hello.client_version),
        sync_token: hello.sync_token,
    })
}

/// What `Subscribe` says in place of `Hello`.
pub(super) fn hello_of(request: wire::SubscribeRequest) -> wire::Hello {
    wire::Hello {
        device_id: request.device_id,
        connect_number: request.connect_number,
        history_id: request.history_id,
        sync_token: request.sync_token,
        positions: request.positions,
        cursors: request.cursors,
        client_name: request.client_name,
        client_version: request.client_version,
        features: request.features,
        access_token: String::new(),
    }
}

fn device(at: &str, hello: &wire::Hello) -> Result<Option<(DeviceId, u64)>, Refusal> {
    match (&hello.device_id, hello.connect_number) {
        (None, None) => Ok(None),
        (Some(device), Some(number)) => {
            let invalid = |error: InvalidId| Refusal::field(format!("{at}device_id"), error);
            Ok(Some((DeviceId::parse(device).map_err(invalid)?, number)))
        }
        (Some(_), None) => Err(Refusal::field(
            format!("{at}connect_number"),
            "must be given with device_id",
        )),
        (None, Some(_)) => Err(Refusal::field(
            format!("{at}device_id"),
            "must be given with connect_number",
        )),
    }
}

fn positions(at: &str, positions: &[wire::Position]) -> Result<Vec<(UserId, Seq)>, Refusal> {
    let parse = |position: &wire::Position| {
        let peer = UserId::parse(&position.peer)
            .map_err(|error| Refusal::field(format!("{at}positions.peer"), error))?;
        Ok((peer, Seq(position.seq)))
    };
    positions.iter().map(parse).collect()
}

fn bounded(at: &str, field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() <= max {
        return Ok(());
    }
    let detail = format!("is {} bytes long; at most {max} are allowed", text.len());
    Err(Refusal::field(format!("{at}{field}"), detail))
}

fn counted(at: &str, field: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::field(
        format!("{at}{field}"),
        format!("has {count} entries; at most {max} are allowed"),
    ))
}

fn echo(mut text: String) -> String {
    let mut end = text.len().min(MAX_ECHO_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
