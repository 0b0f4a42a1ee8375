//! The reads of the embedded engine. They block: see [`super`] for where they run.

use std::ops::Bound;

use duologue_proto::ids::{ConversationId, Seq, UserId};
use fjall::{Guard, Keyspace, Readable as _, Slice};

use super::keys;
use super::tables::{Tables, engine_error};
use super::values::{Unreadable, decode_message};
use crate::committer::rules::Stored as _;
use crate::store::{Activity, Cursors, SlotRange, StoreError, StoredMessage, Window, take_within};

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Tables {
    pub(super) fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let range = slots(conversation, Seq::ZERO, Seq(u64::MAX));
        let mut run = self.scan(&self.messages, range);
        run.next_back()
            .map(|slot| message(conversation, slot))
            .transpose()
    }

    pub(super) fn slots(&self, range: &SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        if range.first > range.last {
            return Ok(Vec::new());
        }
        let conversation = &range.conversation;
        let bounds = slots(conversation, range.first, range.last);
        let run = self.scan(&self.messages, bounds);
        let run = run.map(|slot| message(conversation, slot));
        if range.backward {
            take_within(run.rev(), range)
        } else {
            take_within(run, range)
        }
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

fn end_of(user: &UserId) -> Bound<Vec<u8>> {
    Bound::Excluded(keys::after_all(keys::user(user)))
}

fn key(row: Guard) -> Result<Slice, StoreError> {
    row.key().map_err(engine_error)
}

/// The message in a slot; one that says it belongs elsewhere is not it.
fn message(conversation: &ConversationId, slot: Guard) -> Result<StoredMessage, StoreError> {
    let (key, value) = slot.into_inner().map_err(engine_error)?;
    let message = decode_message(&value)?;
    if *key == *keys::message(conversation, message.envelope.seq)
        && message.envelope.conversation() == *conversation
    {
        Ok(message)
    } else {
        Err(Unreadable("a message in another's slot").into())
    }
}
