//! Cursor moves of the device (design §6): relayed at once, written at most every
//! 5 seconds per conversation and at the end of the session.
//!
//! A move to a message that is known to be stored needs no check and may wait. Of
//! any other, only history knows whether it is above the head: it is written at
//! once, unless this conversation was just written, and relayed when it is stored.

use std::collections::BTreeMap;

use duologue_proto::history::{CursorAdvanced, HistoryError};
use duologue_proto::ids::UserId;
use duologue_proto::limits::CURSOR_WRITE_INTERVAL;
use duologue_proto::message::Cursor;
use tokio::time::Instant;

use super::{Effect, Now, Phase, Session};
use crate::frame::{Advance, CursorRejectedReason, CursorRejection, Down, Ref};

/// Moves without an answer, after which the server stops reading the stream.
pub const MAX_MOVES: usize = 512;
/// Conversations whose cursors are written at the same time.
pub const MAX_CURSOR_WRITES: usize = 8;

/// Conversations without a move whose last write is remembered; others may be written
/// again before the interval is over.
pub const MAX_RESTING_LANES: usize = 1_024;

/// The cursor moves that are not answered.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Repeated in `Hello`; taken up when the session is live.
    repeated: Vec<Result<Advance, CursorRejection>>,
    lanes: BTreeMap<UserId, Lane>,
    /// Lanes with a write under way.
    writing: usize,
    /// Moves without an answer.
    unanswered: usize,
}

/// The moves of one conversation. It stays for a while after its last write, so
/// that the next one is not too soon.
#[derive(Debug, Default)]
struct Lane {
    waiting: Vec<(Ref, Cursor)>,
    /// When what waits is written.
    due: Option<Instant>,
    /// What is being written.
    writing: Vec<(Ref, Cursor)>,
    written: Option<Instant>,
    /// What the others were told.
    relayed: Cursor,
}

impl Lane {
    /// What is asked for by all moves together.
    fn asked(moves: &[(Ref, Cursor)]) -> Cursor {
        moves
            .iter()
            .fold(Cursor::default(), |asked, (_, cursor)| asked.max(*cursor))
    }

    fn may_write(&self) -> bool {
        !self.waiting.is_empty() && self.writing.is_empty()
    }

    /// Adds a move that should be written at `due`, or with what is due before.
    fn wait(&mut self, reference: Ref, cursor: Cursor, due: Instant) {
        self.waiting.push((reference, cursor));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// Notes what the others are told; whether it is news to them.
    fn relay(&mut self, cursor: Cursor) -> bool {
        let news = !self.relayed.covers(cursor);
        self.relayed = self.relayed.max(cursor);
        news
    }
}

impl Cursors {
    pub(super) fn repeat(&mut self, repeated: Vec<Result<Advance, CursorRejection>>) {
        self.repeated = repeated;
    }

    pub(super) fn room(&self) -> usize {
        MAX_MOVES.saturating_sub(self.unanswered)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.repeated.is_empty() && self.unanswered == 0
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.writing == MAX_CURSOR_WRITES {
            return None;
        }
        let lanes = self.lanes.values().filter(|lane| lane.may_write());
        lanes.filter_map(|lane| lane.due).min()
    }
}

impl Session {
    pub(super) fn on_advance(&mut self, reference: Ref, advance: Advance, now: Now) {
        let Advance { peer, asked } = advance;
        self.cursors.unanswered += 1;
        let known = self.catch_up.knows(&peer, asked.delivered);
        let lane = self.cursors.lanes.entry(peer.clone()).or_default();
        let soonest = lane
            .written
            .map_or(now.instant, |at| at + CURSOR_WRITE_INTERVAL);
        let due = if known {
            now.instant + CURSOR_WRITE_INTERVAL
        } else {
            soonest
        };
        lane.wait(reference, asked, due);
        if known && lane.relay(asked) {
            let cursor = lane.relayed;
            self.effects.push(Effect::AnnounceCursor(peer, cursor));
        }
    }

    pub(super) fn proceed_cursors(&mut self, now: Now) {
        match self.phase {
            Phase::Live => self.take_up_repeated(now),
            // The device says them again: it has not seen them confirmed.
            Phase::Closing => self.cursors.repeated = Vec::new(),
            Phase::AwaitingHello | Phase::Registering | Phase::Ended => {}
        }
        // Without room nothing else is read either: that is not to last until the due time.
        let at_once = !self.ending.is_open() || self.cursors.room() == 0;
        for (peer, lane) in &mut self.cursors.lanes {
            let due = at_once || lane.due.is_none_or(|due| due <= now.instant);
            if self.cursors.writing < MAX_CURSOR_WRITES && due && lane.may_write() {
                lane.due = None;
                lane.writing = std::mem::take(&mut lane.waiting);
                self.cursors.writing += 1;
                let asked = Lane::asked(&lane.writing);
                self.effects.push(Effect::WriteCursor(peer.clone(), asked));
            }
        }
        let mut room = MAX_RESTING_LANES;
        self.cursors.lanes.retain(|_, lane| {
            if !lane.waiting.is_empty() || !lane.writing.is_empty() {
                return true;
            }
            let fresh = lane
                .written
                .is_some_and(|at| at + CURSOR_WRITE_INTERVAL > now.instant);
            let kept = fresh && room > 0;
            room -= usize::from(kept);
            kept
        });
    }

    fn take_up_repeated(&mut self, now: Now) {
        for advance in std::mem::take(&mut self.cursors.repeated) {
            match advance {
                Ok(advance) => self.on_advance(0, advance, now),
                Err(rejection) => self.push(0, Down::CursorRejected(Box::new(rejection))),
            }
        }
    }

    pub(super) fn on_cursor_written(
        &mut self,
        peer: &UserId,
        result: Result<CursorAdvanced, HistoryError>,
        now: Now,
    ) {
        let Some(lane) = self.cursors.lanes.get_mut(peer) else {
            return;
        };
        let mut moves = std::mem::take(&mut lane.writing);
        self.cursors.writing = self.cursors.writing.saturating_sub(1);
        lane.written = Some(now.instant);
        match result {
            Ok(CursorAdvanced::Stored { cursor, moved }) => {
                // Also what was relayed before: a session that opened in between
                // has synced the cursor that was stored then. And what did not move
                // now, but may have by an earlier try of whose answer nothing is known.
                if moved || cursor.holds_of(Lane::asked(&moves)) {
                    lane.relay(cursor);
                    self.effects
                        .push(Effect::AnnounceCursor(peer.clone(), cursor));
                }
            }
            // Moves that were written with one that is too high are good.
            Ok(CursorAdvanced::AboveHead { head }) => {
                let above = |(_, cursor): &(Ref, Cursor)| cursor.delivered > head;
                let (bad, good): (Vec<_>, Vec<_>) = moves.into_iter().partition(above);
                moves = bad;
                for (reference, cursor) in good {
                    lane.wait(reference, cursor, now.instant);
                }
            }
            Err(_) => {}
        }
        self.answer_moves(moves, answer(peer.clone(), result));
    }

    /// Moves without a number share one answer.
    fn answer_moves(&mut self, moves: Vec<(Ref, Cursor)>, answer: Down) {
        self.cursors.unanswered = self.cursors.unanswered.saturating_sub(moves.len());
        let mut references: Vec<Ref> = moves.into_iter().map(|(reference, _)| reference).collect();
        references.sort_unstable();
        references.dedup();
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
