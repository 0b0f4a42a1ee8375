//! What a device has been shown (design §4): catch-up at connect, gap repair,
//! slow readers and lost or reordered relays are all this one mechanism.
//!
//! Per conversation there is `shown`, the last sequence pushed, and `target`, the
//! highest known to exist. While `shown < target` and there is room, the session
//! reads from history and pushes. Nothing is pushed past a read that is running,
//! and `shown` is never guessed: it starts where catch-up would start.
//!
//! An announcement that leaves a gap is often only quicker than the one before it: an
//! answer comes from history itself, what the other side writes over another node. So
//! what is behind a gap is held for a moment, and read only if the gap stays.

mod state;

use duologue_proto::history::{HistoryError, ReadPage, ReadRequest};
use duologue_proto::ids::{Seq, UserId};
use duologue_proto::limits::MAX_SESSION_CONVERSATIONS;
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::refusal::{Reason, Refusal};

use self::state::Held;
pub(super) use self::state::{CatchUp, Start};
pub use self::state::{GAP_WAIT, HELD_BYTES, MAX_GAPS};
use super::opening::pause;
use super::{Effect, MAX_SESSION, Now, Phase, RETRY_PAUSE, Session};
use crate::frame::{Down, FRAME};

/// Bytes of envelopes in one read.
pub const READ_BYTES: usize = 16 * 1024;
/// Messages in one read.
pub const READ_MESSAGES: usize = 128;
/// What a read under way may bring, in bytes of the outbox.
const RESERVED_BYTES: usize = READ_BYTES + READ_MESSAGES * FRAME;
/// Reads under way at once.
pub const MAX_READS: usize = 2;

impl Session {
    pub(super) fn on_announced(&mut self, run: &[Envelope], now: Now) {
        let Some(first) = run.first() else { return };
        let peer = first.peer_of(&self.about.user).clone();
        if planted(Mutant::ShownGuessed) {
            self.catch_up.guess(&peer, first.seq);
        }
        for envelope in run {
            let room = self.has_room_for(FRAME + envelope.wire().len());
            if room && self.catch_up.show_next(&peer, envelope.seq)
                || planted(Mutant::PushDuringRead) && self.catch_up.reading.contains_key(&peer)
            {
                self.push(0, Down::Delivered(envelope.clone()));
            } else if room || !planted(Mutant::OverflowDropped) {
                // What finds no room is read when there is some.
                self.catch_up.hold(&peer, envelope, room.then_some(now));
                self.on_raised(&peer, envelope.seq);
            }
        }
        self.close_gap(&peer);
        self.sync.shown(&peer, &self.catch_up);
    }

    /// Pushes what was held behind a gap that has closed.
    fn close_gap(&mut self, peer: &UserId) {
        while let Some(envelope) = self.catch_up.take_next(peer) {
            let room = self.has_room_for(FRAME + envelope.wire().len());
            if !room || !self.catch_up.show_next(peer, envelope.seq) {
                // It is read once there is room.
                self.catch_up.gaps.remove(peer);
                return self.catch_up.note(peer);
            }
            self.push(0, Down::Delivered(envelope));
        }
    }

    pub(super) fn on_raised(&mut self, peer: &UserId, seq: Seq) {
        self.catch_up.raise(peer, seq);
        self.end_if_full();
    }

    fn end_if_full(&mut self) {
        if self.catch_up.len() > MAX_SESSION_CONVERSATIONS {
            self.end_full("the session knows of too many conversations");
        }
    }

    /// An own message counts as shown only if it is the next one; else it is an
    /// announcement like any other, and will be read and pushed. Where it is the
    /// very first of its conversation, catch-up could start nowhere else.
    pub(super) fn on_own_stored(
        &mut self,
        peer: &UserId,
        envelope: &Envelope,
        duplicate: bool,
        now: Now,
    ) {
        // Nothing more is told, so nothing more is noted.
        if self.phase != Phase::Live {
            return;
        }
        let seq = envelope.seq;
        if seq == Seq::ZERO.next() && !duplicate {
            self.catch_up.begin(peer);
            self.end_if_full();
        }
        let shown = self.catch_up.show_next(peer, seq)
            || planted(Mutant::StoredOverGap) && self.catch_up.jump(peer, seq);
        if shown {
            self.close_gap(peer);
            self.sync.shown(peer, &self.catch_up);
        } else {
            self.catch_up.hold(peer, envelope, Some(now));
            self.on_raised(peer, seq);
        }
    }

    pub(super) fn proceed_reads(&mut self, now: Now) {
        self.catch_up.end_gaps(now);
        if planted(Mutant::ServedNoMoreAfterFull) && !self.has_room_for(RESERVED_BYTES) {
            self.catch_up.paused_until = Some(now.instant + MAX_SESSION);
        }
        if self
            .catch_up
            .paused_until
            .is_some_and(|until| until > now.instant)
        {
            return;
        }
        self.catch_up.paused_until = None;
        while self.catch_up.reading.len() < MAX_READS && self.has_room_for(RESERVED_BYTES) {
            let Some((peer, start)) = self.catch_up.next_read() else {
                return;
            };
            self.effects.push(Effect::Read(ReadRequest {
                user: self.about.user.clone(),
                peer,
                start,
                max_messages: READ_MESSAGES,
                max_bytes: READ_BYTES,
            }));
        }
    }

    pub(super) fn on_read(
        &mut self,
        peer: &UserId,
        result: Result<ReadPage, HistoryError>,
        now: Now,
    ) {
        let Some(held) = self.catch_up.reading.remove(peer) else {
            return;
        };
        match result {
            Ok(page) => {
                self.show(peer, page, now);
                self.release(peer, held);
            }
            Err(HistoryError::PositionAhead { head }) => {
                return self.end_position_ahead(peer, head);
            }
            // Who said that nothing more comes does not wait for a store.
            Err(error) if !self.ending.is_open() => {
                tracing::debug!(%error, "a half-closed stream cannot catch up");
                return self.end_unavailable();
            }
            Err(HistoryError::Unavailable { retry_after }) => {
                self.catch_up.paused_until = Some(now.instant + pause(retry_after));
            }
            Err(error @ (HistoryError::InvalidSyncToken | HistoryError::InvalidPageToken)) => {
                tracing::error!(%error, "a read was refused for a reason that no read has");
                self.catch_up.paused_until = Some(now.instant + RETRY_PAUSE);
            }
        }
        self.catch_up.note(peer);
    }

    fn show(&mut self, peer: &UserId, page: ReadPage, now: Now) {
        let Some(state) = self.catch_up.states.get_mut(peer) else {
            return;
        };
        if !state.is_resolved() {
            state.shown = page.after;
        }
        // A strong read finds every message that was announced. Should it not,
        // asking again at once would find it no sooner.
        if page.messages.is_empty() && state.shown < state.target {
            self.catch_up.paused_until = Some(now.instant + RETRY_PAUSE);
        }
        state.target = state.target.max(page.head);
        for envelope in page.messages {
            if self.catch_up.show_next(peer, envelope.seq) {
                self.push(0, Down::Delivered(envelope));
            }
        }
        self.sync.shown(peer, &self.catch_up);
    }

    /// Takes what was announced while a read ran as if it were announced now. What the
    /// read has brought, or has left a gap before, changes nothing any more.
    fn release(&mut self, peer: &UserId, held: Held) {
        for envelope in held.envelopes.into_values() {
            let room = self.has_room_for(FRAME + envelope.wire().len());
            if room && self.catch_up.show_next(peer, envelope.seq) {
                self.push(0, Down::Delivered(envelope));
            }
        }
        self.sync.shown(peer, &self.catch_up);
    }

    pub(super) fn end_position_ahead(&mut self, peer: &UserId, head: Seq) {
        let refusal = Refusal::new(
            Reason::PositionAhead,
            format!(
                "the position of the conversation with {peer} is above its head {head}: drop the \
                 sync token, positions and after_seq, keep what is not yet sent, connect again"
            ),
        );
        self.end_history_changed(refusal.meta("head", head));
    }
}
