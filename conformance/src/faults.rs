//! How hard a fault has struck: one that met nothing under way shows nothing.
//!
//! A message is met by a fault if its last try is on its way then: said on a
//! connection that is open and moves, or in a call that has not ended, and without
//! an answer. An answer that the fault did not take, but that is read only later,
//! is an answer. Where nothing can be under way, because the server is gone
//! already, a fault meets the messages that wait for it to come back.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Door, Event, MessageId, Refused, Send, SessionNumber, Stored, User};
use crate::record::Record;

/// What one fault met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck {
    /// What was done.
    pub what: String,
    /// Messages that it met, without an answer and on their way: sender and id.
    pub unanswered: BTreeSet<(User, MessageId)>,
    /// Those of them that were answered as duplicates later: a try before had been
    /// stored without an answer, the one that the fault met or, seldom, one since.
    pub duplicates: usize,
}

/// What each [`Event::Kill`] of a record met, in order.
pub fn struck(record: &Record) -> Vec<Struck> {
    let mut replay = Replay::default();
    for entry in &record.entries {
        replay.step(&entry.event);
    }
    let met = replay.kills.into_iter().map(|kill| Struck {
        what: kill.what.to_owned(),
        unanswered: kill.met.into_keys().map(owned).collect(),
        duplicates: kill.duplicates,
    });
    met.collect()
}

fn owned((user, id): Key<'_>) -> (User, MessageId) {
    (user.to_owned(), id.to_owned())
}

/// A message by its sender and its id.
type Key<'a> = (&'a str, &'a str);

#[derive(Default)]
struct Replay<'a> {
    sessions: BTreeMap<SessionNumber, Link<'a>>,
    /// The present session of each device that uses the Rust client.
    clients: BTreeMap<(&'a str, &'a str), SessionNumber>,
    open: BTreeMap<Key<'a>, Tries>,
    answered: BTreeSet<Key<'a>>,
    kills: Vec<Kill<'a>>,
    down: bool,
}

/// A session's connection.
struct Link<'a> {
    device: (&'a str, &'a str),
    door: Door,
    open: bool,
    frozen: bool,
}

/// The tries of a message without an answer.
struct Tries {
    session: Option<SessionNumber>,
    numbers: BTreeSet<u64>,
    /// The last one will not be answered any more.
    over: bool,
}

struct Kill<'a> {
    what: &'a str,
    /// The server was there.
    up: bool,
    /// With the tries until then.
    met: BTreeMap<Key<'a>, BTreeSet<u64>>,
    duplicates: usize,
}

impl<'a> Replay<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other events change nothing of this"
    )]
    fn step(&mut self, event: &'a Event) {
        match event {
            Event::Connect(connect) => {
                let device = (connect.user.as_str(), connect.device.as_str());
                let link = Link {
                    device,
                    door: connect.door,
                    // Others are told apart by their sessions: each is one stream.
                    open: connect.door != Door::Client,
                    frozen: false,
                };
                if connect.door == Door::Client {
                    self.clients.insert(device, connect.session);
                }
                self.sessions.insert(connect.session, link);
            }
            Event::Welcome { session } => self.welcome(*session),
            Event::Goodbye { session, .. } | Event::Disconnect { session, .. } => {
                self.change(*session, |link| link.open = false);
            }
            Event::Frozen { session } => self.change(*session, |link| link.frozen = true),
            Event::Thawed { session } => self.change(*session, |link| link.frozen = false),
            Event::Send(send) => self.send(send),
            Event::Stored(stored) => self.stored(stored),
            Event::Rejected(refused) => {
                let key = (refused.user.as_str(), refused.message_id.as_str());
                self.open.remove(&key);
                self.answered.insert(key);
            }
            Event::Deferred(refused) | Event::Unanswered(refused) => self.not_settled(refused),
            Event::Kill { what } => self.kill(what),
            Event::Heal => self.down = false,
            _ => {}
        }
    }

    fn change(&mut self, session: SessionNumber, change: impl FnOnce(&mut Link<'a>)) {
        if let Some(link) = self.sessions.get_mut(&session) {
            change(link);
        }
    }

    /// A client says again what has no answer.
    fn welcome(&mut self, session: SessionNumber) {
        let Some(link) = self.sessions.get_mut(&session) else {
            return;
        };
        if link.door != Door::Client {
            return;
        }
        link.open = true;
        let device = link.device;
        for tries in self.open.values_mut() {
            let of = tries.session.and_then(|by| self.sessions.get(&by));
            if of.is_some_and(|of| of.device == device) {
                tries.over = false;
            }
        }
    }

    fn send(&mut self, send: &'a Send) {
        let key = (send.user.as_str(), send.message_id.as_str());
        // What was answered is answered as a duplicate, whatever is broken.
        if self.answered.contains(&key) {
            return;
        }
        let tries = self.open.entry(key).or_insert_with(|| Tries {
            session: None,
            numbers: BTreeSet::new(),
            over: false,
        });
        tries.session = send.session;
        tries.numbers.insert(send.try_number);
        tries.over = false;
    }

    fn stored(&mut self, stored: &'a Stored) {
        let key = (stored.user.as_str(), stored.message_id.as_str());
        let late = self.is_late(key, stored);
        if let Some(kill) = self.kills.last_mut().filter(|kill| kill.up && late) {
            kill.met.remove(&key);
        }
        // Only the first answer tells what became of the try before it.
        if self.open.remove(&key).is_some() && stored.duplicate && !late {
            self.found(key);
        }
        self.answered.insert(key);
    }

    /// Whether it was said before the last kill, and read after it.
    fn is_late(&self, key: Key<'a>, stored: &Stored) -> bool {
        let Some(met) = self.kills.last().and_then(|kill| kill.met.get(&key)) else {
            return false;
        };
        if let Some(number) = stored.try_number {
            return met.contains(&number);
        }
        // The client's connection is the one that the kill has met.
        let session = stored.session.and_then(|by| self.sessions.get(&by));
        session.is_some_and(|link| !link.open)
    }

    /// The message was stored by a server that was killed: by the last one that was
    /// there and met it.
    fn found(&mut self, key: Key<'a>) {
        for kill in self.kills.iter_mut().rev() {
            if kill.met.contains_key(&key) {
                kill.duplicates += 1;
                if kill.up {
                    return;
                }
            }
        }
    }

    /// No answer, or one that settles nothing.
    fn not_settled(&mut self, refused: &'a Refused) {
        let key = (refused.user.as_str(), refused.message_id.as_str());
        if let Some(tries) = self.open.get_mut(&key) {
            let last = tries.numbers.last().copied();
            tries.over |= refused.try_number.is_none() || refused.try_number == last;
        }
    }

    fn kill(&mut self, what: &'a str) {
        let met = self
            .open
            .iter()
            .filter(|(_, tries)| self.down || (!tries.over && self.is_on_its_way(tries)));
        let met = met.map(|(key, tries)| (*key, tries.numbers.clone()));
        let kill = Kill {
            what,
            up: !self.down,
            met: met.collect(),
            duplicates: 0,
        };
        self.kills.push(kill);
        self.down = true;
        // No connection outlives it.
        self.sessions
            .values_mut()
            .for_each(|link| link.open = false);
        self.open.values_mut().for_each(|tries| tries.over = true);
    }

    fn is_on_its_way(&self, tries: &Tries) -> bool {
        let Some(by) = tries.session else {
            return true;
        };
        let present = |by: SessionNumber| {
            let link = self.sessions.get(&by)?;
            match link.door {
                Door::Client => self.sessions.get(self.clients.get(&link.device)?),
                Door::Converse | Door::Subscribe => Some(link),
            }
        };
        present(by).is_some_and(|link| link.open && !link.frozen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Connect, Way};

    fn connect(session: u64, door: Door) -> Event {
        Event::Connect(Connect {
            session,
            user: "alice".into(),
            device: "d".into(),
            number: 0,
            door,
            way: Way::Native,
            token: String::new(),
            positions: BTreeMap::new(),
            held: BTreeMap::new(),
        })
    }

    fn send(try_number: u64, session: Option<u64>, id: &str) -> Event {
        Event::Send(Send {
            try_number,
            lane: 1,
            session,
            user: "alice".into(),
            peer: "bob".into(),
            message_id: id.into(),
            after_seq: None,
            body: 0,
        })
    }

    fn stored(try_number: Option<u64>, session: Option<u64>, id: &str, duplicate: bool) -> Event {
        Event::Stored(Stored {
            try_number,
            session,
            user: "alice".into(),
            peer: "bob".into(),
            message_id: id.into(),
            seq: 1,
            duplicate,
            accepted_at: 0,
        })
    }

    fn kill() -> Event {
        Event::Kill {
            what: "SIGKILL".into(),
        }
    }

    fn left(session: u64) -> Event {
        Event::Disconnect {
            session,
            cause: String::new(),
        }
    }

    fn met(events: impl IntoIterator<Item = Event>) -> Vec<(usize, usize)> {
        let struck = struck(&Record::of(events));
        let met = struck.iter().map(|s| (s.unanswered.len(), s.duplicates));
        met.collect()
    }

    #[test]
    fn a_kill_is_said_to_have_met_what_had_no_answer() {
        let events = [
            connect(1, Door::Converse),
            kill(),
            Event::Heal,
            connect(2, Door::Converse),
            send(1, Some(2), "m1"),
            stored(Some(1), Some(2), "m1", false),
            send(2, Some(2), "m2"),
            send(3, Some(2), "m3"),
            send(4, None, "m4"),
            kill(),
            Event::Heal,
            connect(3, Door::Converse),
            send(5, Some(3), "m2"),
            stored(Some(5), Some(3), "m2", true),
            send(6, Some(3), "m3"),
            stored(Some(6), Some(3), "m3", false),
        ];
        assert_eq!(met(events), [(0, 0), (3, 1)]);
    }

    #[test]
    fn what_cannot_be_on_its_way_was_not_met() {
        let events = [
            connect(1, Door::Converse),
            send(1, Some(1), "left"),
            left(1),
            connect(2, Door::Converse),
            send(2, Some(2), "frozen"),
            Event::Frozen { session: 2 },
            send(3, None, "over"),
            Event::Unanswered(Refused {
                try_number: Some(3),
                user: "alice".into(),
                message_id: "over".into(),
                reason: String::new(),
            }),
            connect(3, Door::Converse),
            send(4, Some(3), "answered"),
            stored(Some(4), Some(3), "answered", false),
            send(5, Some(3), "answered"),
            kill(),
        ];
        assert_eq!(met(events), [(0, 0)]);
    }

    #[test]
    fn an_answer_that_is_read_after_the_kill_was_not_taken_by_it() {
        let events = [
            connect(1, Door::Converse),
            send(1, Some(1), "m1"),
            kill(),
            Event::Heal,
            stored(Some(1), Some(1), "m1", false),
        ];
        assert_eq!(met(events), [(0, 0)]);
        let events = [
            connect(1, Door::Client),
            Event::Welcome { session: 1 },
            send(1, Some(1), "m1"),
            send(2, Some(1), "m2"),
            kill(),
            Event::Heal,
            stored(None, Some(1), "m1", false),
            left(1),
            Event::Welcome { session: 1 },
            stored(None, Some(1), "m2", true),
        ];
        assert_eq!(met(events), [(1, 1)]);
    }

    #[test]
    fn a_kill_while_the_server_is_gone_meets_what_waits_for_it() {
        let events = [
            connect(1, Door::Client),
            Event::Welcome { session: 1 },
            send(1, Some(1), "m1"),
            kill(),
            send(2, Some(1), "m2"),
            kill(),
            Event::Heal,
            Event::Welcome { session: 1 },
            stored(None, Some(1), "m1", true),
            stored(None, Some(1), "m2", false),
        ];
        assert_eq!(met(events), [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_client_says_again_what_it_has_not_been_answered_once_it_is_back() {
        let events = [
            connect(1, Door::Client),
            send(1, Some(1), "m1"),
            kill(),
            Event::Heal,
            connect(2, Door::Client),
            Event::Welcome { session: 2 },
            kill(),
            Event::Heal,
            left(2),
            kill(),
        ];
        assert_eq!(met(events), [(0, 0), (1, 0), (0, 0)]);
    }
}
