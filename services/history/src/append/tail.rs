//! What an appender remembers of the end of a conversation.
//!
//! Everything in it was seen stored, and a filled slot never changes: a tail can
//! be behind the store, but not wrong.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use duologue_proto::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};

use crate::store::StoredMessage;

/// Slots remembered of one conversation at most; more than are ever searched.
pub const MAX_SLOTS: usize = 512;
/// Conversations that one appender remembers at most.
pub const MAX_TAILS: usize = 4_096;
/// Slots that one appender remembers at most, of all conversations.
pub const MAX_CACHED_SLOTS: usize = 65_536;

/// Stands for a message by its sender and id. Two messages may have the same one,
/// however unlikely that is, so what it finds has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

/// Makes keys. They are secret, so that nobody can choose ids with equal ones.
#[derive(Debug, Default)]
pub(crate) struct Keys(RandomState);

impl Keys {
    pub(super) fn of(&self, sender: &UserId, id: &MessageId) -> Key {
        Key(self.0.hash_one((sender, id)))
    }

    fn of_message(&self, message: &StoredMessage) -> Key {
        self.of(&message.envelope.sender, &message.envelope.message_id)
    }
}

/// The end of a conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    head: Seq,
    sent: [u64; 2],
    accepted_at: UnixMillis,
    /// Who sent what: an unbroken run of slots that ends at the head.
    slots: VecDeque<Key>,
}

impl Tail {
    /// The tail of a conversation of which only the head is known.
    pub(super) fn at(head: Option<&StoredMessage>, keys: &Keys) -> Self {
        let mut tail = Self::default();
        if let Some(head) = head {
            tail.take(head, keys.of_message(head));
        }
        tail
    }

    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// How many messages that count as unread each side has sent.
    pub(super) fn sent(&self) -> [u64; 2] {
        self.sent
    }

    pub(super) fn accepted_at(&self) -> UnixMillis {
        self.accepted_at
    }

    /// Every slot above this one is known.
    pub(super) fn seen_after(&self) -> Seq {
        // No more slots are remembered than there are.
        Seq(self.head.0.saturating_sub(self.slots.len() as u64))
    }

    /// The slots above `after` that may hold this message, the newest first. Only a
    /// tail that has seen all of them proves that there is none.
    pub(super) fn candidates(&self, after: Seq, key: Key) -> impl Iterator<Item = Seq> {
        let newest_first = self.slots.iter().rev();
        let slots = (after.0 + 1..=self.head.0).rev().zip(newest_first);
        slots
            .filter(move |(_, known)| **known == key)
            .map(|(seq, _)| Seq(seq))
    }

    /// Adds the message of the slot after the head; another one is ignored.
    pub(super) fn push(&mut self, message: &StoredMessage, keys: &Keys) {
        self.push_known(message, keys.of_message(message));
    }

    /// As [`Tail::push`], with the key of the message.
    pub(super) fn push_known(&mut self, message: &StoredMessage, key: Key) {
        if message.envelope.seq == self.head.next() {
            self.take(message, key);
            if self.slots.len() > MAX_SLOTS {
                self.slots.pop_front();
            }
        }
    }

    /// Adds the message of the slot below the lowest one known; another one is
    /// ignored, so that only an unbroken run counts as seen.
    pub(super) fn extend_down(&mut self, message: &StoredMessage, keys: &Keys) {
        if message.envelope.seq == self.seen_after() {
            self.slots.push_front(keys.of_message(message));
        }
    }

    fn take(&mut self, head: &StoredMessage, key: Key) {
        self.head = head.envelope.seq;
        self.sent = head.sent;
        self.accepted_at = head.envelope.accepted_at;
        self.slots.push_back(key);
    }
}

/// The tails of the conversations that were used last.
#[derive(Default)]
pub(super) struct Tails {
    by_conversation: BTreeMap<ConversationId, (u64, Tail)>,
    by_age: BTreeMap<u64, ConversationId>,
    uses: u64,
    slots: usize,
}

impl Tails {
    /// Takes a tail out, for who works on the conversation.
    pub(super) fn take(&mut self, conversation: &ConversationId) -> Option<Tail> {
        let (used, tail) = self.by_conversation.remove(conversation)?;
        self.by_age.remove(&used);
        self.slots -= tail.slots.len();
        Some(tail)
    }

    /// Puts a tail back, and forgets those that were not used for longest.
    pub(super) fn put(&mut self, conversation: ConversationId, tail: Tail) {
        self.take(&conversation);
        self.uses += 1;
        self.slots += tail.slots.len();
        self.by_age.insert(self.uses, conversation.clone());
        self.by_conversation.insert(conversation, (self.uses, tail));
        while self.by_conversation.len() > MAX_TAILS || self.slots > MAX_CACHED_SLOTS {
            let Some((_, oldest)) = self.by_age.first_key_value() else {
                return;
            };
            self.take(&oldest.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::message::Envelope;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn id(seq: u64) -> MessageId {
        MessageId::parse(&format!("m-{seq}")).unwrap()
    }

    fn message(seq: u64) -> StoredMessage {
        StoredMessage {
            envelope: Envelope::seal(
                Seq(seq),
                id(seq),
                user("alice"),
                user("bob"),
                UnixMillis(seq),
                &[],
            ),
            sent: [seq, 0],
        }
    }

    fn find(tail: &Tail, after: u64, key: Key) -> Vec<u64> {
        tail.candidates(Seq(after), key).map(|seq| seq.0).collect()
    }

    #[test]
    fn a_tail_knows_an_unbroken_run_that_ends_at_its_head() {
        let keys = Keys::default();
        let mut tail = Tail::at(Some(&message(5)), &keys);
        assert_eq!((tail.head(), tail.seen_after()), (Seq(5), Seq(4)));
        tail.extend_down(&message(3), &keys);
        assert_eq!(tail.seen_after(), Seq(4));
        tail.extend_down(&message(4), &keys);
        tail.extend_down(&message(3), &keys);
        tail.push(&message(7), &keys);
        tail.push(&message(6), &keys);
        assert_eq!((tail.head(), tail.seen_after()), (Seq(6), Seq(2)));
        let of_alice = |seq| keys.of(&user("alice"), &id(seq));
        assert_eq!(find(&tail, 2, of_alice(3)), [3]);
        assert!(find(&tail, 3, of_alice(3)).is_empty());
        assert_eq!(find(&tail, 0, of_alice(6)), [6]);
        assert!(find(&tail, 0, keys.of(&user("bob"), &id(6))).is_empty());
    }

    #[test]
    fn messages_with_equal_keys_are_all_found_the_newest_first() {
        let mut tail = Tail::default();
        for seq in 1..=5 {
            tail.push_known(&message(seq), Key(seq % 2));
        }
        assert_eq!(find(&tail, 1, Key(1)), [5, 3]);
    }

    #[test]
    fn a_tail_forgets_its_oldest_slots_and_says_so() {
        let keys = Keys::default();
        let mut tail = Tail::at(None, &keys);
        assert_eq!((tail.head(), tail.seen_after()), (Seq(0), Seq(0)));
        for seq in 1..=600 {
            tail.push(&message(seq), &keys);
        }
        assert_eq!(tail.seen_after(), Seq(600 - MAX_SLOTS as u64));
        let of_alice = |seq| keys.of(&user("alice"), &id(seq));
        assert!(find(&tail, 0, of_alice(1)).is_empty());
        assert_eq!(find(&tail, 0, of_alice(600)), [600]);
    }

    #[test]
    fn the_tails_used_last_are_kept_within_their_bounds() {
        let keys = Keys::default();
        let mut tails = Tails::default();
        let conversation = |n: usize| ConversationId::of(&user("bot"), &user(&format!("u{n}")));
        for n in 0..=MAX_TAILS {
            tails.put(conversation(n), Tail::at(Some(&message(1)), &keys));
            let first = tails.take(&conversation(0)).unwrap();
            tails.put(conversation(0), first);
        }
        assert_eq!(
            (tails.by_conversation.len(), tails.slots),
            (MAX_TAILS, MAX_TAILS)
        );
        assert_eq!(tails.by_age.len(), MAX_TAILS);
        assert!(tails.take(&conversation(0)).is_some());
        assert!(tails.take(&conversation(1)).is_none());

        let mut long = Tail::at(None, &keys);
        for seq in 1..=MAX_SLOTS as u64 {
            long.push(&message(seq), &keys);
        }
        for n in 0..1_000 {
            tails.put(conversation(n), long.clone());
            assert!(tails.slots <= MAX_CACHED_SLOTS);
        }
    }
}
