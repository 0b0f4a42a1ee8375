//! Moving a user's cursor.
//!
//! It must not store a cursor above the head, and must not answer before both
//! users' activity rows of the present are durable.

use duologue_proto::history::{CursorAdvanced, HistoryError};
use duologue_proto::ids::{ConversationId, Seq, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::faults::{Mutant, planted};

use crate::error::unavailable;
use crate::history::{History, Shared};
use crate::store::StoreError;

impl History {
    /// Moves a user's cursor forward. Moving it back is harmless: what is stored
    /// is returned.
    pub async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, HistoryError> {
        let asked = Cursor::asked(Some(asked.delivered), Some(asked.read));
        let advanced = self.shared.advance_cursor(user, peer, asked).await;
        advanced.map_err(unavailable)
    }
}

impl Shared {
    /// A move that changes nothing marks the present too: the writer that made
    /// it may have died before anybody was told.
    async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, StoreError> {
        let conversation = ConversationId::of(user, peer);
        if asked.delivered > self.rows.least_head(&conversation) {
            let head = self.store.head(&conversation).await?;
            let head = head.map_or(Seq::ZERO, |message| message.envelope.seq);
            if asked.delivered > head {
                return Ok(CursorAdvanced::AboveHead { head });
            }
        }
        let before = self.before(&conversation, user, peer, asked).await?;
        if before.covers(asked) && !planted(Mutant::CursorLowered) {
            // Nothing was ever moved in a conversation without messages.
            if before != Cursor::default() {
                self.mark_active(&conversation, None).await?;
            }
            return Ok(CursorAdvanced::Stored {
                cursor: before,
                moved: false,
            });
        }
        let reading = self.time.reading().await?;
        let window = reading.window();
        let cursor = if self.rows.contains(&conversation, window) {
            let raised = self
                .store
                .raise_cursor(&conversation, user, asked, reading.at);
            raised.await?
        } else {
            let put = self
                .store
                .put_cursor(&conversation, user, asked, reading.at);
            put.await?
        };
        self.rows.remember(&conversation, window);
        self.rows.saw_cursor(&conversation, user, cursor);
        self.mark_active(&conversation, Some(reading)).await?;
        Ok(CursorAdvanced::Stored {
            cursor,
            moved: cursor != before,
        })
    }

    /// What is stored before a move. What this process has seen stored will do while
    /// the move goes beyond it; what is answered is read.
    async fn before(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<Cursor, StoreError> {
        match self.rows.least_cursor(conversation, user) {
            Some(least) if !least.covers(asked) => Ok(least),
            Some(_) | None => self.store.cursor(user, peer).await,
        }
    }
}
