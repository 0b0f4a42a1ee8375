//! Which activity rows this process knows to be durable, and making those of
//! the present durable before an answer is given.
//!
//! It must not forget the order: rows first, then what they announce.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duologue_proto::ids::ConversationId;

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
    conversations: BTreeSet<ConversationId>,
}

impl KnownRows {
    pub(crate) fn contains(&self, conversation: &ConversationId, window: Window) -> bool {
        let known = self.lock();
        known.window == Some(window) && known.conversations.contains(conversation)
    }

    /// Only rows that a store has confirmed may be remembered.
    pub(crate) fn remember(&self, conversation: &ConversationId, window: Window) {
        let mut known = self.lock();
        if known.window < Some(window) {
            *known = Known {
                window: Some(window),
                conversations: BTreeSet::new(),
            };
        }
        if known.window == Some(window) && known.conversations.len() < MAX_REMEMBERED {
            known.conversations.insert(conversation.clone());
        }
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
