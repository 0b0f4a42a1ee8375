//! What is asked of the recorded process: messages by stream and by unary call, of
//! all sizes, in few conversations and in many, with retries.
//!
//! Every message is sent once, and every answer must be `Stored`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::users::Users;

/// Sends without an answer of one stream.
const WINDOW: usize = 8;
/// Strangers who are written to at once.
const CALLS: usize = 24;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// By each of two users, in one stream each.
    pub(super) streamed: usize,
    /// By unary calls, one after another; every fourth is sent twice.
    pub(super) called: usize,
    /// To as many strangers, so that tables are written.
    pub(super) strangers: usize,
}

/// A message that was answered `Stored`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) sender: &'static str,
    pub(super) peer: String,
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) text: String,
}

/// Sends everything; returns what was answered.
pub(super) async fn run(server: SocketAddr, users: &Users, load: Load) -> Result<Vec<Told>> {
    let next = AtomicU32::new(1);
    let sender = Sender {
        server,
        users,
        next: &next,
    };
    let (one, other, called, strangers) = tokio::try_join!(
        sender.stream("alice", "bob", load.streamed),
        sender.stream("bob", "alice", load.streamed),
        sender.call("carol", "dave", load.called),
        sender.strangers("erin", load.strangers),
    )?;
    Ok([one, other, called, strangers].concat())
}

/// A connection of its own.
pub(super) async fn connect(server: SocketAddr) -> Result<ChatServiceClient<Channel>> {
    let endpoint = Channel::from_shared(format!("http://{server}"))?;
    let channel = endpoint.connect().await.context("cannot connect")?;
    Ok(ChatServiceClient::new(channel))
}

/// Sends one message by the unary call.
pub(super) async fn call(
    chat: &mut ChatServiceClient<Channel>,
    users: &Users,
    sender: &'static str,
    message: (&str, &str, &str),
) -> Result<Told> {
    let (peer, id, text) = message;
    let request = wire::SendMessageRequest {
        peer: peer.to_owned(),
        message_id: Some(id.to_owned()),
        after_seq: None,
        body: Some(body(text)),
    };
    let answer = chat.send_message(users.request(sender, request)?).await?;
    let answer = answer.into_inner();
    ensure!(answer.message_id == id, "an answer to something else");
    Ok(Told {
        sender,
        peer: peer.to_owned(),
        id: id.to_owned(),
        seq: answer.seq,
        text: text.to_owned(),
    })
}

struct Sender<'a> {
    server: SocketAddr,
    users: &'a Users,
    next: &'a AtomicU32,
}

impl Sender<'_> {
    /// A fresh id, and a text: mostly short, some over many sectors of a disk.
    fn message(&self) -> (String, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = match number % 16 {
            0 => 7_000,
            1 => 1_500,
            few => 10 + few,
        };
        let text = format!("text {number} ").repeat(usize::try_from(bytes / 10).unwrap_or(1));
        (format!("sync-{number:06}"), text)
    }

    async fn call(&self, sender: &'static str, peer: &str, count: usize) -> Result<Vec<Told>> {
        let mut chat = connect(self.server).await?;
        let mut told = Vec::new();
        for number in 0..count {
            let (id, text) = self.message();
            let message = (peer, id.as_str(), text.as_str());
            let first = call(&mut chat, self.users, sender, message).await?;
            if number % 4 == 0 {
                let again = call(&mut chat, self.users, sender, message).await?;
                ensure!(first == again, "a retry is answered otherwise");
            }
            told.push(first);
        }
        Ok(told)
    }

    async fn strangers(&self, sender: &'static str, count: usize) -> Result<Vec<Told>> {
        let chat = connect(self.server).await?;
        let sends = (0..count).map(|number| {
            let (mut chat, users) = (chat.clone(), self.users);
            let (id, _) = self.message();
            async move {
                // As long as a user id may be.
                let peer = format!("stranger-{number:055}");
                call(&mut chat, users, sender, (&peer, &id, "hello")).await
            }
        });
        stream::iter(sends)
            .buffer_unordered(CALLS)
            .try_collect()
            .await
    }

    async fn stream(&self, user: &'static str, peer: &str, count: usize) -> Result<Vec<Told>> {
        let mut chat = connect(self.server).await?;
        let (up, frames) = mpsc::channel(WINDOW);
        up.send(frame(Up::Hello(wire::Hello::default()))).await?;
        let request = self.users.request(user, ReceiverStream::new(frames))?;
        let mut down = chat.converse(request).await?.into_inner();
        let mut open = Vec::new();
        let mut told = Vec::new();
        while told.len() < count {
            // After `Welcome`; then as many as the window has room for.
            let answer = down.message().await?.context("the stream has ended")?;
            match answer.frame.context("an empty frame")? {
                Down::Stored(stored) => told.push(settle(&mut open, stored)?),
                Down::Welcome(_)
                | Down::MessageDelivered(_)
                | Down::CaughtUp(_)
                | Down::PresenceReset(_)
                | Down::PresenceChanged(_)
                | Down::Heartbeat(_) => {}
                other @ (Down::Rejected(_)
                | Down::Deferred(_)
                | Down::CursorStored(_)
                | Down::CursorRejected(_)
                | Down::ReceiptAdvanced(_)
                | Down::Pong(_)
                | Down::Goodbye(_)) => bail!("{user} is told {other:?}"),
            }
            while open.len() < WINDOW && told.len() + open.len() < count {
                let message = self.sent(&up, user, peer, told.last()).await?;
                open.push(message);
            }
        }
        drop(up);
        while down.message().await?.is_some() {}
        Ok(told)
    }

    async fn sent(
        &self,
        up: &mpsc::Sender<wire::ConverseRequest>,
        sender: &'static str,
        peer: &str,
        last: Option<&Told>,
    ) -> Result<Told> {
        let (id, text) = self.message();
        let send = wire::SendMessage {
            peer: peer.to_owned(),
            message_id: Some(id.clone()),
            after_seq: Some(last.map_or(0, |told| told.seq)),
            body: Some(body(&text)),
        };
        up.send(frame(Up::SendMessage(send))).await?;
        Ok(Told {
            sender,
            peer: peer.to_owned(),
            id,
            seq: 0,
            text,
        })
    }
}

/// The message that is stored, with its place.
fn settle(open: &mut Vec<Told>, stored: wire::Stored) -> Result<Told> {
    let at = open.iter().position(|told| told.id == stored.message_id);
    let mut told = open.remove(at.context("an answer to something else")?);
    told.seq = stored.seq;
    Ok(told)
}

fn frame(frame: Up) -> wire::ConverseRequest {
    wire::ConverseRequest {
        r#ref: 0,
        frame: Some(frame),
    }
}

fn body(text: &str) -> wire::Body {
    wire::Body {
        kind: Some(wire::body::Kind::Text(text.to_owned())),
    }
}
