//! A record by session, message and conversation. It must not judge.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Connect, Envelope, Event, Pair, Send, SessionNumber, Stored, pair};
use crate::record::{Entry, Record};

/// A message by its sender and id.
pub(super) type Key<'a> = (&'a str, &'a str);

/// A record, ready to be asked.
pub(super) struct Index<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) connects: BTreeMap<SessionNumber, (u64, &'a Connect)>,
    pub(super) messages: BTreeMap<Key<'a>, Message<'a>>,
    /// The last reading of each conversation by reader and peer.
    pub(super) histories: BTreeMap<(&'a str, &'a str), (u64, &'a [Envelope])>,
    /// The place of each message in the final histories.
    pub(super) places: BTreeMap<Key<'a>, u64>,
    /// Every user's peers in this record.
    pub(super) peers: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// What became of one message.
#[derive(Default)]
pub(super) struct Message<'a> {
    pub(super) sends: Vec<(u64, &'a Send)>,
    pub(super) stored: Vec<(u64, &'a Stored)>,
    /// When it was refused for good.
    pub(super) rejected: Vec<u64>,
}

impl<'a> Index<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let mut index = Self {
            entries: &record.entries,
            connects: BTreeMap::new(),
            messages: BTreeMap::new(),
            histories: BTreeMap::new(),
            places: BTreeMap::new(),
            peers: BTreeMap::new(),
        };
        for entry in &record.entries {
            index.take(entry);
        }
        for (_, messages) in index.histories.values() {
            for envelope in *messages {
                let key = (envelope.sender.as_str(), envelope.message_id.as_str());
                index.places.entry(key).or_insert(envelope.seq);
            }
        }
        index
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "an index picks what it holds"
    )]
    fn take(&mut self, entry: &'a Entry) {
        match &entry.event {
            Event::Connect(connect) => {
                self.connects.insert(connect.session, (entry.at, connect));
            }
            Event::Send(send) => {
                self.meet(&send.user, &send.peer);
                let message = self.message(&send.user, &send.message_id);
                message.sends.push((entry.at, send));
            }
            Event::Stored(stored) => {
                let message = self.message(&stored.user, &stored.message_id);
                message.stored.push((entry.at, stored));
            }
            Event::Rejected(refused) => {
                let message = self.message(&refused.user, &refused.message_id);
                message.rejected.push(entry.at);
            }
            Event::History {
                reader,
                peer,
                messages,
            } => {
                self.meet(reader, peer);
                self.histories.insert((reader, peer), (entry.at, messages));
            }
            _ => {}
        }
    }

    fn message(&mut self, user: &'a str, id: &'a str) -> &mut Message<'a> {
        self.messages.entry((user, id)).or_default()
    }

    fn meet(&mut self, one: &'a str, other: &'a str) {
        self.peers.entry(one).or_default().insert(other);
        self.peers.entry(other).or_default().insert(one);
    }

    /// The final history as `reader` has it.
    pub(super) fn history(&self, reader: &str, peer: &str) -> Option<(u64, &'a [Envelope])> {
        self.histories.get(&(reader, peer)).copied()
    }

    /// What an event says to be stored: every observation of a message's place.
    pub(super) fn places_in(event: &'a Event) -> Vec<Place<'a>> {
        match event {
            Event::Stored(stored) => vec![Place {
                pair: pair(&stored.user, &stored.peer),
                seq: stored.seq,
                sender: &stored.user,
                message_id: &stored.message_id,
                accepted_at: stored.accepted_at,
                body: None,
            }],
            Event::Delivered { envelope, .. } => vec![Place::of(envelope)],
            Event::History { messages, .. } => messages.iter().map(Place::of).collect(),
            Event::Begin { .. }
            | Event::Connect(_)
            | Event::Welcome { .. }
            | Event::CaughtUp { .. }
            | Event::Goodbye { .. }
            | Event::Stopped { .. }
            | Event::Disconnect { .. }
            | Event::Send(_)
            | Event::Abandon { .. }
            | Event::Rejected(_)
            | Event::Deferred(_)
            | Event::Unanswered(_)
            | Event::CursorAsked(_)
            | Event::CursorStored(_)
            | Event::CursorRefused(_)
            | Event::Receipt { .. }
            | Event::Frozen { .. }
            | Event::Thawed { .. }
            | Event::Kill { .. }
            | Event::Heal
            | Event::Restless { .. }
            | Event::Cursors { .. }
            | Event::End { .. } => Vec::new(),
        }
    }
}

/// A message seen in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) pair: Pair,
    pub(super) seq: u64,
    pub(super) sender: &'a str,
    pub(super) message_id: &'a str,
    pub(super) accepted_at: u64,
    /// Answers carry none.
    pub(super) body: Option<u64>,
}

impl<'a> Place<'a> {
    fn of(envelope: &'a Envelope) -> Self {
        Self {
            pair: envelope.pair(),
            seq: envelope.seq,
            sender: &envelope.sender,
            message_id: &envelope.message_id,
            accepted_at: envelope.accepted_at,
            body: Some(envelope.body),
        }
    }

    /// Whether both may be the same stored message.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let body = match (self.body, other.body) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        body && (self.sender, self.message_id, self.accepted_at)
            == (other.sender, other.message_id, other.accepted_at)
    }
}
