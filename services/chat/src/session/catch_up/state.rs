//! What is known of each conversation that a device is shown: how far it was pushed,
//! how far it goes, and what is held meanwhile. It decides nothing about room, and tells
//! nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use duologue_proto::history::ReadStart;
use duologue_proto::ids::{Seq, UnixMillis, UserId};
use duologue_proto::message::Envelope;
use tokio::time::Instant;

use super::RESERVED_BYTES;
use crate::frame::FRAME;
use crate::session::Now;

/// What may be held of a conversation while a read of it runs, in bytes of the outbox.
pub const HELD_BYTES: usize = 32 * 1024;
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
pub(super) struct State {
    pub(super) shown: Seq,
    pub(super) target: Seq,
}

impl State {
    /// What is known of a conversation before anything is.
    const NEW: Self = Self {
        shown: UNLISTED,
        target: Seq::ZERO,
    };

    pub(super) fn is_resolved(self) -> bool {
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
pub(super) struct Held {
    pub(super) envelopes: BTreeMap<Seq, Envelope>,
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
pub(super) struct Gap {
    held: Held,
    /// It is read then; none once that is so.
    until: Option<Instant>,
}

/// What the device has been shown of every conversation.
#[derive(Debug, Default)]
pub(in crate::session) struct CatchUp {
    pub(super) states: BTreeMap<UserId, State>,
    /// Those that are not level and have no read under way.
    lagging: BTreeSet<UserId>,
    /// Those with a read under way, with what is held until its end.
    pub(super) reading: BTreeMap<UserId, Held>,
    /// Those in which an announcement is waited for, and until its read begins.
    pub(super) gaps: BTreeMap<UserId, Gap>,
    /// The conversation that was read last: the next one after it has its turn.
    last_read: Option<UserId>,
    /// Where a conversation starts that no sync has listed: everything in it is
    /// newer than this. None until the first sync is complete.
    floor: Option<UnixMillis>,
    /// Where listed conversations start by time: at that of the sync's token.
    since: Option<UnixMillis>,
    /// No read is begun before.
    pub(super) paused_until: Option<Instant>,
}

/// Where catch-up starts in a conversation that a sync lists.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) enum Start {
    /// After this sequence.
    After(Seq),
    /// At the first message accepted at or after this time.
    Since(UnixMillis),
}

impl CatchUp {
    pub(in crate::session) fn reserved_bytes(&self) -> usize {
        self.reading.len() * RESERVED_BYTES
    }

    pub(in crate::session) fn deadline(&self) -> Option<Instant> {
        let gaps = self.gaps.values().filter_map(|gap| gap.until);
        gaps.chain(self.paused_until).min()
    }

    /// Whether everything known to exist has been pushed.
    pub(in crate::session) fn is_level(&self) -> bool {
        self.lagging.is_empty() && self.reading.is_empty() && self.gaps.is_empty()
    }

    pub(in crate::session) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(in crate::session) fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether everything up to `seq` has been pushed.
    pub(in crate::session) fn has_shown(&self, peer: &UserId, seq: Seq) -> bool {
        seq == Seq::ZERO
            || self
                .states
                .get(peer)
                .is_some_and(|state| state.has_shown(seq))
    }

    /// Whether `seq` is known to be stored.
    pub(in crate::session) fn knows(&self, peer: &UserId, seq: Seq) -> bool {
        self.states
            .get(peer)
            .is_some_and(|state| seq <= state.target || state.has_shown(seq))
    }

    /// Whether the conversation has state whose start is known.
    pub(in crate::session) fn is_resolved(&self, peer: &UserId) -> bool {
        self.states
            .get(peer)
            .is_some_and(|state| state.is_resolved())
    }

    /// Gives a listed conversation its start, unless it has one, and its head.
    pub(in crate::session) fn list(&mut self, peer: &UserId, start: Start, head: Seq) {
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
    pub(in crate::session) fn all_listed(&mut self, floor: UnixMillis) {
        self.floor = Some(floor);
    }

    /// Gives a conversation that was empty until now its start, unless it has one.
    pub(in crate::session) fn begin(&mut self, peer: &UserId) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        if !state.is_resolved() {
            state.shown = Seq::ZERO;
        }
        self.note(peer);
    }

    /// Takes the first announcement for the start: only a planted fault does.
    pub(super) fn guess(&mut self, peer: &UserId, seq: Seq) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        if state.shown == UNLISTED {
            state.shown = Seq(seq.0.saturating_sub(1));
        }
    }

    /// Moves `shown` over whatever lies between: only a planted fault does.
    pub(super) fn jump(&mut self, peer: &UserId, seq: Seq) -> bool {
        let state = self.states.get_mut(peer);
        let moved = state.filter(|state| state.is_resolved() && state.shown < seq);
        moved.map(|state| state.shown = seq).is_some()
    }

    /// Raises the target of a conversation; makes state for it if it has none.
    pub(super) fn raise(&mut self, peer: &UserId, seq: Seq) {
        let state = self.states.entry(peer.clone()).or_insert(State::NEW);
        state.target = state.target.max(seq);
        self.note(peer);
    }

    /// Moves `shown` to `seq` if that is the next one and nothing stands against
    /// pushing it now.
    pub(super) fn show_next(&mut self, peer: &UserId, seq: Seq) -> bool {
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
    pub(super) fn hold(&mut self, peer: &UserId, envelope: &Envelope, now: Option<Now>) {
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
        self.gaps.len() < MAX_GAPS
            && self
                .states
                .get(peer)
                .is_some_and(|state| state.has_shown(state.target) && seq > state.shown.next())
    }

    /// What was held of a conversation behind a gap, if that comes next now.
    pub(super) fn take_next(&mut self, peer: &UserId) -> Option<Envelope> {
        let gap = self.gaps.get_mut(peer)?;
        let next = self.states.get(peer)?.shown.next();
        gap.held.envelopes.remove(&next)
    }

    /// Gaps that have stayed are read.
    pub(super) fn end_gaps(&mut self, now: Now) {
        for (peer, gap) in &mut self.gaps {
            if gap.until.take_if(|until| *until <= now.instant).is_some() {
                self.lagging.insert(peer.clone());
            }
        }
    }

    /// Puts a conversation among those that need a read, or takes it out.
    pub(super) fn note(&mut self, peer: &UserId) {
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
    pub(super) fn next_read(&mut self) -> Option<(UserId, ReadStart)> {
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
