//! Which activity rows this process knows to be durable, and making those of
//! the present durable before an answer is given; and what else it knows to be stored
//! of the conversations whose rows those are, which spares reads.
//!
//! It must not forget the order: rows first, then what they announce.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duologue_proto::ids::{ConversationId, Seq, UserId};
use duologue_proto::message::Cursor;

use crate::history::Shared;
use crate::store::{StoreError, Window};
use crate::time::Reading;

/// Conversations remembered at most; the rows of others are written again.
pub const MAX_REMEMBERED: usize = 65_536;
/// How often rows that took longer than the append deadline are written again.
pub const MAX_REWRITES: usize = 3;

/// Conversations whose rows of the newest window are durable.
#[derive(Default)]
pub(crate) struct KnownRows(Mutex<Known>);

#[derive(Default)]
struct Known {
    window: Option<Window>,
    conversations: BTreeMap<ConversationId, Stored>,
}

/// At least this is stored of a conversation: neither heads nor cursors retreat.
#[derive(Default)]
struct Stored {
    head: Seq,
    /// By side.
    cursors: [Cursor; 2],
}

impl KnownRows {
    pub(crate) fn contains(&self, conversation: &ConversationId, window: Window) -> bool {
        let known = self.lock();
        known.window == Some(window) && known.conversations.contains_key(conversation)
    }

    /// Only rows that a store has confirmed may be remembered.
    pub(crate) fn remember(&self, conversation: &ConversationId, window: Window) {
        let mut known = self.lock();
        if known.window < Some(window) {
            *known = Known {
                window: Some(window),
                conversations: BTreeMap::new(),
            };
        }
        if known.window == Some(window) && known.conversations.len() < MAX_REMEMBERED {
            known.conversations.entry(conversation.clone()).or_default();
        }
    }

    /// A message was seen stored. Forgotten where rows are not remembered.
    pub(crate) fn saw_message(&self, conversation: &ConversationId, seq: Seq) {
        if let Some(stored) = self.lock().conversations.get_mut(conversation) {
            stored.head = stored.head.max(seq);
        }
    }

    /// A cursor was seen stored. The same.
    pub(crate) fn saw_cursor(&self, conversation: &ConversationId, user: &UserId, cursor: Cursor) {
        let side = conversation.side_of(user);
        if let (Some(stored), Some(side)) = (self.lock().conversations.get_mut(conversation), side)
        {
            stored.cursors[side] = stored.cursors[side].max(cursor);
        }
    }

    /// The head is at least this.
    pub(crate) fn least_head(&self, conversation: &ConversationId) -> Seq {
        let known = self.lock();
        let stored = known.conversations.get(conversation);
        stored.map_or(Seq::ZERO, |stored| stored.head)
    }

    /// A user's cursor is at least this; none if nothing is known of it.
    pub(crate) fn least_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Option<Cursor> {
        let known = self.lock();
        let stored = known.conversations.get(conversation)?;
        let cursor = stored.cursors[conversation.side_of(user)?];
        (cursor != Cursor::default()).then_some(cursor)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Returns once the rows of a reading that is not older than the append
    /// deadline are durable. `durable` is a reading of which that is known.
    ///
    /// Called before anything is answered as stored: a writer that was paused,
    /// and one that finds what an earlier writer stored, mark the present, or a
    /// device that synced in between would not be shown it.
    pub(crate) async fn mark_active(
        &self,
        conversation: &ConversationId,
        durable: Option<Reading>,
    ) -> Result<(), StoreError> {
        if durable.is_some_and(|reading| !self.time.is_old(&reading)) {
            return Ok(());
        }
        for _ in 0..MAX_REWRITES {
            let reading = self.time.reading().await?;
            if !self.rows.contains(conversation, reading.window()) {
                self.store
                    .put_activity(conversation, reading.window())
                    .await?;
                self.rows.remember(conversation, reading.window());
            }
            if !self.time.is_old(&reading) {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable(
            "activity rows are written too slowly".into(),
        ))
    }
}
