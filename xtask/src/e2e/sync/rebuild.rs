//! Opens what a loss of power would have left, with the program itself, and finds
//! what breaks the second promise: everything that was acknowledged is there, in its
//! place, and the conversation goes on behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use futures_util::{StreamExt as _, stream};
use tokio::process::Command;
use tonic::transport::Channel;

use super::super::server::Server;
use super::load::{Told, call, connect};
use super::users::{Users, arguments};

/// How long a killed program may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Conversations with strangers that are read at most points: as many of the newest,
/// and as many of all.
const STRANGERS: usize = 6;
/// Conversations that are read at once.
const READS: usize = 24;
/// An id that the load does not use.
const NEXT_ID: &str = "sync-900000";

/// What a rebuilt directory breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Breach {
    /// It was acknowledged and is not there.
    Lost(String),
    /// It is there, but not as it was acknowledged.
    Changed(String),
    /// The conversation with this user has a gap, or a message twice.
    Disordered(String),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(id) => write!(f, "acknowledged and lost: {id}"),
            Self::Changed(id) => write!(f, "acknowledged and changed: {id}"),
            Self::Disordered(peer) => write!(f, "out of order: the conversation with {peer}"),
        }
    }
}

/// What is looked for in a rebuilt directory.
pub(super) struct Expected<'a> {
    /// All messages of the load, by id.
    pub(super) all: &'a BTreeMap<String, Told>,
    /// Those that somebody had been told of.
    pub(super) told: BTreeSet<String>,
    /// Whether every stranger's conversation is read.
    pub(super) whole: bool,
}

/// Starts the program on `folder/data`. An error is a directory that does not open,
/// or a program that does not answer; it is no breach.
pub(super) async fn check(
    program: &Path,
    users: &Users,
    folder: &Path,
    expected: &Expected<'_>,
) -> Result<Vec<Breach>> {
    users.admit_to(&folder.join("data"))?;
    let mut command = Command::new(program);
    command.args(arguments("data"));
    let mut server = Server::start_by(command, folder).await?;
    let breaches = read(server.grpc(), users, expected).await?;
    server.kill()?;
    server.ended(END_LIMIT).await?;
    Ok(breaches)
}

async fn read(server: SocketAddr, users: &Users, expected: &Expected<'_>) -> Result<Vec<Breach>> {
    let mut chat = connect(server).await?;
    let mut told = BTreeMap::<_, Vec<_>>::new();
    for message in expected.told.iter().map(|id| &expected.all[id]) {
        let here = told.entry(both(message.sender, &message.peer));
        here.or_default().push(message);
    }
    let reader = Reader {
        chat: chat.clone(),
        users,
        expected,
        told,
    };
    let mut breaches = reader.conversation("alice", "bob").await?.breaches;
    let called = reader.conversation("carol", "dave").await?;
    breaches.extend(called.breaches);
    let strangers = reader.strangers().into_iter();
    let mut reads = stream::iter(strangers.map(|peer| reader.conversation("erin", peer)))
        .buffer_unordered(READS);
    while let Some(read) = reads.next().await {
        breaches.extend(read?.breaches);
    }
    if breaches.is_empty() {
        let next = call(&mut chat, users, "carol", ("dave", NEXT_ID, "goes on")).await?;
        let place = called.messages + 1;
        ensure!(next.seq == place, "the next message is at {}", next.seq);
    }
    Ok(breaches)
}

struct Reader<'a> {
    chat: ChatServiceClient<Channel>,
    users: &'a Users,
    expected: &'a Expected<'a>,
    /// What somebody was told of, by conversation.
    told: BTreeMap<(&'a str, &'a str), Vec<&'a Told>>,
}

/// The two users of a conversation, in any order.
fn both<'a>(user: &'a str, peer: &'a str) -> (&'a str, &'a str) {
    (user.min(peer), user.max(peer))
}

/// What was read of a conversation.
struct Read {
    messages: u64,
    breaches: Vec<Breach>,
}

impl Reader<'_> {
    /// Peers of erin that are to be looked at.
    fn strangers(&self) -> Vec<&str> {
        let told = self.expected.told.iter().map(|id| &self.expected.all[id]);
        let of_erin = told.filter(|told| told.sender == "erin");
        let peers: Vec<_> = of_erin.map(|told| told.peer.as_str()).collect();
        if self.expected.whole {
            return peers;
        }
        let step = (peers.len() / STRANGERS).max(1);
        let some = peers.iter().step_by(step).take(STRANGERS);
        let newest = peers.iter().rev().take(STRANGERS);
        let chosen: BTreeSet<_> = some.chain(newest).copied().collect();
        chosen.into_iter().collect()
    }

    async fn conversation(&self, user: &str, peer: &str) -> Result<Read> {
        let listed = self.listed(user, peer).await?;
        let mut breaches = Vec::new();
        let mut there = BTreeSet::new();
        for (place, message) in (1..).zip(&listed) {
            let told = self.expected.all.get(&message.message_id);
            let told = told.context("a message that nobody has sent")?;
            let text = message.body.as_ref().and_then(|body| body.kind.as_ref());
            let wire::body::Kind::Text(text) = text.context("a message without a text")?;
            let same = (told.sender, told.text.as_str(), told.seq)
                == (message.sender.as_str(), text.as_str(), message.seq);
            if !same {
                breaches.push(Breach::Changed(told.id.clone()));
            }
            if message.seq != place || !there.insert(&message.message_id) {
                breaches.push(Breach::Disordered(peer.to_owned()));
            }
        }
        let told = self.told.get(&both(user, peer)).into_iter().flatten();
        let lost = told.filter(|told| !there.contains(&told.id));
        breaches.extend(lost.map(|told| Breach::Lost(told.id.clone())));
        Ok(Read {
            messages: u64::try_from(listed.len())?,
            breaches,
        })
    }

    /// All messages, the oldest first.
    async fn listed(&self, user: &str, peer: &str) -> Result<Vec<wire::Envelope>> {
        let mut chat = self.chat.clone();
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = wire::ListMessagesRequest {
                peer: peer.to_owned(),
                page_size: 200,
                page_token,
                direction: wire::Direction::Forward.into(),
                after_seq: None,
                before_seq: None,
            };
            let page = chat.list_messages(self.users.request(user, request)?);
            let page = page.await?.into_inner();
            listed.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }
}
