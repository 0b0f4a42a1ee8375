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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use duologue_proto::history::{HistoryError, ReadPage, ReadRequest, ReadStart};
use duologue_proto::ids::{Seq, UnixMillis, UserId};
use duologue_proto::limits::MAX_SESSION_CONVERSATIONS;
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::refusal::{Reason, Refusal};
use tokio::time::Instant;

use super::opening::pause;
use super::{Effect, MAX_SESSION, Now, Phase, RETRY_PAUSE, Session};
use crate::frame::{Down, FRAME};

/// Bytes of envelopes in one read.
pub const READ_BYTES: usize = 16 * 1024;
/// Messages in one read.
pub const READ_MESSAGES: usize = 128;
/// What a read under way may bring, in bytes of the outbox.
const RESERVED_BYTES: usize = READ_BYTES + READ_MESSAGES * FRAME;
/// What may be held of a conversation while a read of it runs, in bytes of the outbox.
pub const HELD_BYTES: usize = 32 * 1024;
/// Reads under way at once.
pub const MAX_READS: usize = 2;
/// How long an announcement that is missing is waited for before it is read.
pub const GAP_WAIT: Duration = Duration::from_millis(50);
/// Conversations in which one is waited for at once; in others it is read.
pub const MAX_GAPS: usize = 4;

/// `shown` of a conversation that was announced and that no sync has listed. It
/// waits for the first sync: only that knows where it starts.
const UNLISTED: Seq = Seq(u64::MAX);
/// `shown` of a listed conversation whose start is found by a read, by time.
const BY_TIME: Seq = Seq(u64::MAX - 1);

/// What is kept per conversation for the session's life, beside its key.
#[derive(Debug, Clone, Copy)]
struct State {
    shown: Seq,
    target: Seq,
}

impl State {
    /// What is known of a conversation before anything is.
    const NEW: Self = Self {
        shown: UNLISTED,
        target: Seq::ZERO,
    };

    fn is_resolved(self) -> bool {
        self.shown < BY_TIME
    }

    fn has_shown(self, seq: Seq) -> bool {
        self.is_resolved() && self.shown >= seq
    }
}

/// Messages of a conversation that were announced behind a gap, or while a read of it
/// runs. Without them the next read would have to bring them, and one more what is
/// announced meanwhile: a session that has begun to read could not stop while others
/// write. What does not fit is only known to exist.
#[derive(Debug, Default)]
struct Held {
    envelopes: BTreeMap<Seq, Envelope>,
    bytes: usize,
}

impl Held {
    fn hold(&mut self, envelope: &Envelope) {
        let bytes = FRAME + envelope.wire().len();
        if self.bytes + bytes <= HELD_BYTES
            && self
                .envelopes
                .insert(envelope.seq, envelope.clone())
                .is_none()
        {
            self.bytes += bytes;
        }
    }
}

/// A gap that may close by itself.
#[derive(Debug)]
struct Gap {
    held: Held,
    /// It is read then; none once that is so.
    until: Option<Instant>,
}

/// What the device has been shown of every conversation.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    states: BTreeMap<UserId, State>,
    /// Those that are not level and have no read under way.
    lagging: BTreeSet<UserId>,
    /// Those with a read under way, with what is held until its end.
    reading: BTreeMap<UserId, Held>,
    /// Those in which an announcement is waited for, and until its read begins.
    gaps: BTreeMap<UserId, Gap>,
    /// The conversation that was read last: the next one after it has its turn.
    last_read: Option<UserId>,
    /// Where a conversation starts that no sync has listed: everything in it is
    /// newer than this. None until the first sync is complete.
    floor: Option<UnixMillis>,
    /// Where listed conversations start by time: at that of the sync's token.
    since: Option<UnixMillis>,
    /// No read is begun before.
    paused_until: Option<Instant>,
}

/// Where catch-up starts in a conversation that a sync lists.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// After this sequence.
    After(Seq),
    /// At the first message accepted at or after this time.
    Since(UnixMillis),
}

impl CatchUp {
    pub(super) fn reserved_bytes(&self) -> usize {
        self.reading.len() * RESERVED_BYTES
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let gaps = self.gaps.values().filter_map(|gap| gap.until);
        gaps.chain(self.paused_until).min()
    }

    /// Whether everything known to exist has been pushed.
    pub(super) fn is_level(&self) -> bool {
        self.lagging.is_empty() && self.reading.is_empty() && self.gaps.is_empty()
    }

    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether everything up to `seq` has been pushed.
    pub(super) fn has_shown(&self, peer: &UserId, seq: Seq) -> bool {
        seq == Seq::ZERO
            || self
                .states
                .get(peer)
                .is_some_and(|state| state.has_shown(seq))
    }

    /// Whether `seq` is known to be stored.
    pub(super) fn knows(&self, peer: &UserId, seq: Seq) -> bool {
        self.states
            .get(peer)
            .is_some_and(|state| seq <= state.target || state.has_shown(seq))
    }

    /// Whether the conversation has state whose start is known.
    pub(super) fn is_resolved(&self, peer: &UserId) -> bool {
        self.states
            .get(peer)
            .is_some_and(|state| state.is_resolved())
    }

    /// Gives a listed conversation its start, unless it has one, and its head.
    pub(super) fn list(&mut self, peer: &UserId, start: Start, head: Seq) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        state.target = state.target.max(head);
        if !state.is_resolved() {
            match start {
                Start::After(seq) => state.shown = seq,
                Start::Since(time) => {
                    state.shown = BY_TIME;
                    self.since = Some(time);
                }
            }
        }
        self.note(peer);
    }

    /// A sync has listed everything: what no sync has listed is newer than
    /// `floor`.
    pub(super) fn all_listed(&mut self, floor: UnixMillis) {
        self.floor = Some(floor);
    }

    /// Gives a conversation that was empty until now its start, unless it has one.
    pub(super) fn begin(&mut self, peer: &UserId) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        if !state.is_resolved() {
            state.shown = Seq::ZERO;
        }
        self.note(peer);
    }

    /// Takes the first announcement for the start: only a planted fault does.
    fn guess(&mut self, peer: &UserId, seq: Seq) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        if state.shown == UNLISTED {
            state.shown = Seq(seq.0.saturating_sub(1));
        }
    }

    /// Moves `shown` over whatever lies between: only a planted fault does.
    fn jump(&mut self, peer: &UserId, seq: Seq) -> bool {
        let state = self.states.get_mut(peer);
        let moved = state.filter(|state| state.is_resolved() && state.shown < seq);
        moved.map(|state| state.shown = seq).is_some()
    }

    /// Raises the target of a conversation; makes state for it if it has none.
    fn raise(&mut self, peer: &UserId, seq: Seq) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        state.target = state.target.max(seq);
        self.note(peer);
    }

    /// Moves `shown` to `seq` if that is the next one and nothing stands against
    /// pushing it now.
    fn show_next(&mut self, peer: &UserId, seq: Seq) -> bool {
        let reading = self.reading.contains_key(peer);
        match self.states.get_mut(peer) {
            Some(state) if !reading && state.is_resolved() && seq == state.shown.next() => {
                state.shown = seq;
                state.target = state.target.max(seq);
                self.note(peer);
                true
            }
            _ => false,
        }
    }

    /// Holds an announced message that cannot be pushed now, until the read under way
    /// ends or the gap before it has closed. `now`: a gap may be waited for.
    fn hold(&mut self, peer: &UserId, envelope: &Envelope, now: Option<Now>) {
        if let Some(held) = self.reading.get_mut(peer) {
            return held.hold(envelope);
        }
        if let Some(now) = now
            && self.is_new_gap(peer, envelope.seq)
        {
            let gap = Gap {
                held: Held::default(),
                until: Some(now.instant + GAP_WAIT),
            };
            self.gaps.insert(peer.clone(), gap);
        }
        if let Some(gap) = self.gaps.get_mut(peer) {
            gap.held.hold(envelope);
        }
    }

    /// Whether only what comes just before `seq` is missing, and may be on its way.
    fn is_new_gap(&self, peer: &UserId, seq: Seq) -> bool {
        let state = self.states.get(peer);
        let is_level =
            state.is_some_and(|state| state.is_resolved() && state.target <= state.shown);
        is_level
            && self.gaps.len() < MAX_GAPS
            && state.is_some_and(|state| seq > state.shown.next())
    }

    /// What was held of a conversation behind a gap, if that comes next now.
    fn take_next(&mut self, peer: &UserId) -> Option<Envelope> {
        let next = self.states.get(peer)?.shown.next();
        self.gaps.get_mut(peer)?.held.envelopes.remove(&next)
    }

    /// Gaps that have stayed are read.
    fn end_gaps(&mut self, now: Now) {
        for (peer, gap) in &mut self.gaps {
            if gap.until.take_if(|until| *until <= now.instant).is_some() {
                self.lagging.insert(peer.clone());
            }
        }
    }

    /// Puts a conversation among those that need a read, or takes it out.
    fn note(&mut self, peer: &UserId) {
        let Some(state) = self.states.get(peer) else {
            return;
        };
        if state.has_shown(state.target) {
            self.lagging.remove(peer);
            self.gaps.remove(peer);
        } else if self.reading.contains_key(peer) {
            self.lagging.remove(peer);
        } else if !self.lagging.contains(peer) && !self.gaps.contains_key(peer) {
            self.lagging.insert(peer.clone());
        }
    }

    /// Begins the next read, one conversation after another in turn.
    fn next_read(&mut self) -> Option<(UserId, ReadStart)> {
        let after = self
            .last_read
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.lagging.range::<UserId, _>((after, Bound::Unbounded));
        let (peer, start) = turn
            .chain(self.lagging.iter())
            .find_map(|peer| Some((peer.clone(), self.read_start(peer)?)))?;
        self.lagging.remove(&peer);
        let gap = self.gaps.remove(&peer);
        let held = gap.map(|gap| gap.held).unwrap_or_default();
        self.reading.insert(peer.clone(), held);
        self.last_read = Some(peer.clone());
        Some((peer, start))
    }

    /// Where to read on; none while that is not known.
    fn read_start(&self, peer: &UserId) -> Option<ReadStart> {
        match self.states.get(peer)?.shown {
            UNLISTED => self.floor.map(ReadStart::AcceptedSince),
            BY_TIME => self.since.map(ReadStart::AcceptedSince),
            shown => Some(ReadStart::After(shown)),
        }
    }
}

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
