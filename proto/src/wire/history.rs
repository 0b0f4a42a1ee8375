//! `duologue.history.v1`, to and from typed values. Runs and their answers stand in
//! `append.rs`.

pub use super::append::{read_answers, read_run, write_answers, write_refused, write_run};
use super::{
    InvalidField, Read, between, count, each, envelope, envelope_bytes, envelopes, id,
    optional_user, size, texts, user, users,
};
use crate::chat::v1 as chat;
use crate::history::v1 as wire;
use crate::history::{
    ConversationSummary, ConversationsPage, CursorAdvanced, ListConversations, ListMessages,
    MessagesPage, ReadPage, ReadRequest, ReadStart, SyncPage, SyncRequest, SyncedConversation,
};
use crate::ids::{HistoryId, Seq, UnixMillis, UserId};
use crate::limits::{
    MAX_CONVERSATIONS_PAGE, MAX_INTERNAL_USERS, MAX_MESSAGES_PAGE, MAX_POSITIONS, MAX_TOKEN_BYTES,
};
use crate::message::Cursor;

/// Asks for messages.
pub fn write_read(request: &ReadRequest) -> wire::ReadRequest {
    use wire::read_request::Start;
    wire::ReadRequest {
        user: request.user.to_string(),
        peer: request.peer.to_string(),
        start: Some(match request.start {
            ReadStart::After(seq) => Start::AfterSeq(seq.0),
            ReadStart::AcceptedSince(time) => Start::AcceptedSinceMillis(time.0),
        }),
        max_messages: size(request.max_messages),
        max_bytes: size(request.max_bytes),
    }
}

/// Asks for messages.
pub fn read_read(request: &wire::ReadRequest) -> Read<ReadRequest> {
    use wire::read_request::Start;
    Ok(ReadRequest {
        user: user("user", &request.user)?,
        peer: user("peer", &request.peer)?,
        start: match request.start {
            Some(Start::AfterSeq(seq)) => ReadStart::After(Seq(seq)),
            Some(Start::AcceptedSinceMillis(time)) => ReadStart::AcceptedSince(UnixMillis(time)),
            None => return Err(InvalidField::absent("start")),
        },
        max_messages: count(request.max_messages),
        max_bytes: count(request.max_bytes),
    })
}

/// Messages in order.
pub fn write_read_page(page: &ReadPage) -> wire::ReadResponse {
    wire::ReadResponse {
        after_seq: page.after.0,
        messages: page.messages.iter().map(envelope_bytes).collect(),
        head: page.head.0,
    }
}

/// Messages in order: they follow each other without a gap.
pub fn read_read_page(page: &wire::ReadResponse) -> Read<ReadPage> {
    let after = Seq(page.after_seq);
    let messages = envelopes("messages", &page.messages)?;
    let mut expected = after;
    for (index, message) in messages.iter().enumerate() {
        expected = expected.next();
        if message.seq != expected {
            let field = format_args!("messages[{index}]").to_string();
            return Err(InvalidField::new(field, "does not follow the one before"));
        }
    }
    Ok(ReadPage {
        after,
        messages,
        head: Seq(page.head),
    })
}

/// Asks what changed.
pub fn write_sync(request: &SyncRequest) -> wire::SyncRequest {
    wire::SyncRequest {
        user: request.user.to_string(),
        sync_token: request.token.clone(),
        named: texts(&request.named),
        after_peer: request.after.as_ref().map(UserId::to_string),
        max_conversations: size(request.max_conversations),
    }
}

/// Asks what changed. Whether the token is one, history judges.
pub fn read_sync(request: wire::SyncRequest) -> Read<SyncRequest> {
    between("named", request.named.len(), 0, MAX_POSITIONS)?;
    Ok(SyncRequest {
        user: user("user", &request.user)?,
        token: request.sync_token,
        named: users("named", &request.named)?,
        after: optional_user("after_peer", request.after_peer.as_ref())?,
        max_conversations: count(request.max_conversations),
    })
}

/// What changed.
pub fn write_sync_page(page: &SyncPage) -> wire::SyncResponse {
    let conversations = page.conversations.iter();
    wire::SyncResponse {
        history_id: page.history_id.to_string(),
        sync_token: page.token.clone(),
        token_floor_millis: page.token_floor.0,
        since_millis: page.since.map(|time| time.0),
        conversations: conversations
            .map(|conversation| wire::SyncedConversation {
                peer: conversation.peer.to_string(),
                head: conversation.head.0,
                own_cursor: Some(conversation.own_cursor.to_wire()),
                peer_cursor: Some(conversation.peer_cursor.to_wire()),
            })
            .collect(),
        more: page.more,
    }
}

/// What changed.
pub fn read_sync_page(page: wire::SyncResponse) -> Read<SyncPage> {
    Ok(SyncPage {
        history_id: read_history_id(&page.history_id)?,
        token: token("sync_token", page.sync_token)?,
        token_floor: UnixMillis(page.token_floor_millis),
        since: page.since_millis.map(UnixMillis),
        conversations: each("conversations", page.conversations, |conversation| {
            Ok(SyncedConversation {
                peer: user("peer", &conversation.peer)?,
                head: Seq(conversation.head),
                own_cursor: cursor("own_cursor", conversation.own_cursor)?,
                peer_cursor: cursor("peer_cursor", conversation.peer_cursor)?,
            })
        })?,
        more: page.more,
    })
}

/// Which history it is.
pub fn read_history_id(text: &str) -> Read<HistoryId> {
    id("history_id", text, HistoryId::parse)
}

/// Asks to move a cursor.
pub fn write_advance(user: &UserId, peer: &UserId, asked: Cursor) -> wire::AdvanceCursorRequest {
    wire::AdvanceCursorRequest {
        user: user.to_string(),
        peer: peer.to_string(),
        cursor: Some(asked.to_wire()),
    }
}

/// Asks to move a cursor: whose, in the conversation with whom, where to.
pub fn read_advance(request: &wire::AdvanceCursorRequest) -> Read<(UserId, UserId, Cursor)> {
    Ok((
        user("user", &request.user)?,
        user("peer", &request.peer)?,
        cursor("cursor", request.cursor)?,
    ))
}

/// What became of a cursor move.
pub fn write_advanced(advanced: CursorAdvanced) -> wire::AdvanceCursorResponse {
    use wire::advance_cursor_response::Outcome;
    wire::AdvanceCursorResponse {
        outcome: Some(match advanced {
            CursorAdvanced::Stored { cursor, moved } => Outcome::Stored(wire::CursorStored {
                cursor: Some(cursor.to_wire()),
                moved,
            }),
            CursorAdvanced::AboveHead { head } => Outcome::AboveHead(head.0),
        }),
    }
}

/// What became of a cursor move.
pub fn read_advanced(response: &wire::AdvanceCursorResponse) -> Read<CursorAdvanced> {
    use wire::advance_cursor_response::Outcome;
    match &response.outcome {
        Some(Outcome::Stored(stored)) => Ok(CursorAdvanced::Stored {
            cursor: cursor("stored.cursor", stored.cursor)?,
            moved: stored.moved,
        }),
        Some(Outcome::AboveHead(head)) => Ok(CursorAdvanced::AboveHead { head: Seq(*head) }),
        None => Err(InvalidField::absent("outcome")),
    }
}

/// Asks for a page of messages.
pub fn write_list_messages(request: &ListMessages) -> wire::ListMessagesRequest {
    wire::ListMessagesRequest {
        user: request.user.to_string(),
        peer: request.peer.to_string(),
        page_size: size(request.page_size),
        page_token: request.page_token.clone(),
        forward: request.forward,
        after_seq: request.after_seq.map(|seq| seq.0),
        before_seq: request.before_seq.map(|seq| seq.0),
    }
}

/// Asks for a page of messages. Whether the token is one, history judges.
pub fn read_list_messages(request: wire::ListMessagesRequest) -> Read<ListMessages> {
    let page_size = count(request.page_size);
    Ok(ListMessages {
        user: user("user", &request.user)?,
        peer: user("peer", &request.peer)?,
        page_size: between("page_size", page_size, 1, MAX_MESSAGES_PAGE)?,
        page_token: request.page_token,
        forward: request.forward,
        after_seq: request.after_seq.map(Seq),
        before_seq: request.before_seq.map(Seq),
    })
}

/// A page of messages.
pub fn write_messages(page: &MessagesPage) -> wire::ListMessagesResponse {
    wire::ListMessagesResponse {
        messages: page.messages.iter().map(envelope_bytes).collect(),
        next_page_token: page.next_page_token.clone(),
        head: page.head.0,
    }
}

/// A page of messages.
pub fn read_messages(page: wire::ListMessagesResponse) -> Read<MessagesPage> {
    Ok(MessagesPage {
        messages: envelopes("messages", &page.messages)?,
        next_page_token: token("next_page_token", page.next_page_token)?,
        head: Seq(page.head),
    })
}

/// Asks for a page of conversations.
pub fn write_list_conversations(request: &ListConversations) -> wire::ListConversationsRequest {
    wire::ListConversationsRequest {
        user: request.user.to_string(),
        page_size: size(request.page_size),
        page_token: request.page_token.clone(),
    }
}

/// Asks for a page of conversations. Whether the token is one, history judges.
pub fn read_list_conversations(request: wire::ListConversationsRequest) -> Read<ListConversations> {
    let page_size = count(request.page_size);
    Ok(ListConversations {
        user: user("user", &request.user)?,
        page_size: between("page_size", page_size, 1, MAX_CONVERSATIONS_PAGE)?,
        page_token: request.page_token,
    })
}

/// A page of conversations.
pub fn write_conversations(page: &ConversationsPage) -> wire::ListConversationsResponse {
    let conversations = page.conversations.iter();
    wire::ListConversationsResponse {
        conversations: conversations
            .map(|summary| wire::ConversationSummary {
                peer: summary.peer.to_string(),
                last_message: envelope_bytes(&summary.last_message),
                unread: summary.unread,
                own_cursor: Some(summary.own_cursor.to_wire()),
                peer_cursor: Some(summary.peer_cursor.to_wire()),
            })
            .collect(),
        next_page_token: page.next_page_token.clone(),
    }
}

/// A page of conversations.
pub fn read_conversations(page: wire::ListConversationsResponse) -> Read<ConversationsPage> {
    Ok(ConversationsPage {
        conversations: each("conversations", page.conversations, |summary| {
            Ok(ConversationSummary {
                peer: user("peer", &summary.peer)?,
                last_message: envelope("last_message", &summary.last_message)?,
                unread: summary.unread,
                own_cursor: cursor("own_cursor", summary.own_cursor)?,
                peer_cursor: cursor("peer_cursor", summary.peer_cursor)?,
            })
        })?,
        next_page_token: token("next_page_token", page.next_page_token)?,
    })
}

/// Asks who shares a conversation with a user.
pub fn write_list_peers(
    user: &UserId,
    after: Option<&UserId>,
    max: usize,
) -> wire::ListPeersRequest {
    wire::ListPeersRequest {
        user: user.to_string(),
        after_peer: after.map(UserId::to_string),
        max_peers: size(max),
    }
}

/// Asks who shares a conversation with a user: whom, after whom, how many.
pub fn read_list_peers(request: &wire::ListPeersRequest) -> Read<(UserId, Option<UserId>, usize)> {
    Ok((
        user("user", &request.user)?,
        optional_user("after_peer", request.after_peer.as_ref())?,
        between("max_peers", count(request.max_peers), 1, MAX_INTERNAL_USERS)?,
    ))
}

/// Who shares a conversation with a user.
pub fn write_peers(peers: &[UserId]) -> wire::ListPeersResponse {
    wire::ListPeersResponse {
        peers: texts(peers),
    }
}

/// Who shares a conversation with a user.
pub fn read_peers(response: &wire::ListPeersResponse) -> Read<Vec<UserId>> {
    users("peers", &response.peers)
}

/// Asks whether two users share a conversation.
pub fn write_share(one: &UserId, other: &UserId) -> wire::ShareConversationRequest {
    wire::ShareConversationRequest {
        user: one.to_string(),
        peer: other.to_string(),
    }
}

/// Asks whether two users share a conversation.
pub fn read_share(request: &wire::ShareConversationRequest) -> Read<(UserId, UserId)> {
    Ok((user("user", &request.user)?, user("peer", &request.peer)?))
}

fn token(field: &str, token: String) -> Read<String> {
    between(field, token.len(), 0, MAX_TOKEN_BYTES).map_err(|fault| InvalidField {
        rule: format!("is too long: {}", fault.rule),
        ..fault
    })?;
    Ok(token)
}

fn cursor(field: &str, cursor: Option<chat::Cursor>) -> Read<Cursor> {
    let cursor = cursor.ok_or_else(|| InvalidField::absent(field))?;
    if cursor.read > cursor.delivered {
        return Err(InvalidField::new(field, "is read further than delivered"));
    }
    Ok(Cursor::from_wire(&cursor))
}
