//! What an appender remembers of the end of a conversation.
//!
//! Everything in it was seen stored, and a filled slot never changes: a tail can
//! be behind the store, but not wrong.

use std::collections::{BTreeMap, VecDeque};

use duologue_proto::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};

use crate::store::StoredMessage;

/// Slots remembered of one conversation at most; more than are ever searched.
pub const MAX_SLOTS: usize = 512;
/// Conversations that one appender remembers at most.
pub const MAX_TAILS: usize = 4_096;
/// Slots that one appender remembers at most, of all conversations.
pub const MAX_CACHED_SLOTS: usize = 65_536;

/// The end of a conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    head: Seq,
    sent: [u64; 2],
    accepted_at: UnixMillis,
    /// Who sent what: an unbroken run of slots that ends at the head.
    slots: VecDeque<(UserId, MessageId)>,
}

impl Tail {
    /// The tail of a conversation of which only the head is known.
    pub(super) fn at(head: Option<&StoredMessage>) -> Self {
        let mut tail = Self::default();
        if let Some(head) = head {
            tail.take(head);
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

    /// The newest slot above `after` with this message. Only a tail that has
    /// seen all of them proves that there is none.
    pub(super) fn find(&self, after: Seq, sender: &UserId, id: &MessageId) -> Option<Seq> {
        let newest_first = self.slots.iter().rev();
        let found = (after.0 + 1..=self.head.0)
            .rev()
            .zip(newest_first)
            .find(|(_, (by, known))| known == id && by == sender);
        found.map(|(seq, _)| Seq(seq))
    }

    /// Adds the message of the slot after the head; another one is ignored.
    pub(super) fn push(&mut self, message: &StoredMessage) {
        if message.envelope.seq == self.head.next() {
            self.take(message);
            if self.slots.len() > MAX_SLOTS {
                self.slots.pop_front();
            }
        }
    }

    /// Adds the message of the slot below the lowest one known; another one is
    /// ignored, so that only an unbroken run counts as seen.
    pub(super) fn extend_down(&mut self, message: &StoredMessage) {
        if message.envelope.seq == self.seen_after() {
            self.slots.push_front(key(message));
        }
    }

    fn take(&mut self, head: &StoredMessage) {
        self.head = head.envelope.seq;
        self.sent = head.sent;
        self.accepted_at = head.envelope.accepted_at;
        self.slots.push_back(key(head));
    }
}

fn key(message: &StoredMessage) -> (UserId, MessageId) {
    let envelope = &message.envelope;
    (envelope.sender.clone(), envelope.message_id.clone())
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
        let body = bytes::Bytes::new();
        StoredMessage {
            envelope: Envelope::seal(
                Seq(seq),
                id(seq),
                user("alice"),
                user("bob"),
                UnixMillis(seq),
                body,
            ),
            sent: [seq, 0],
        }
    }

    #[test]
    fn a_tail_knows_an_unbroken_run_that_ends_at_its_head() {
        let mut tail = Tail::at(Some(&message(5)));
        assert_eq!((tail.head(), tail.seen_after()), (Seq(5), Seq(4)));
        tail.extend_down(&message(3));
        assert_eq!(tail.seen_after(), Seq(4));
        tail.extend_down(&message(4));
        tail.extend_down(&message(3));
        tail.push(&message(7));
        tail.push(&message(6));
        assert_eq!((tail.head(), tail.seen_after()), (Seq(6), Seq(2)));
        let find = |after, seq| tail.find(Seq(after), &user("alice"), &id(seq));
        assert_eq!(find(2, 3), Some(Seq(3)));
        assert_eq!(find(3, 3), None);
        assert_eq!(find(0, 6), Some(Seq(6)));
        assert_eq!(tail.find(Seq(0), &user("bob"), &id(6)), None);
    }

    #[test]
    fn a_tail_forgets_its_oldest_slots_and_says_so() {
        let mut tail = Tail::at(None);
        assert_eq!((tail.head(), tail.seen_after()), (Seq(0), Seq(0)));
        for seq in 1..=600 {
            tail.push(&message(seq));
        }
        assert_eq!(tail.seen_after(), Seq(600 - MAX_SLOTS as u64));
        assert_eq!(tail.find(Seq(0), &user("alice"), &id(1)), None);
        assert_eq!(tail.find(Seq(0), &user("alice"), &id(600)), Some(Seq(600)));
    }

    #[test]
    fn the_tails_used_last_are_kept_within_their_bounds() {
        let mut tails = Tails::default();
        let conversation = |n: usize| ConversationId::of(&user("bot"), &user(&format!("u{n}")));
        for n in 0..=MAX_TAILS {
            tails.put(conversation(n), Tail::at(Some(&message(1))));
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

        let mut long = Tail::at(None);
        for seq in 1..=MAX_SLOTS as u64 {
            long.push(&message(seq));
        }
        for n in 0..1_000 {
            tails.put(conversation(n), long.clone());
            assert!(tails.slots <= MAX_CACHED_SLOTS);
        }
    }
}
