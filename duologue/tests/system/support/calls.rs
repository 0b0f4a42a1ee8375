//! Clients of a server, and the requests that most tests make.

use std::time::Duration;

use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::{
    AdvanceCursorRequest, Body, Direction, Envelope, ListMessagesRequest, SendMessageRequest, body,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Server;

/// A client that speaks as one user.
pub(crate) type Chat = ChatServiceClient<InterceptedService<Channel, Bearer>>;

/// Adds a token to every call, if there is one.
#[derive(Clone)]
pub(crate) struct Bearer(
    Option<MetadataValue<Ascii>>,
    Option<(&'static str, &'static str)>,
);

impl Bearer {
    pub(crate) fn new(token: &str) -> Self {
        Self(Some(format!("Bearer {token}").parse().unwrap()), None)
    }

    pub(crate) fn none() -> Self {
        Self(None, None)
    }

    /// And another header.
    pub(crate) fn and(self, name: &'static str, value: &'static str) -> Self {
        Self(self.0, Some((name, value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        if let Some((name, value)) = self.1 {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        Ok(request)
    }
}

/// A client at any address.
pub(crate) fn client(channel: Channel, bearer: Bearer) -> Chat {
    ChatServiceClient::with_interceptor(channel, bearer)
}

impl Server {
    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A client that takes next to nothing that it does not read.
    pub(crate) async fn chat_with_small_window(&self, user: &str) -> Chat {
        /// The smallest that every client must have.
        const WINDOW_BYTES: u32 = 65_535;
        /// With less, h2 takes a stream full of unread small frames for an attack.
        const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        let endpoint = endpoint
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = endpoint.connect().await.unwrap();
        client(channel, Bearer::new(&self.token(user)))
    }

    /// A client with this token.
    pub(crate) async fn chat_with(&self, bearer: Bearer) -> Chat {
        client(self.channel().await, bearer)
    }

    /// A client that speaks as `user`, on a connection of its own.
    pub(crate) async fn chat(&self, user: &str) -> Chat {
        self.chat_with(Bearer::new(&self.token(user))).await
    }

    /// A token for an hour.
    pub(crate) fn token(&self, user: &str) -> String {
        self.place.token(user, Duration::from_hours(1))
    }
}

/// A text.
pub(crate) fn text(text: &str) -> Body {
    Body {
        kind: Some(body::Kind::Text(text.to_owned())),
    }
}

/// The first try of a message to a new conversation.
pub(crate) fn send(peer: &str, id: &str, said: &str) -> SendMessageRequest {
    SendMessageRequest {
        peer: peer.to_owned(),
        message_id: Some(id.to_owned()),
        after_seq: Some(0),
        body: Some(text(said)),
    }
}

/// Sends a message and returns its place.
pub(crate) async fn sent(chat: &mut Chat, peer: &str, id: &str, said: &str) -> u64 {
    let request = SendMessageRequest {
        after_seq: None,
        ..send(peer, id, said)
    };
    chat.send_message(request).await.unwrap().into_inner().seq
}

/// Sends so many messages, `m1` and so on.
pub(crate) async fn sent_many(chat: &mut Chat, peer: &str, count: u64) {
    for number in 1..=count {
        sent(chat, peer, &format!("m{number}"), &format!("text {number}")).await;
    }
}

/// A cursor move.
pub(crate) fn advance(
    peer: &str,
    delivered: Option<u64>,
    read: Option<u64>,
) -> AdvanceCursorRequest {
    AdvanceCursorRequest {
        peer: peer.to_owned(),
        delivered,
        read,
    }
}

/// Everything that was said, the oldest first.
pub(crate) async fn history(chat: &mut Chat, peer: &str) -> Vec<Envelope> {
    let mut messages = Vec::new();
    let mut request = ListMessagesRequest {
        peer: peer.to_owned(),
        direction: Direction::Forward.into(),
        page_size: 200,
        ..Default::default()
    };
    loop {
        let page = chat.list_messages(request.clone()).await.unwrap();
        let page = page.into_inner();
        messages.extend(page.messages);
        if page.next_page_token.is_empty() {
            return messages;
        }
        request.page_token = page.next_page_token;
    }
}

/// The text of a message.
pub(crate) fn text_of(envelope: &Envelope) -> &str {
    match envelope.body.as_ref().and_then(|body| body.kind.as_ref()) {
        Some(body::Kind::Text(text)) => text,
        None => panic!("{envelope:?} has no text"),
    }
}

/// The places of messages.
pub(crate) fn seqs(envelopes: &[Envelope]) -> Vec<u64> {
    envelopes.iter().map(|envelope| envelope.seq).collect()
}
