//! What others tell a session: bounded, and never silently short.
//!
//! When there is no room for an announced message, what is kept is that the
//! conversation has messages up to it; the session reads them from history. Of
//! receipts and presence the latest is kept. Should even that be too much, the
//! session is told to sync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::history::Appended;
use duologue_proto::ids::{Incarnation, Seq, UserId};
use duologue_proto::limits::MAX_SESSION_CONVERSATIONS;
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::UserPresence;
use duologue_runtime::faults::{Mutant, planted};

use crate::session::Input;
use crate::signal::Signal;

/// Bytes of announced envelopes that wait.
pub const INBOX_BYTES: usize = 32 * 1024;
/// Conversations, cursors or users that wait; more make the session sync or end.
pub const MAX_WAITING: usize = MAX_SESSION_CONVERSATIONS;

/// Where others put what a session should know.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<Waiting>,
    /// Raised when something was put in.
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Answers to the session's own runs, as many as it has in flight.
    appended: Vec<(UserId, Vec<Appended>)>,
    announced: Vec<Arc<[Envelope]>>,
    announced_bytes: usize,
    raised: BTreeMap<UserId, Seq>,
    receipts: BTreeMap<(UserId, UserId), Cursor>,
    presence: BTreeMap<UserId, UserPresence>,
    presence_lost: bool,
    resync: bool,
    register_again: Option<(Option<Incarnation>, Duration)>,
    ends: Ends,
}

/// Why the session is to end.
#[derive(Debug, Default)]
struct Ends {
    superseded: bool,
    drains: bool,
}

impl Inbox {
    /// An empty inbox that raises `signal` when something is put in.
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self {
            state: Mutex::default(),
            signal,
        }
    }

    /// Answers the session's own run in the conversation with `peer`.
    pub(crate) fn appended(&self, peer: UserId, answers: Vec<Appended>) {
        self.change(|waiting| waiting.appended.push((peer, answers)));
    }

    /// Announces messages of one conversation of `user`, whose session this is.
    pub(crate) fn announce(&self, user: &UserId, run: &Arc<[Envelope]>) {
        self.change(|waiting| {
            let fits = waiting.fits(run);
            if fits == run.len() {
                waiting.announced.push(Arc::clone(run));
            } else if fits > 0 {
                waiting.announced.push(run[..fits].into());
            }
            let rest = run[fits..].iter();
            for envelope in rest.filter(|_| !planted(Mutant::OverflowDropped)) {
                waiting.raise(envelope.peer_of(user), envelope.seq);
            }
        });
    }

    /// Tells that the conversation with `peer` has messages up to this one.
    pub(crate) fn raise(&self, peer: &UserId, seq: Seq) {
        self.change(|waiting| waiting.raise(peer, seq));
    }

    /// Tells that the node has a new incarnation, with which to register after
    /// `delay`.
    pub(crate) fn register_again(&self, incarnation: Incarnation, delay: Duration) {
        self.change(|waiting| waiting.register_again = Some((Some(incarnation), delay)));
    }

    /// Tells that something was missed, perhaps that a newer session took over.
    pub(crate) fn confirm(&self) {
        self.change(|waiting| {
            waiting.register_again.get_or_insert((None, Duration::ZERO));
        });
    }

    /// Tells that `user`'s cursor in the conversation with `peer` moved.
    pub(crate) fn receipt(&self, peer: &UserId, user: &UserId, cursor: Cursor) {
        self.change(|waiting| {
            let latest = waiting
                .receipts
                .entry((peer.clone(), user.clone()))
                .or_default();
            *latest = latest.max(cursor);
            if waiting.receipts.len() > MAX_WAITING {
                waiting.receipts.clear();
                waiting.resync = true;
            }
        });
    }

    /// Tells that a user went online or offline.
    pub(crate) fn presence(&self, presence: &UserPresence) {
        self.change(|waiting| {
            waiting
                .presence
                .insert(presence.user.clone(), presence.clone());
            if waiting.presence.len() > MAX_WAITING {
                waiting.lose_presence();
            }
        });
    }

    /// Tells that changes of presence were missed.
    pub(crate) fn presence_lost(&self) {
        self.change(Waiting::lose_presence);
    }

    /// Tells that a newer session of the device took over.
    pub(crate) fn supersede(&self) {
        self.change(|waiting| waiting.ends.superseded = true);
    }

    /// Tells that the node stops.
    pub(crate) fn drain(&self) {
        self.change(|waiting| waiting.ends.drains = true);
    }

    /// Takes everything out.
    pub(crate) fn take(&self, inputs: &mut Vec<Input>) {
        let waiting = std::mem::take(&mut *self.lock());
        let appended = waiting.appended.into_iter();
        inputs.extend(appended.map(|(peer, answers)| Input::Appended(peer, answers)));
        inputs.extend(waiting.announced.into_iter().map(Input::Announced));
        inputs.extend(
            waiting
                .raised
                .into_iter()
                .map(|(peer, seq)| Input::Raised(peer, seq)),
        );
        let receipts = waiting.receipts.into_iter();
        inputs.extend(receipts.map(|((peer, user), cursor)| Input::Receipt(peer, user, cursor)));
        inputs.extend(waiting.presence_lost.then_some(Input::PresenceLost));
        inputs.extend(waiting.presence.into_values().map(Input::Presence));
        inputs.extend(waiting.resync.then_some(Input::Resync));
        let again = waiting.register_again;
        inputs.extend(again.map(|(incarnation, delay)| Input::RegisterAgain(incarnation, delay)));
        inputs.extend(waiting.ends.drains.then_some(Input::Drain));
        inputs.extend(waiting.ends.superseded.then_some(Input::Superseded));
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.signal.raise();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What waits is a hint: were a panic to leave it short, a sync repairs it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Takes room for messages; returns for how many, from the first on, there is.
    fn fits(&mut self, run: &[Envelope]) -> usize {
        let fits = run.iter().take_while(|envelope| {
            let bytes = self.announced_bytes + envelope.wire().len();
            let fits = bytes <= INBOX_BYTES;
            if fits {
                self.announced_bytes = bytes;
            }
            fits
        });
        fits.count()
    }

    fn lose_presence(&mut self) {
        self.presence.clear();
        self.presence_lost = true;
    }

    fn raise(&mut self, peer: &UserId, seq: Seq) {
        if !self.raised.contains_key(peer) && self.raised.len() >= MAX_WAITING {
            self.resync = true;
            return;
        }
        let target = self.raised.entry(peer.clone()).or_default();
        *target = (*target).max(seq);
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::{MessageId, UnixMillis};

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn envelope(seq: u64) -> Envelope {
        let id = MessageId::parse("m").unwrap();
        let body = [b'x'; 4096];
        Envelope::seal(
            Seq(seq),
            id,
            user("alice"),
            user("bob"),
            UnixMillis(0),
            &body,
        )
    }

    #[test]
    fn what_overflows_becomes_a_raised_target_and_not_silence() {
        let inbox = Inbox::default();
        for seq in 1..=100 {
            inbox.announce(&user("bob"), &[envelope(seq)].into());
        }
        let mut inputs = Vec::new();
        inbox.take(&mut inputs);
        let announced = inputs
            .iter()
            .filter(|i| matches!(i, Input::Announced(_)))
            .count();
        assert!(announced < 10);
        assert!(
            matches!(inputs.last(), Some(Input::Raised(peer, Seq(100))) if *peer == user("alice"))
        );
    }

    #[test]
    fn of_receipts_the_larger_is_kept() {
        let inbox = Inbox::default();
        let high = Cursor {
            delivered: Seq(5),
            read: Seq(5),
        };
        inbox.receipt(&user("alice"), &user("alice"), high);
        let low = Cursor {
            delivered: Seq(4),
            read: Seq(4),
        };
        inbox.receipt(&user("alice"), &user("alice"), low);
        let mut inputs = Vec::new();
        inbox.take(&mut inputs);
        assert!(matches!(inputs.as_slice(), [Input::Receipt(_, _, cursor)] if *cursor == high));
    }
}
