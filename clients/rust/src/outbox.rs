//! Messages that are not settled, and when each may be sent.
//!
//! Order rules, per conversation:
//!
//! - Messages go out oldest first. What was refused for now goes out again before
//!   anything behind it, and only when nothing of the conversation is in flight:
//!   the server would defer it anyway.
//! - After a deferral one message is in flight at a time, then one more for every
//!   answer. So a server that defers is not flooded with what it would defer too.
//! - `after_seq` of a message that was tried is raised only slot by slot, over
//!   slots that were seen and hold another message.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use duologue_proto::ids::{MessageId, Seq, UserId};
use duologue_proto::limits::{MAX_SEARCH, MAX_SENDS_IN_FLIGHT};

use crate::limits::{MAX_OUTBOX, RETRY_DELAY};

/// All messages that are not settled. Bounded by [`MAX_OUTBOX`].
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: BTreeMap<UserId, Lane>,
    peers: BTreeMap<MessageId, UserId>,
    in_flight: usize,
    max_in_flight: usize,
    /// The server looks for earlier copies in so many messages.
    max_search: u64,
    /// Conversations take turns.
    last_served: Option<UserId>,
    scans: u64,
}

/// A message that is not settled.
#[derive(Clone)]
pub(crate) struct Pending {
    pub(crate) id: MessageId,
    pub(crate) after_seq: Seq,
    pub(crate) text: String,
    /// How often it may have reached a server.
    tries: u32,
    pub(crate) state: State,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits for its turn.
    Waiting,
    /// It waits, and is on the list of deferred messages of the open session.
    Deferred,
    /// It was sent on the open session, and is not answered.
    InFlight,
    /// The same, and the application gave it up meanwhile.
    Abandoned,
}

/// The text stays out of logs.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({} after {})", self.id, self.after_seq)
    }
}

/// A look through a conversation for earlier copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Names this look; an answer to another one is ignored.
    pub(crate) ticket: u64,
    /// The other user of the conversation.
    pub(crate) peer: UserId,
    /// Ask for messages after this one.
    pub(crate) after_seq: Seq,
}

/// What is not settled in one conversation. Never empty.
#[derive(Debug)]
struct Lane {
    messages: VecDeque<Pending>,
    in_flight: usize,
    window: usize,
    hold_until: Option<Duration>,
    scan: ScanState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    None,
    Wanted,
    Running(u64),
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            peers: BTreeMap::new(),
            in_flight: 0,
            max_in_flight: MAX_SENDS_IN_FLIGHT,
            max_search: MAX_SEARCH,
            last_served: None,
            scans: 0,
        }
    }
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MAX_OUTBOX
    }

    pub(crate) fn peer_of(&self, id: &MessageId) -> Option<&UserId> {
        self.peers.get(id)
    }

    /// Adds a message behind the others of its conversation. `tried`: it may have
    /// reached a server.
    pub(crate) fn push(
        &mut self,
        peer: &UserId,
        id: MessageId,
        after_seq: Seq,
        text: String,
        tried: bool,
    ) {
        self.peers.insert(id.clone(), peer.clone());
        let lane = self.lanes.entry(peer.clone()).or_insert_with(Lane::new);
        lane.messages.push_back(Pending {
            id,
            after_seq,
            text,
            tries: u32::from(tried),
            state: State::Waiting,
        });
    }

    /// The limits of the open session.
    pub(crate) fn set_limits(&mut self, max_in_flight: usize, max_search: u64) {
        self.max_in_flight = max_in_flight.clamp(1, MAX_SENDS_IN_FLIGHT);
        self.max_search = max_search.clamp(1, MAX_SEARCH);
    }

    /// Whether [`Self::next`] has something.
    pub(crate) fn is_ready(&self, now: Duration) -> bool {
        self.in_flight < self.max_in_flight && self.lanes.values().any(|lane| lane.is_ready(now))
    }

    /// The message to send now. `known` is the highest sequence known of a
    /// conversation: a message that was never tried starts there.
    pub(crate) fn next(
        &mut self,
        now: Duration,
        known: impl Fn(&UserId) -> Seq,
    ) -> Option<(UserId, Pending)> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let peer = self.next_lane(now)?;
        let lane = self.lanes.get_mut(&peer)?;
        let pending = lane.messages.get_mut(lane.in_flight)?;
        if pending.tries == 0 {
            pending.after_seq = pending.after_seq.max(known(&peer));
        }
        pending.tries = pending.tries.saturating_add(1);
        pending.state = State::InFlight;
        lane.in_flight += 1;
        self.in_flight += 1;
        self.last_served = Some(peer.clone());
        let pending = pending.clone();
        Some((peer, pending))
    }

    fn next_lane(&self, now: Duration) -> Option<UserId> {
        let ready = |(_, lane): &(&UserId, &Lane)| lane.is_ready(now);
        let behind = match &self.last_served {
            Some(last) => self
                .lanes
                .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded))
                .find(ready),
            None => None,
        };
        behind
            .or_else(|| self.lanes.iter().find(ready))
            .map(|(peer, _)| peer.clone())
    }

    /// When the next message that is held may go, if any.
    pub(crate) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.lanes
            .values()
            .filter_map(|lane| lane.hold_until)
            .filter(|until| *until > now)
            .min()
    }

    /// Removes a message that is settled.
    pub(crate) fn settle(&mut self, id: &MessageId) -> Option<(UserId, Pending)> {
        let peer = self.peers.remove(id)?;
        let lane = self.lanes.get_mut(&peer)?;
        let index = lane.messages.iter().position(|pending| pending.id == *id)?;
        let pending = lane.messages.remove(index)?;
        if pending.is_in_flight() {
            lane.in_flight -= 1;
            self.in_flight -= 1;
            lane.window = lane.window.saturating_add(1).min(MAX_SENDS_IN_FLIGHT);
        }
        if lane.messages.is_empty() {
            self.lanes.remove(&peer);
        }
        Some((peer, pending))
    }

    /// Takes a message back that the server did not settle. Returns the state it
    /// was in; none if it is unknown.
    pub(crate) fn defer(&mut self, id: &MessageId, until: Duration) -> Option<State> {
        let lane = self.lanes.get_mut(self.peers.get(id)?)?;
        let pending = lane.messages.iter_mut().find(|pending| pending.id == *id)?;
        if pending.is_in_flight() {
            lane.in_flight -= 1;
            self.in_flight -= 1;
        }
        let state = std::mem::replace(&mut pending.state, State::Deferred);
        lane.window = 1;
        lane.hold_until = lane.hold_until.max(Some(until));
        Some(state)
    }

    /// Gives a message up. It stays while it is in flight, since its answer may
    /// yet be that it is stored. Returns whether it is known, and whether the
    /// server must be told.
    pub(crate) fn abandon(&mut self, id: &MessageId) -> Option<bool> {
        let lane = self.lanes.get_mut(self.peers.get(id)?)?;
        let pending = lane.messages.iter_mut().find(|pending| pending.id == *id)?;
        if pending.is_in_flight() {
            pending.state = State::Abandoned;
            return Some(false);
        }
        let deferred = pending.state == State::Deferred;
        self.settle(id);
        Some(deferred)
    }

    /// Notes what slot `seq` holds: `own` is the id there, if this user sent it
    /// (another user may use the same id). Returns the own message found there,
    /// which is no longer here then.
    pub(crate) fn saw(
        &mut self,
        peer: &UserId,
        seq: Seq,
        own: Option<&MessageId>,
    ) -> Option<Pending> {
        let lane = self.lanes.get_mut(peer)?;
        let mut found = None;
        for pending in &mut lane.messages {
            if own == Some(&pending.id) {
                found = own;
            } else if pending.after_seq.next() == seq {
                pending.after_seq = seq;
            }
        }
        self.settle(found?).map(|(_, pending)| pending)
    }

    /// The session has ended: everything in flight is unknown.
    pub(crate) fn disconnected(&mut self) {
        let abandoned: Vec<_> = self
            .messages()
            .filter(|(_, pending)| pending.state == State::Abandoned)
            .map(|(_, pending)| pending.id.clone())
            .collect();
        for id in abandoned {
            self.settle(&id);
        }
        for lane in self.lanes.values_mut() {
            for pending in &mut lane.messages {
                pending.state = State::Waiting;
            }
            lane.in_flight = 0;
            lane.window = MAX_SENDS_IN_FLIGHT;
        }
        self.in_flight = 0;
        self.max_in_flight = MAX_SENDS_IN_FLIGHT;
    }

    /// Sequences of another history mean nothing.
    pub(crate) fn forget_history(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.scan = ScanState::None;
            lane.hold_until = None;
            for pending in &mut lane.messages {
                pending.after_seq = Seq::ZERO;
            }
        }
    }

    /// Asks for a look through a conversation before its messages go again.
    pub(crate) fn want_scan(&mut self, id: &MessageId) {
        let Some(peer) = self.peers.get(id) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(peer)
            && lane.scan == ScanState::None
        {
            lane.scan = ScanState::Wanted;
        }
    }

    pub(crate) fn next_scan(&mut self, now: Duration) -> Option<Scan> {
        let (peer, lane) = self
            .lanes
            .iter_mut()
            .find(|(_, lane)| lane.scan == ScanState::Wanted && !lane.is_held(now))?;
        let first = lane.messages.front()?;
        self.scans += 1;
        lane.scan = ScanState::Running(self.scans);
        Some(Scan {
            ticket: self.scans,
            peer: peer.clone(),
            after_seq: first.after_seq,
        })
    }

    /// Whether `scan` is still of use.
    pub(crate) fn is_running(&self, scan: &Scan) -> bool {
        self.lanes
            .get(&scan.peer)
            .is_some_and(|lane| lane.scan == ScanState::Running(scan.ticket))
    }

    /// A page of a look was noted with [`Self::saw`], or could not be had
    /// (`head` is none).
    pub(crate) fn scanned(&mut self, scan: &Scan, head: Option<Seq>, now: Duration) {
        let Some(lane) = self.lanes.get_mut(&scan.peer) else {
            return;
        };
        let reached = lane.messages.front().map_or(Seq::ZERO, |it| it.after_seq);
        let done = head.is_some_and(|head| reached.0.saturating_add(self.max_search) >= head.0);
        lane.scan = if done {
            ScanState::None
        } else {
            ScanState::Wanted
        };
        // A page that shows nothing new must not be asked for again at once.
        if !done && reached <= scan.after_seq {
            lane.hold_until = lane.hold_until.max(Some(now + RETRY_DELAY));
        }
    }

    /// All messages, the oldest of each conversation first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&UserId, &Pending)> {
        self.lanes
            .iter()
            .flat_map(|(peer, lane)| lane.messages.iter().map(move |pending| (peer, pending)))
    }
}

impl Pending {
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight | State::Abandoned)
    }

    /// Whether a try may have stored it before the one that is in flight.
    pub(crate) fn was_tried_before(&self) -> bool {
        !self.is_in_flight() || self.tries > 1
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            messages: VecDeque::new(),
            in_flight: 0,
            window: MAX_SENDS_IN_FLIGHT,
            hold_until: None,
            scan: ScanState::None,
        }
    }

    fn is_held(&self, now: Duration) -> bool {
        self.hold_until.is_some_and(|until| until > now)
    }

    /// Whether the message behind those in flight may go. If one in flight stands
    /// behind one that is not, its answer comes first.
    fn is_ready(&self, now: Duration) -> bool {
        self.in_flight < self.window.min(self.messages.len())
            && self.scan == ScanState::None
            && !self.is_held(now)
            && self
                .messages
                .iter()
                .take(self.in_flight)
                .all(Pending::is_in_flight)
    }
}

#[cfg(test)]
mod tests;
