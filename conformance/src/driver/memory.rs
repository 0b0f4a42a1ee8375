//! What a device remembers: what it holds, its token, its outbox. It is what a
//! client by the contract would keep; it must not talk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use crate::event::{Cursor, User};

/// Settled messages that may be sent again.
const KEPT_SETTLED: usize = 64;

/// A message that is not known to be settled. Every try repeats it as it is.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) message_id: String,
    pub(super) text: String,
    pub(super) after_seq: u64,
    pub(super) tries: u32,
    /// On the present stream, and not answered.
    pub(super) in_flight: bool,
    /// Not to be sent again before.
    pub(super) due: Option<Instant>,
    /// To be looked for before it is sent again: too much follows `after_seq`.
    pub(super) look: bool,
}

/// One conversation of a device.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The last sequence held without a gap.
    pub(super) held: u64,
    /// Those above `held` that are held too.
    above: BTreeSet<u64>,
    /// The highest sequence known to exist.
    pub(super) known: u64,
    /// Where the device wants the user's cursor, and what is confirmed of it.
    pub(super) wanted: Cursor,
    pub(super) confirmed: Cursor,
    /// The oldest first.
    pub(super) pending: Vec<Pending>,
    pub(super) settled: VecDeque<Pending>,
}

/// Everything that a device remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) number: u64,
    pub(super) token: String,
    pub(super) history_id: String,
    pub(super) talks: BTreeMap<User, Talk>,
}

impl Talk {
    /// Takes a place in. With `fresh` the conversation starts anew at it: catch-up
    /// started at the user's cursor, which another device has moved.
    pub(super) fn take(&mut self, seq: u64, fresh: bool) {
        self.known = self.known.max(seq);
        if fresh && seq > self.held + 1 {
            self.held = seq;
            self.above.retain(|above| *above > seq);
        } else if seq > self.held {
            self.above.insert(seq);
        }
        while self.above.remove(&(self.held + 1)) {
            self.held += 1;
        }
    }

    /// The message is found to be stored.
    pub(super) fn settle(&mut self, message_id: &str) {
        let is_it = |pending: &Pending| pending.message_id == message_id;
        if let Some(place) = self.pending.iter().position(is_it) {
            self.settled.push_back(self.pending.remove(place));
            if self.settled.len() > KEPT_SETTLED {
                self.settled.pop_front();
            }
        }
    }

    pub(super) fn pending(&mut self, message_id: &str) -> Option<&mut Pending> {
        let mut all = self.pending.iter_mut();
        all.find(|pending| pending.message_id == message_id)
    }
}

impl Memory {
    pub(super) fn talk(&mut self, peer: &str) -> &mut Talk {
        self.talks.entry(peer.to_owned()).or_default()
    }

    pub(super) fn in_flight(&self) -> usize {
        let all = self.talks.values().flat_map(|talk| &talk.pending);
        all.filter(|pending| pending.in_flight).count()
    }

    /// The stream is gone: nothing on it will be answered.
    pub(super) fn disconnected(&mut self) {
        for talk in self.talks.values_mut() {
            for pending in &mut talk.pending {
                pending.in_flight = false;
                pending.due = None;
            }
        }
    }

    /// The next message to be sent again, with its peer: the oldest first, and
    /// nothing past one that has to wait.
    pub(super) fn next_due(&self, now: Instant) -> Option<(User, Pending)> {
        self.talks.iter().find_map(|(peer, talk)| {
            let waiting = talk.pending.iter().find(|pending| !pending.in_flight)?;
            let is_due = waiting.due.is_none_or(|due| due <= now);
            is_due.then(|| (peer.clone(), waiting.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(id: &str, in_flight: bool, due: Option<Instant>) -> Pending {
        Pending {
            message_id: id.into(),
            text: String::new(),
            after_seq: 0,
            tries: 1,
            in_flight,
            due,
            look: false,
        }
    }

    #[test]
    fn a_position_never_moves_past_a_gap() {
        let mut talk = Talk::default();
        for seq in [1, 3, 4] {
            talk.take(seq, false);
        }
        assert_eq!((talk.held, talk.known), (1, 4));
        talk.take(2, false);
        assert_eq!(talk.held, 4);
    }

    #[test]
    fn a_conversation_that_starts_at_the_cursor_is_held_from_there() {
        let mut talk = Talk::default();
        talk.take(7, true);
        assert_eq!(talk.held, 7);
        talk.take(3, true);
        assert_eq!(talk.held, 7);
    }

    #[test]
    fn nothing_is_sent_again_past_a_message_that_has_to_wait() {
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        let mut memory = Memory::default();
        memory.talk("bob").pending = vec![
            pending("m1", true, None),
            pending("m2", false, Some(later)),
            pending("m3", false, None),
        ];
        assert!(memory.next_due(now).is_none());
        let next = memory
            .next_due(later)
            .map(|(_, pending)| pending.message_id);
        assert_eq!(next.as_deref(), Some("m2"));
    }

    #[test]
    fn after_a_disconnect_the_oldest_is_sent_again_first() {
        let mut memory = Memory::default();
        memory.talk("bob").pending = vec![pending("m1", true, None), pending("m2", true, None)];
        memory.disconnected();
        assert_eq!(memory.in_flight(), 0);
        let next = memory
            .next_due(Instant::now())
            .map(|(_, pending)| pending.message_id);
        assert_eq!(next.as_deref(), Some("m1"));
    }
}
