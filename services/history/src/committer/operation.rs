//! What the writer is asked to do, and what it answers.

use duologue_proto::ids::{ConversationId, UnixMillis, UserId};
use duologue_proto::message::Cursor;

use crate::store::{PutOutcome, PutRun, StoreError, Window};

/// What an operation costs beside its messages, in bytes; an estimate.
const OPERATION_BYTES: usize = 256;

/// One call of [`crate::store::Store`] that writes.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Fills consecutive slots.
    PutRun(PutRun),
    /// Writes both users' activity rows.
    PutActivity {
        /// The conversation.
        conversation: ConversationId,
        /// The window.
        window: Window,
    },
    /// Raises a cursor, and writes both users' activity rows.
    PutCursor {
        /// The conversation.
        conversation: ConversationId,
        /// Whose cursor.
        user: UserId,
        /// What to raise it to.
        cursor: Cursor,
        /// The window.
        window: Window,
    },
    /// Raises the highest reading.
    StoreReading(UnixMillis),
}

impl Operation {
    /// About how much memory it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::PutRun(run) => run
                .messages
                .iter()
                .map(|message| OPERATION_BYTES + message.envelope.wire().len())
                .sum::<usize>()
                .saturating_add(OPERATION_BYTES),
            Self::PutActivity { .. } | Self::PutCursor { .. } | Self::StoreReading(_) => {
                OPERATION_BYTES
            }
        }
    }
}

/// The answer to one [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To [`Operation::PutRun`].
    Run(PutOutcome),
    /// To [`Operation::PutCursor`]: what is stored.
    Cursor(Result<Cursor, StoreError>),
    /// To the others.
    Done(Result<(), StoreError>),
}
