//! The reads of the embedded engine. They block: see [`super`] for where they run.

use std::ops::Bound;

use duologue_proto::ids::{ConversationId, Seq, UserId};
use fjall::{Guard, Keyspace, Readable as _, Slice};

use super::bundle::Bundle;
use super::keys;
use super::tables::{Tables, engine_error};
use crate::committer::rules::Stored as _;
use crate::store::{Activity, Cursors, SlotRange, StoreError, StoredMessage, Window, take_within};

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Tables {
    /// The message at the head.
    pub(super) fn head_message(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let mut bundles = self.scan(&self.messages, all_slots(conversation));
        let Some(bundle) = bundles.next_back() else {
            return Ok(None);
        };
        let (last, bundle) = open(conversation, bundle)?;
        Ok(bundle.message(last)?)
    }

    /// The sequence at the head; 0 if there is none.
    pub(super) fn head_seq(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        let mut bundles = self.scan(&self.messages, all_slots(conversation));
        match bundles.next_back() {
            Some(bundle) => Ok(keys::seq_of(conversation, &key(bundle)?)?),
            None => Ok(Seq::ZERO),
        }
    }

    /// The message in a slot.
    pub(super) fn slot(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let mut bundles = self.scan(&self.messages, slots(conversation, seq, Seq(u64::MAX)));
        let Some(bundle) = bundles.next() else {
            return Ok(None);
        };
        let (_, bundle) = open(conversation, bundle)?;
        Ok(bundle.message(seq)?)
    }

    pub(super) fn slots(&self, range: &SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        // So many slots there are; behind the last of them nothing is scanned.
        let wanted = range.last.next().0.saturating_sub(range.first.0.max(1));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let bundles = self.scan(&self.messages, self.bundles_of(range)?);
        if range.backward {
            let messages = bundles.rev().flat_map(|bundle| within(bundle, range));
            take_within(messages.take(wanted), range)
        } else {
            let messages = bundles.flat_map(|bundle| within(bundle, range));
            take_within(messages.take(wanted), range)
        }
    }

    /// Where the bundles of a range lie: up to the one that holds its last slot, if
    /// there is one and the scan begins there.
    fn bundles_of(&self, range: &SlotRange) -> Result<Range, StoreError> {
        let conversation = &range.conversation;
        let behind = |seq| slots(conversation, seq, Seq(u64::MAX));
        let (start, mut end) = behind(range.first);
        if range.backward
            && let Some(bundle) = self.scan(&self.messages, behind(range.last)).next()
        {
            end = Bound::Included(key(bundle)?.to_vec());
        }
        Ok((start, end))
    }

    pub(super) fn both_cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        let conversation = ConversationId::of(user, peer);
        Ok(Cursors {
            own: self.cursor(&conversation, user)?,
            peer: self.cursor(&conversation, peer)?,
        })
    }

    pub(super) fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded(keys::conversation(user, after)),
            None => Bound::Included(keys::user(user)),
        };
        self.scan(&self.conversations, (start, end_of(user)))
            .take(max)
            .map(|row| Ok(keys::peer_of(user, &key(row)?)?))
            .collect()
    }

    pub(super) fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let start = match after {
            Some(after) if after.window >= first => Bound::Excluded(keys::activity(user, after)),
            Some(_) | None => Bound::Included(keys::window(user, first)),
        };
        self.scan(&self.activity, (start, end_of(user)))
            .take(max)
            .map(|row| Ok(keys::activity_of(user, &key(row)?)?))
            .collect()
    }

    pub(super) fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        let start = Bound::Included(keys::user(user));
        let end = before.map_or(end_of(user), |before| {
            Bound::Excluded(keys::activity(user, before))
        });
        self.scan(&self.activity, (start, end))
            .rev()
            .take(max)
            .map(|row| Ok(keys::activity_of(user, &key(row)?)?))
            .collect()
    }

    /// `Keyspace::range` reads past the published sequence number; a snapshot does
    /// not.
    fn scan(&self, keyspace: &Keyspace, range: Range) -> impl DoubleEndedIterator<Item = Guard> {
        self.database.snapshot().range(keyspace, range)
    }
}

fn slots(conversation: &ConversationId, first: Seq, last: Seq) -> Range {
    (
        Bound::Included(keys::message(conversation, first)),
        Bound::Included(keys::message(conversation, last)),
    )
}

fn all_slots(conversation: &ConversationId) -> Range {
    slots(conversation, Seq::ZERO, Seq(u64::MAX))
}

fn end_of(user: &UserId) -> Bound<Vec<u8>> {
    Bound::Excluded(keys::after_all(keys::user(user)))
}

fn key(row: Guard) -> Result<Slice, StoreError> {
    row.key().map_err(engine_error)
}

/// A bundle, and the sequence of its last message.
fn open(conversation: &ConversationId, bundle: Guard) -> Result<(Seq, Bundle), StoreError> {
    let (key, value) = bundle.into_inner().map_err(engine_error)?;
    let last = keys::seq_of(conversation, &key)?;
    Ok((last, Bundle::open(conversation.clone(), last, value)?))
}

type Messages = Box<dyn Iterator<Item = Result<StoredMessage, StoreError>>>;

/// The messages of a bundle that a range wants, in its direction. They are decoded
/// as they are taken.
fn within(bundle: Guard, range: &SlotRange) -> Messages {
    let bundle = match open(&range.conversation, bundle) {
        Ok((_, bundle)) => bundle,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let slots = bundle.slots(range.first, range.last);
    let message = move |seq| Some(bundle.message(seq).transpose()?.map_err(StoreError::from));
    if range.backward {
        Box::new(slots.rev().filter_map(message))
    } else {
        Box::new(slots.filter_map(message))
    }
}
