//! A record told event by event: what each session has been shown so far, and
//! where its catch-up may have started. It must not judge.
//!
//! Where catch-up starts is bounded from above: whatever lies above the bound and
//! exists must be shown. The bound is the position that the device names; else what
//! the session that was given the token had been shown by then; else the largest
//! delivered cursor that the user's devices have asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use crate::event::{Connect, Cursor, Door, Event, Pair, SessionNumber, pair};
use crate::record::Entry;

/// What is known by some moment.
pub(super) struct Replay<'a> {
    index: &'a Index<'a>,
    sessions: BTreeMap<SessionNumber, Seen<'a>>,
    tokens: BTreeMap<(&'a str, &'a str), Held<'a>>,
    /// The largest cursors asked for and confirmed, by user and peer.
    asked: BTreeMap<(&'a str, &'a str), Cursor>,
    confirmed: BTreeMap<(&'a str, &'a str), Cursor>,
    /// The highest place known to be taken, and the event that tells it.
    heads: BTreeMap<Pair, (u64, u64)>,
}

/// What a session has seen.
pub(super) struct Seen<'a> {
    pub(super) connect: &'a Connect,
    /// The heads known before its `Hello`, by peer, with the event that tells them.
    pub(super) heads: BTreeMap<&'a str, (u64, u64)>,
    /// The stored cursors known before its `Hello`, by peer and user.
    pub(super) confirmed: BTreeMap<(&'a str, &'a str), Cursor>,
    lines: BTreeMap<&'a str, Line>,
    /// The cursors told, by peer and user.
    told: BTreeMap<(&'a str, &'a str), Cursor>,
}

/// One conversation of a session.
#[derive(Default)]
pub(super) struct Line {
    /// The bound of the start, fixed when the first message was shown.
    start: Option<u64>,
    /// The highest message shown.
    pub(super) last: u64,
    pub(super) delivered: BTreeSet<u64>,
    /// Own messages that this very session was told to be stored.
    pub(super) own: BTreeSet<u64>,
}

/// What the holder of a token has.
#[derive(Default)]
struct Held<'a> {
    shown: BTreeMap<&'a str, u64>,
    told: BTreeMap<(&'a str, &'a str), Cursor>,
}

impl Line {
    /// Whether anything was shown by `MessageDelivered`.
    pub(super) fn has_begun(&self) -> bool {
        self.start.is_some()
    }

    /// The first place between both, exclusively, that is not an own message.
    pub(super) fn gap(&self, after: u64, before: u64) -> Option<u64> {
        (after.saturating_add(1)..before).find(|seq| !self.own.contains(seq))
    }

    fn has(&self, seq: u64) -> bool {
        self.delivered.contains(&seq) || self.own.contains(&seq)
    }
}

impl<'a> Replay<'a> {
    pub(super) fn new(index: &'a Index<'a>) -> Self {
        Self {
            index,
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            asked: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            heads: BTreeMap::new(),
        }
    }

    pub(super) fn session(&self, session: SessionNumber) -> Option<&Seen<'a>> {
        self.sessions.get(&session)
    }

    pub(super) fn line(&self, session: SessionNumber, peer: &str) -> Option<&Line> {
        self.sessions.get(&session)?.lines.get(peer)
    }

    /// Catch-up started at most here.
    pub(super) fn start(&self, session: SessionNumber, peer: &str) -> u64 {
        let Some(seen) = self.sessions.get(&session) else {
            return u64::MAX;
        };
        if let Some(start) = seen.lines.get(peer).and_then(|line| line.start) {
            return start;
        }
        let connect = seen.connect;
        let said = connect
            .positions
            .get(peer)
            .or_else(|| connect.held.get(peer));
        if let Some(position) = said {
            return *position;
        }
        if !connect.token.is_empty() {
            // A token that this record has not seen given bounds nothing.
            let held = self
                .tokens
                .get(&(connect.user.as_str(), connect.token.as_str()));
            return held.map_or(u64::MAX, |held| held.shown.get(peer).copied().unwrap_or(0));
        }
        let asked = self.asked.get(&(connect.user.as_str(), peer));
        asked.map_or(0, |cursor| cursor.delivered)
    }

    /// The first place up to `head` that the session lacks.
    pub(super) fn missing(&self, session: SessionNumber, peer: &str, head: u64) -> Option<u64> {
        let start = self.start(session, peer);
        let line = self.line(session, peer);
        (start.saturating_add(1)..=head).find(|seq| line.is_none_or(|line| !line.has(*seq)))
    }

    /// The cursor of `user` in the conversation with `peer` that the session, or
    /// the one that was given its token, was told.
    pub(super) fn told(&self, session: SessionNumber, peer: &str, user: &str) -> Cursor {
        let Some(seen) = self.sessions.get(&session) else {
            return Cursor::default();
        };
        let key = (peer, user);
        let own = seen.told.get(&key).copied().unwrap_or_default();
        let token = (seen.connect.user.as_str(), seen.connect.token.as_str());
        let held = self.tokens.get(&token).and_then(|held| held.told.get(&key));
        own.max(held.copied().unwrap_or_default())
    }

    /// Takes the next event.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other events change nothing of this"
    )]
    pub(super) fn step(&mut self, entry: &'a Entry) {
        match &entry.event {
            Event::Connect(connect) => self.connect(connect),
            Event::CaughtUp { session, token } => self.caught_up(*session, token),
            Event::Delivered { session, envelope } => {
                self.delivered(
                    *session,
                    envelope.peer_of(&self.user_of(*session)),
                    envelope.seq,
                );
            }
            Event::Stored(stored) => {
                if let Some(seen) = stored.session.and_then(|s| self.sessions.get_mut(&s)) {
                    let line = seen.lines.entry(&stored.peer).or_default();
                    // The Rust client shows own messages too, behind those that it
                    // has shown. Of a conversation of which it has shown nothing it
                    // cannot know whether the server has shown what is before them.
                    if seen.connect.door != Door::Client || !line.has_begun() {
                        line.own.insert(stored.seq);
                    }
                }
            }
            Event::CursorAsked(asked) => {
                let cursor = self.asked.entry((&asked.user, &asked.peer)).or_default();
                *cursor = cursor.max(asked.cursor);
                cursor.delivered = cursor.delivered.max(cursor.read);
                let seen = asked.session.and_then(|s| self.sessions.get_mut(&s));
                if let Some(seen) = seen.filter(|seen| seen.connect.door == Door::Client) {
                    tell(seen, &asked.peer, &asked.user, asked.cursor);
                }
            }
            Event::CursorStored(stored) => {
                let cursor = self
                    .confirmed
                    .entry((&stored.user, &stored.peer))
                    .or_default();
                *cursor = cursor.max(stored.cursor);
                if let Some(seen) = stored.session.and_then(|s| self.sessions.get_mut(&s)) {
                    tell(seen, &stored.peer, &stored.user, stored.cursor);
                }
            }
            Event::Receipt {
                session,
                peer,
                user,
                cursor,
            } => {
                if let Some(seen) = self.sessions.get_mut(session) {
                    tell(seen, peer, user, *cursor);
                }
            }
            _ => {}
        }
        for place in Index::places_in(&entry.event) {
            let head = self.heads.entry(place.pair).or_default();
            if place.seq > head.0 {
                *head = (place.seq, entry.at);
            }
        }
    }

    fn user_of(&self, session: SessionNumber) -> String {
        let seen = self.sessions.get(&session);
        seen.map(|seen| seen.connect.user.clone())
            .unwrap_or_default()
    }

    fn connect(&mut self, connect: &'a Connect) {
        let user = connect.user.as_str();
        let peers = self.index.peers.get(user).into_iter().flatten().copied();
        let heads = peers.clone().filter_map(|peer| {
            let head = self.heads.get(&pair(user, peer))?;
            Some((peer, *head))
        });
        let both = peers.flat_map(|peer| [(peer, user, peer), (peer, peer, user)]);
        let confirmed = both.filter_map(|(peer, whose, with)| {
            let cursor = self.confirmed.get(&(whose, with))?;
            Some(((peer, whose), *cursor))
        });
        let seen = Seen {
            connect,
            heads: heads.collect(),
            confirmed: confirmed.collect(),
            lines: BTreeMap::new(),
            told: self.told_before(connect),
        };
        self.sessions.insert(connect.session, seen);
    }

    /// A client that was started again goes on from what it had told.
    fn told_before(&self, connect: &Connect) -> BTreeMap<(&'a str, &'a str), Cursor> {
        let is_it = |seen: &&Seen<'_>| {
            let before = seen.connect;
            (before.door, &before.user, &before.device)
                == (Door::Client, &connect.user, &connect.device)
        };
        let mut before = self
            .sessions
            .values()
            .rev()
            .filter(|_| connect.door == Door::Client);
        let last = before.find(is_it);
        last.map(|seen| seen.told.clone()).unwrap_or_default()
    }

    fn delivered(&mut self, session: SessionNumber, peer: &'a str, seq: u64) {
        let start = self.start(session, peer);
        let Some(seen) = self.sessions.get_mut(&session) else {
            return;
        };
        let line = seen.lines.entry(peer).or_default();
        line.start.get_or_insert(start);
        line.last = line.last.max(seq);
        line.delivered.insert(seq);
    }

    fn caught_up(&mut self, session: SessionNumber, token: &'a str) {
        let Some(seen) = self.sessions.get(&session).filter(|_| !token.is_empty()) else {
            return;
        };
        let user = seen.connect.user.as_str();
        let mut held = Held::default();
        for peer in self.index.peers.get(user).into_iter().flatten().copied() {
            // Nothing is missing up to here.
            let shown = self
                .missing(session, peer, u64::MAX - 1)
                .unwrap_or(u64::MAX);
            held.shown.insert(peer, shown.saturating_sub(1));
            for whose in [user, peer] {
                held.told
                    .insert((peer, whose), self.told(session, peer, whose));
            }
        }
        self.tokens.insert((user, token), held);
    }
}

fn tell<'a>(seen: &mut Seen<'a>, peer: &'a str, user: &'a str, cursor: Cursor) {
    let told = seen.told.entry((peer, user)).or_default();
    *told = told.max(cursor);
}
