//! The unary calls of a device, with their outcomes.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::memory::Pending;
use super::stream::{envelope, millis};
use super::way::Chat;
use super::world::{LONG, World};
use crate::event::{Cursor, CursorMove, Envelope, Event, Refused, Send, Stored, digest};

/// How long a call is waited for; then its outcome is unknown.
const CALL_LIMIT: Duration = Duration::from_secs(3);
const PAGE: i32 = 200;

/// What came of a send.
pub(super) enum Outcome {
    Stored { seq: u64, duplicate: bool },
    Rejected,
    TooOld,
    NotSettled(Duration),
}

pub(super) fn body(text: &str) -> wire::Body {
    wire::Body {
        kind: Some(wire::body::Kind::Text(text.to_owned())),
    }
}

/// Makes a call; one that takes too long fails.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(CALL_LIMIT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

/// How long a refusal asks to wait.
pub(super) fn retry_after(status: &Status) -> Duration {
    let info = status.get_details_retry_info();
    let asked = info.and_then(|info| info.retry_delay).unwrap_or_default();
    asked.clamp(Duration::from_millis(20), Duration::from_secs(2))
}

/// One try of a message by the unary call.
pub(super) async fn send(
    world: &World,
    mut chat: Chat,
    (user, peer): (&str, &str),
    pending: &Pending,
) -> Result<Outcome, Status> {
    let request = wire::SendMessageRequest {
        peer: peer.to_owned(),
        message_id: Some(pending.message_id.clone()),
        after_seq: Some(pending.after_seq),
        body: Some(body(&pending.text)),
    };
    let request = world.request(user, LONG, request)?;
    let try_number = world.recorder.number();
    world.note(Event::Send(Send {
        try_number,
        lane: try_number,
        session: None,
        user: user.to_owned(),
        peer: peer.to_owned(),
        message_id: pending.message_id.clone(),
        after_seq: Some(pending.after_seq),
        body: digest(&pending.text),
    }));
    let refused = |status: &Status| Refused {
        try_number: Some(try_number),
        user: user.to_owned(),
        message_id: pending.message_id.clone(),
        reason: format!("{:?}", status.code()),
    };
    let status = match within(chat.send_message(request)).await {
        Ok(answer) => {
            world.note(Event::Stored(Stored {
                try_number: Some(try_number),
                session: None,
                user: user.to_owned(),
                peer: peer.to_owned(),
                message_id: answer.message_id,
                seq: answer.seq,
                duplicate: answer.duplicate,
                accepted_at: millis(answer.accepted_at),
            }));
            return Ok(Outcome::Stored {
                seq: answer.seq,
                duplicate: answer.duplicate,
            });
        }
        Err(status) => status,
    };
    let (event, outcome) = match status.code() {
        Code::AlreadyExists | Code::InvalidArgument => {
            (Event::Rejected(refused(&status)), Outcome::Rejected)
        }
        Code::OutOfRange => (Event::Deferred(refused(&status)), Outcome::TooOld),
        Code::ResourceExhausted | Code::Aborted | Code::Unavailable => (
            Event::Deferred(refused(&status)),
            Outcome::NotSettled(retry_after(&status)),
        ),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => (
            Event::Unanswered(refused(&status)),
            Outcome::NotSettled(retry_after(&status)),
        ),
    };
    world.note(event);
    Ok(outcome)
}

/// Moves a cursor by the unary call; returns what is stored.
pub(super) async fn advance(
    world: &World,
    mut chat: Chat,
    (user, peer): (&str, &str),
    cursor: Cursor,
) -> Result<Cursor, Status> {
    let request = wire::AdvanceCursorRequest {
        peer: peer.to_owned(),
        delivered: Some(cursor.delivered),
        read: Some(cursor.read),
    };
    let request = world.request(user, LONG, request)?;
    let number = world.recorder.number();
    let moved = |cursor| CursorMove {
        number,
        session: None,
        user: user.to_owned(),
        peer: peer.to_owned(),
        cursor,
    };
    world.note(Event::CursorAsked(moved(cursor)));
    match within(chat.advance_cursor(request)).await {
        Ok(answer) => {
            let stored = Cursor {
                delivered: answer.delivered,
                read: answer.read,
            };
            world.note(Event::CursorStored(moved(stored)));
            Ok(stored)
        }
        Err(status) => {
            world.note(Event::CursorRefused(moved(Cursor::default())));
            Err(status)
        }
    }
}

/// The messages of a conversation after a sequence, to its head.
pub(super) async fn list(
    world: &World,
    mut chat: Chat,
    (user, peer): (&str, &str),
    after_seq: u64,
) -> Result<Vec<Envelope>, Status> {
    let mut messages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListMessagesRequest {
            peer: peer.to_owned(),
            page_size: PAGE,
            page_token,
            direction: wire::Direction::Forward.into(),
            after_seq: Some(after_seq),
            before_seq: None,
        };
        let request = world.request(user, LONG, request)?;
        let page = within(chat.list_messages(request)).await?;
        messages.extend(page.messages.iter().map(|wire| envelope(wire).0));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(messages);
        }
    }
}

/// Both cursors of every conversation of a user, by peer.
pub(super) async fn cursors(
    world: &World,
    mut chat: Chat,
    user: &str,
) -> Result<Vec<(String, Cursor, Cursor)>, Status> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListConversationsRequest {
            page_size: 0,
            page_token,
        };
        let request = world.request(user, LONG, request)?;
        let page = within(chat.list_conversations(request)).await?;
        all.extend(page.conversations.into_iter().map(|conversation| {
            let own = super::stream::cursor(conversation.own_cursor);
            let other = super::stream::cursor(conversation.peer_cursor);
            (conversation.peer, own, other)
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}
