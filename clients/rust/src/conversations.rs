//! What the device knows of each conversation: how far it has shown it, and both
//! users' cursors.
//!
//! A position moves by one message at a time, or is set by the first message of a
//! conversation of which the device holds nothing: the server started where
//! catch-up starts.

use std::collections::BTreeMap;

use duologue_proto::ids::{Seq, UserId};
use duologue_proto::message::Cursor;

use crate::limits::MAX_CONVERSATIONS;

/// One conversation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// The last sequence put into an event.
    pub(crate) position: Option<Seq>,
    /// The last sequence that the application has taken.
    pub(crate) kept: Option<Seq>,
    /// The highest sequence known to exist.
    pub(crate) known: Seq,
    /// Where the user's cursor shall be.
    pub(crate) wanted: Cursor,
    /// Where the server has said that it is.
    pub(crate) confirmed: Cursor,
    /// What the open session was asked for.
    pub(crate) asked: Cursor,
    /// What the application knows of `wanted`: it has asked for it, or has taken the
    /// event that tells it.
    pub(crate) known_own: Cursor,
    /// What was put into events of the peer's cursor; never lowered.
    pub(crate) peer_cursor: Cursor,
    /// What the application has taken of it.
    pub(crate) known_peer: Cursor,
    /// Rises with activity.
    active: u64,
}

/// What a delivered sequence is to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next one; the position has moved to it.
    Next,
    /// It was shown before.
    Seen,
    /// Something before it is missing.
    Gap,
}

/// All conversations, at most [`MAX_CONVERSATIONS`].
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    map: BTreeMap<UserId, Conversation>,
    activity: u64,
}

impl Conversation {
    pub(crate) fn is_unconfirmed(&self) -> bool {
        !self.confirmed.covers(self.wanted)
    }

    /// Whether the open session is to be asked for a cursor move.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        self.is_unconfirmed() && !self.asked.covers(self.wanted)
    }

    fn arrive(&mut self, seq: Seq) -> Arrival {
        match self.position {
            Some(position) if seq <= position => Arrival::Seen,
            Some(position) if seq > position.next() => Arrival::Gap,
            Some(_) | None => {
                self.position = Some(seq);
                Arrival::Next
            }
        }
    }
}

impl Conversations {
    pub(crate) fn get(&self, peer: &UserId) -> Option<&Conversation> {
        self.map.get(peer)
    }

    /// The conversation, marked as the most recently active.
    pub(crate) fn touch(&mut self, peer: &UserId) -> &mut Conversation {
        if self.map.len() >= MAX_CONVERSATIONS && !self.map.contains_key(peer) {
            self.forget_least_active();
        }
        self.activity += 1;
        let conversation = self.map.entry(peer.clone()).or_default();
        conversation.active = self.activity;
        conversation
    }

    pub(crate) fn get_mut(&mut self, peer: &UserId) -> Option<&mut Conversation> {
        self.map.get_mut(peer)
    }

    /// The highest sequence known to exist.
    pub(crate) fn known(&self, peer: &UserId) -> Seq {
        self.get(peer).map_or(Seq::ZERO, |it| it.known)
    }

    /// A message was delivered.
    pub(crate) fn arrive(&mut self, peer: &UserId, seq: Seq) -> Arrival {
        let conversation = self.touch(peer);
        conversation.known = conversation.known.max(seq);
        conversation.arrive(seq)
    }

    /// An own message was stored. Returns whether this moved the position: only
    /// over no gap, and never from nothing, unless it is the very first.
    pub(crate) fn stored(&mut self, peer: &UserId, seq: Seq) -> bool {
        let conversation = self.touch(peer);
        conversation.known = conversation.known.max(seq);
        let next = conversation.position.unwrap_or_default().next() == seq;
        if next {
            conversation.position = Some(seq);
        }
        next
    }

    /// All conversations, the most recently active first.
    pub(crate) fn by_activity(&self) -> Vec<(&UserId, &Conversation)> {
        let mut all: Vec<_> = self.map.iter().collect();
        all.sort_by_key(|(_, conversation)| std::cmp::Reverse(conversation.active));
        all
    }

    pub(crate) fn is_read_known(&self) -> bool {
        let is_known = |it: &Conversation| it.confirmed.read >= it.wanted.read;
        self.map.values().all(is_known)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conversation> {
        self.map.values_mut()
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
    }

    fn forget_least_active(&mut self) {
        let least = self
            .map
            .iter()
            .min_by_key(|(_, it)| (it.is_unconfirmed(), it.active))
            .map(|(peer, _)| peer.clone());
        if let Some(least) = least {
            self.map.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn a_position_never_moves_past_a_gap() {
        let mut all = Conversations::default();
        let bob = user("bob");
        let arrivals = [5, 6, 8, 6, 7].map(|seq| all.arrive(&bob, Seq(seq)));
        let (next, seen, gap) = (Arrival::Next, Arrival::Seen, Arrival::Gap);
        assert_eq!(arrivals, [next, next, gap, seen, next]);
        assert!(!all.stored(&bob, Seq(9)));
        assert!(all.stored(&bob, Seq(8)));
        assert_eq!(all.get(&bob).unwrap().position, Some(Seq(8)));
        assert_eq!(all.known(&bob), Seq(9));
    }

    #[test]
    fn a_stored_message_sets_no_position_unless_it_is_the_first() {
        let mut all = Conversations::default();
        assert!(!all.stored(&user("bob"), Seq(2)));
        assert_eq!(all.get(&user("bob")).unwrap().position, None);
        assert!(all.stored(&user("carol"), Seq(1)));
    }

    #[test]
    fn the_least_active_conversations_are_forgotten_but_no_unconfirmed_cursor() {
        let mut all = Conversations::default();
        for number in 0..MAX_CONVERSATIONS {
            all.touch(&user(&format!("user-{number}")));
        }
        all.get_mut(&user("user-0")).unwrap().wanted.read = Seq(1);
        all.touch(&user("one-more"));
        assert!(all.get(&user("user-0")).is_some());
        assert!(all.get(&user("user-1")).is_none());
        assert_eq!(all.by_activity().len(), MAX_CONVERSATIONS);
    }
}
