//! Questions to the server that belong to no session.

use duologue_proto::chat::v1 as wire;
use duologue_proto::ids::{Seq, UserId};
use duologue_proto::message::Cursor;

use crate::client::Client;
use crate::error::ClientError;
use crate::event::{Message, Presence};

/// Which messages to list.
#[derive(Debug, Clone)]
pub struct MessagesQuery {
    /// The other user of the conversation.
    pub peer: UserId,
    /// At most this many; the server has limits of its own. 0: its default.
    pub page_size: u16,
    /// `next_page_token` of the page before, with everything else unchanged.
    pub page_token: String,
    /// The oldest first.
    pub forward: bool,
    /// Only messages above this sequence.
    pub after: Option<Seq>,
    /// Only messages below this sequence.
    pub before: Option<Seq>,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesPage {
    /// In the order asked for.
    pub messages: Vec<Message>,
    /// Asks for the next page; empty: this was the last one.
    pub next_page_token: String,
    /// The highest sequence when the page was read.
    pub head: Seq,
}

/// One conversation as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The other user.
    pub peer: UserId,
    /// The highest sequence.
    pub head: Seq,
    /// The message at the head.
    pub last_message: Option<Message>,
    /// Messages of the peer that are not read.
    pub unread: u64,
    /// The user's own cursor.
    pub own_cursor: Cursor,
    /// The peer's cursor.
    pub peer_cursor: Cursor,
}

/// A page of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Asks for the next page; empty: this was the last one.
    pub next_page_token: String,
}

impl MessagesQuery {
    /// The newest messages of a conversation, the newest first.
    pub fn newest(peer: &UserId, page_size: u16) -> Self {
        Self {
            peer: peer.clone(),
            page_size,
            page_token: String::new(),
            forward: false,
            after: None,
            before: None,
        }
    }
}

impl Client {
    /// Lists messages of one conversation.
    pub async fn list_messages(&self, query: MessagesQuery) -> Result<MessagesPage, ClientError> {
        let direction = if query.forward {
            wire::Direction::Forward
        } else {
            wire::Direction::Backward
        };
        let request = wire::ListMessagesRequest {
            peer: query.peer.as_str().to_owned(),
            page_size: query.page_size.into(),
            page_token: query.page_token,
            direction: direction.into(),
            after_seq: query.after.map(|seq| seq.0),
            before_seq: query.before.map(|seq| seq.0),
        };
        let call = self
            .transport()
            .call(request, |mut client, request| async move {
                client.list_messages(request).await
            });
        let page = call.await?;
        let messages = page.messages.into_iter();
        Ok(MessagesPage {
            messages: messages
                .filter_map(|envelope| Message::in_conversation(envelope, query.peer.clone()))
                .collect(),
            next_page_token: page.next_page_token,
            head: Seq(page.head),
        })
    }

    /// Lists the user's conversations, the most recently active first.
    pub async fn list_conversations(
        &self,
        page_size: u16,
        page_token: String,
    ) -> Result<Page<Conversation>, ClientError> {
        let request = wire::ListConversationsRequest {
            page_size: page_size.into(),
            page_token,
        };
        let call = self
            .transport()
            .call(request, |mut client, request| async move {
                client.list_conversations(request).await
            });
        let page = call.await?;
        let items = page.conversations.into_iter();
        Ok(Page {
            items: items.filter_map(Conversation::from_wire).collect(),
            next_page_token: page.next_page_token,
        })
    }

    /// Lists the users who are online and whose presence this user may see.
    pub async fn list_users(
        &self,
        page_size: u16,
        page_token: String,
    ) -> Result<Page<Presence>, ClientError> {
        let request = wire::ListUsersRequest {
            page_size: page_size.into(),
            page_token,
        };
        let call = self
            .transport()
            .call(request, |mut client, request| async move {
                client.list_users(request).await
            });
        let page = call.await?;
        Ok(Page {
            items: page.users.iter().filter_map(Presence::from_wire).collect(),
            next_page_token: page.next_page_token,
        })
    }

    /// Whether a user is online. An error is not "offline".
    pub async fn presence(&self, user: &UserId) -> Result<Presence, ClientError> {
        let request = wire::GetPresenceRequest {
            user: user.as_str().to_owned(),
        };
        let call = self
            .transport()
            .call(request, |mut client, request| async move {
                client.get_presence(request).await
            });
        let presence = call.await?.presence;
        presence
            .as_ref()
            .and_then(Presence::from_wire)
            .ok_or_else(|| ClientError::malformed("GetPresence"))
    }
}

impl Conversation {
    fn from_wire(wire: wire::Conversation) -> Option<Self> {
        let peer = UserId::parse(&wire.peer).ok()?;
        let cursor = |cursor: Option<wire::Cursor>| {
            cursor.as_ref().map(Cursor::from_wire).unwrap_or_default()
        };
        Some(Self {
            head: Seq(wire.head),
            last_message: wire
                .last_message
                .and_then(|envelope| Message::in_conversation(envelope, peer.clone())),
            unread: wire.unread,
            own_cursor: cursor(wire.own_cursor),
            peer_cursor: cursor(wire.peer_cursor),
            peer,
        })
    }
}
