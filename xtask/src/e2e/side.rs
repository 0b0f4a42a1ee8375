//! One user of the kill run: a client, and a record of all it said and was told.
//!
//! What can be judged from one event is judged when it comes; the rest when the
//! talk is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use duologue_client::{
    Client, Content, Environment as _, Event, Events, Message, MessageId, MessagesQuery, Seq,
    Stored, SystemEnvironment, UnixMillis, UserId,
};

/// Sends without an answer, after which this user waits. Twice as many of both users
/// are fewer than the messages in which a server looks for an earlier copy.
const WINDOW: usize = 80;
/// Sends are made in bursts of as many. Up to 30, `try_join_all` polls them in their
/// order each time, so that it is the order of the messages.
const BURST: usize = 30;
/// Messages asked for at once when the history is compared.
const PAGE: u16 = 200;

/// A user who sends and keeps record.
pub(super) struct Side {
    user: UserId,
    peer: UserId,
    client: Client,
    events: Events,
    connected: bool,
    answered_since_connect: usize,
    /// What was sent, in order.
    sent: Vec<(MessageId, String)>,
    /// Those of them without any answer, or deferred.
    open: BTreeSet<MessageId>,
    /// Those of `open` that were answered, but with "not settled".
    deferred: BTreeSet<MessageId>,
    /// What is acknowledged.
    stored: BTreeMap<MessageId, Seq>,
    /// What was shown, from sequence 1 on.
    shown: Vec<Entry>,
    /// What each kill left without an answer.
    lost: Vec<Lost>,
}

/// What a kill left without an answer.
struct Lost {
    /// When the server had ended, by the clock that it had, too.
    ended: UnixMillis,
    messages: BTreeSet<MessageId>,
}

/// What one kill met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    /// Sends without an answer.
    pub(super) unanswered: usize,
    /// Those that had been stored nevertheless.
    pub(super) stored: usize,
}

/// A message as both users and the history must have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    message_id: MessageId,
    sender: UserId,
    text: String,
    accepted_at: UnixMillis,
}

impl Side {
    pub(super) async fn start(
        server: SocketAddr,
        token: String,
        user: UserId,
        peer: UserId,
    ) -> Result<Self> {
        let builder = Client::builder(format!("http://{server}")).token(token);
        let (client, events) = builder.start().await.context("cannot start a client")?;
        Ok(Self {
            user,
            peer,
            client,
            events,
            connected: false,
            answered_since_connect: 0,
            sent: Vec::new(),
            open: BTreeSet::new(),
            deferred: BTreeSet::new(),
            stored: BTreeMap::new(),
            shown: Vec::new(),
            lost: Vec::new(),
        })
    }

    /// Whether there is room for a burst.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() + BURST <= WINDOW
    }

    /// Sends a burst: all of it is on its way before the first answer.
    pub(super) async fn send_burst(&mut self) -> Result<()> {
        let numbers = self.sent.len() + 1..=self.sent.len() + BURST;
        let texts: Vec<_> = numbers.map(|n| format!("{} says {n}", self.user)).collect();
        let sends = texts.iter().map(|text| self.client.send(&self.peer, text));
        let ids = futures_util::future::try_join_all(sends).await?;
        self.open.extend(ids.iter().cloned());
        self.sent.extend(ids.into_iter().zip(texts));
        Ok(())
    }

    /// The next event. May be cancelled without losing one.
    pub(super) async fn next_event(&mut self) -> Result<Event> {
        self.events.next().await.context("a client has ended")
    }

    /// Records an event; fails on one that breaks a promise.
    pub(super) fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Connected(_) => {
                self.connected = true;
                self.answered_since_connect = 0;
            }
            Event::Disconnected { .. } => {
                self.connected = false;
                // Whatever is not settled is sent again to the next server.
                self.deferred.clear();
            }
            Event::Message(message) => self.show(message)?,
            Event::Stored(stored) => self.acknowledge(stored)?,
            Event::Deferred { message_id, .. } => {
                self.deferred.insert(message_id);
            }
            Event::Rejected(_) | Event::Superseded | Event::HistoryChanged | Event::Stopped(_) => {
                bail!("{} is told {event:?}", self.user)
            }
            // Not what this run is about.
            Event::CaughtUp
            | Event::Delivered { .. }
            | Event::Read { .. }
            | Event::OwnCursor { .. }
            | Event::PresenceChanged(_)
            | Event::PresenceReset => {}
            other => bail!("{} is told something unknown: {other:?}", self.user),
        }
        Ok(())
    }

    fn show(&mut self, message: Message) -> Result<()> {
        let expected = Seq(u64::try_from(self.shown.len())?).next();
        ensure!(
            message.seq == expected,
            "{} is shown message {} in place of {expected}",
            self.user,
            message.seq
        );
        self.shown.push(entry(message)?);
        Ok(())
    }

    fn acknowledge(&mut self, stored: Stored) -> Result<()> {
        let (id, seq) = (stored.message_id, stored.seq);
        if self.open.remove(&id) {
            self.answered_since_connect += 1;
            self.deferred.remove(&id);
        }
        let before = *self.stored.entry(id).or_insert(seq);
        ensure!(
            before == seq,
            "{}: one message is acknowledged as {before} and as {seq}",
            self.user
        );
        Ok(())
    }

    /// Remembers what is without an answer after a kill.
    pub(super) fn mark_lost(&mut self) {
        self.lost.push(Lost {
            ended: SystemEnvironment.now(),
            messages: self.open.difference(&self.deferred).cloned().collect(),
        });
    }

    /// What each kill met.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        let tally = |lost: &Lost| Tally {
            unanswered: lost.messages.len(),
            stored: self.stored_before(lost),
        };
        self.lost.iter().map(tally).collect()
    }

    /// How much of what a kill left was stored by the server that was killed.
    fn stored_before(&self, lost: &Lost) -> usize {
        let shown = self.shown.iter();
        shown
            .filter(|entry| entry.accepted_at <= lost.ended)
            .filter(|entry| lost.messages.contains(&entry.message_id))
            .count()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Answers since the last connect.
    pub(super) fn answered_since(&self) -> usize {
        self.answered_since_connect
    }

    /// Sends without any answer.
    pub(super) fn unanswered(&self) -> usize {
        self.open.difference(&self.deferred).count()
    }

    /// Whether everything sent is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn sent(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn shown(&self) -> usize {
        self.shown.len()
    }

    /// The highest sequence that the server has.
    pub(super) async fn head(&self) -> Result<usize> {
        let newest = MessagesQuery::newest(&self.peer, 1);
        let page = self.client.list_messages(newest).await?;
        Ok(usize::try_from(page.head.0)?)
    }

    /// The whole conversation, as the server has it.
    async fn history(&self) -> Result<Vec<Entry>> {
        let mut query = MessagesQuery {
            forward: true,
            ..MessagesQuery::newest(&self.peer, PAGE)
        };
        let mut history = Vec::new();
        loop {
            let page = self.client.list_messages(query.clone()).await?;
            for message in page.messages {
                let expected = Seq(u64::try_from(history.len())?).next();
                ensure!(
                    message.seq == expected,
                    "the history has {} in place of {expected}",
                    message.seq
                );
                history.push(entry(message)?);
            }
            if page.next_page_token.is_empty() {
                return Ok(history);
            }
            query.page_token = page.next_page_token;
        }
    }

    /// What was shown is what the history has.
    fn ensure_shown(&self, history: &[Entry]) -> Result<()> {
        let pairs = history.iter().zip(&self.shown);
        let same = pairs.take_while(|(kept, shown)| kept == shown).count();
        ensure!(
            same == history.len() && same == self.shown.len(),
            "the history has {} messages, {} was shown {}; they differ at {}: {:?}, shown {:?}",
            history.len(),
            self.user,
            self.shown.len(),
            same + 1,
            history.get(same),
            self.shown.get(same)
        );
        Ok(())
    }

    /// Everything sent is in the history once, in the order in which it was sent,
    /// and where it was acknowledged to be.
    fn ensure_kept(&self, history: &[Entry]) -> Result<()> {
        let own = history.iter().filter(|entry| entry.sender == self.user);
        let own = own.map(|entry| (&entry.message_id, &entry.text));
        let sent = self.sent.iter().map(|(id, text)| (id, text));
        ensure!(
            own.eq(sent),
            "what {} sent is not in the history once and in order",
            self.user
        );
        for (id, seq) in &self.stored {
            let place = usize::try_from(seq.0)?.checked_sub(1);
            let entry = place.and_then(|place| history.get(place));
            ensure!(
                entry.is_some_and(|entry| entry.message_id == *id),
                "a message of {} was acknowledged as {seq}; it is not there",
                self.user
            );
        }
        Ok(())
    }
}

/// Both users saw what the history has, and it has all that they sent.
pub(super) async fn ensure_same(sides: &[Side; 2]) -> Result<()> {
    for side in sides {
        let history = side.history().await?;
        side.ensure_shown(&history)?;
        for side in sides {
            side.ensure_kept(&history)?;
        }
        let sent: usize = sides.iter().map(Side::sent).sum();
        ensure!(
            history.len() == sent,
            "{} messages for {sent} sends",
            history.len()
        );
    }
    Ok(())
}

fn entry(message: Message) -> Result<Entry> {
    let Content::Text(text) = message.content else {
        bail!("message {} is not a text", message.seq);
    };
    Ok(Entry {
        message_id: message.message_id,
        sender: message.sender,
        text,
        accepted_at: message.accepted_at,
    })
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connected {}, {} sent, {} without an answer, {} deferred, {} shown",
            self.connected,
            self.sent.len(),
            self.unanswered(),
            self.deferred.len(),
            self.shown.len()
        )
    }
}
