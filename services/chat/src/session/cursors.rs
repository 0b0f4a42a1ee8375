//! Cursor moves of the device (design §6): relayed at once, written at most every
//! 5 seconds per conversation and at the end of the session.
//!
//! A move to a message that is known to be stored needs no check and may wait. Any
//! other is written at once, because only history knows whether it is above the
//! head, and it is relayed when it is stored.

use std::collections::BTreeMap;

use duologue_proto::history::{CursorAdvanced, HistoryError};
use duologue_proto::ids::UserId;
use duologue_proto::limits::CURSOR_WRITE_INTERVAL;
use duologue_proto::message::Cursor;
use tokio::time::Instant;

use super::{Effect, Now, Phase, Session};
use crate::frame::{Advance, CursorRejectedReason, CursorRejection, Down, Ref};

/// Moves without an answer, after which the server stops reading the stream.
pub const MAX_MOVES: usize = 1_024;

/// The cursor moves that are not answered.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Repeated in `Hello`; taken up when the session is live.
    repeated: Vec<Result<Advance, CursorRejection>>,
    /// Relayed and waiting to be written.
    waiting: BTreeMap<UserId, Waiting>,
    /// Being written, by number.
    writing: BTreeMap<u64, Writing>,
    next_number: u64,
    /// Moves without an answer.
    unanswered: usize,
}

/// Moves of one conversation that will be written together.
#[derive(Debug)]
struct Waiting {
    asked: Cursor,
    due: Instant,
    references: Vec<Ref>,
}

/// A write that is under way.
#[derive(Debug)]
struct Writing {
    peer: UserId,
    references: Vec<Ref>,
    /// Relay it if it is stored: it could not be relayed before.
    relay: bool,
}

impl Cursors {
    pub(super) fn repeat(&mut self, repeated: Vec<Result<Advance, CursorRejection>>) {
        self.repeated = repeated;
    }

    pub(super) fn room(&self) -> usize {
        MAX_MOVES.saturating_sub(self.unanswered)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.repeated.is_empty() && self.waiting.is_empty() && self.writing.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }
}

impl Session {
    pub(super) fn on_advance(&mut self, reference: Ref, advance: Advance, now: Now) {
        let Advance { peer, asked } = advance;
        self.cursors.unanswered += 1;
        if !self.catch_up.knows(&peer, asked.delivered) {
            return self.write_cursor(peer, asked, vec![reference], true);
        }
        let waiting = self
            .cursors
            .waiting
            .entry(peer.clone())
            .or_insert_with(|| Waiting {
                asked: Cursor::default(),
                due: now.instant + CURSOR_WRITE_INTERVAL,
                references: Vec::new(),
            });
        waiting.references.push(reference);
        if !waiting.asked.covers(asked) {
            waiting.asked = waiting.asked.max(asked);
            let cursor = waiting.asked;
            self.effects.push(Effect::AnnounceCursor(peer, cursor));
        }
    }

    fn write_cursor(&mut self, peer: UserId, asked: Cursor, references: Vec<Ref>, relay: bool) {
        let number = self.cursors.next_number;
        self.cursors.next_number += 1;
        self.cursors.writing.insert(
            number,
            Writing {
                peer: peer.clone(),
                references,
                relay,
            },
        );
        self.effects.push(Effect::WriteCursor(number, peer, asked));
    }

    pub(super) fn proceed_cursors(&mut self, now: Now) {
        if self.phase == Phase::Closing {
            // The device says them again: it has not seen them confirmed.
            self.cursors.repeated = Vec::new();
        }
        if self.phase == Phase::Live && !self.cursors.repeated.is_empty() {
            for advance in std::mem::take(&mut self.cursors.repeated) {
                match advance {
                    Ok(advance) => self.on_advance(0, advance, now),
                    Err(rejection) => self.push(0, Down::CursorRejected(Box::new(rejection))),
                }
            }
        }
        let at_once = !self.ending.is_open();
        let due = |waiting: &Waiting| at_once || waiting.due <= now.instant;
        let ready = self
            .cursors
            .waiting
            .iter()
            .filter(|(_, waiting)| due(waiting));
        let ready: Vec<UserId> = ready.map(|(peer, _)| peer.clone()).collect();
        for peer in ready {
            if let Some(waiting) = self.cursors.waiting.remove(&peer) {
                self.write_cursor(peer, waiting.asked, waiting.references, false);
            }
        }
    }

    pub(super) fn on_cursor_written(
        &mut self,
        number: u64,
        result: Result<CursorAdvanced, HistoryError>,
    ) {
        let Some(writing) = self.cursors.writing.remove(&number) else {
            return;
        };
        let Writing {
            peer,
            mut references,
            relay,
        } = writing;
        self.cursors.unanswered = self.cursors.unanswered.saturating_sub(references.len());
        if relay
            && let Ok(CursorAdvanced::Stored {
                cursor,
                moved: true,
            }) = result
        {
            self.effects
                .push(Effect::AnnounceCursor(peer.clone(), cursor));
        }
        // Moves without a number share one answer.
        references.sort_unstable();
        references.dedup();
        let answer = answer(peer, result);
        for reference in references {
            self.push(reference, answer.clone());
        }
    }
}

fn answer(peer: UserId, result: Result<CursorAdvanced, HistoryError>) -> Down {
    let (reason, detail, head) = match result {
        Ok(CursorAdvanced::Stored { cursor, .. }) => return Down::CursorStored { peer, cursor },
        Ok(CursorAdvanced::AboveHead { head }) => (
            CursorRejectedReason::AboveHead,
            format!("the cursor is above the head {head}; move it at most there"),
            Some(head),
        ),
        Err(error) => {
            tracing::debug!(%error, "a cursor was not written");
            let detail = "the store cannot be reached; keep the move and send it again".into();
            (CursorRejectedReason::Unavailable, detail, None)
        }
    };
    Down::CursorRejected(Box::new(CursorRejection {
        peer: peer.to_string(),
        reason,
        field: "advance_cursor",
        detail,
        head,
    }))
}
