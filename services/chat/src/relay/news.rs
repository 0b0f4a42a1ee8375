//! What the sessions of users should know, kept within bounds by widening it, never
//! by leaving it out: messages become "there are messages up to 7", those become
//! "sync", and that becomes "everyone should sync".

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use duologue_proto::ids::{Seq, SessionId, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::Route;
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::telemetry::propagation::Trace;

/// What one piece of news counts for, beside the bytes of its messages.
const NEWS_BYTES: usize = 160;
/// Pieces of news of one user, beside messages; more become one: to sync.
pub const MAX_NEWS_PER_USER: usize = 256;
/// News that wait for one peer, or to be looked up: what is more is widened.
pub const RELAY_BYTES: usize = 4 * 1024 * 1024;
/// Messages wait as such below it; above it as raised targets.
pub const RELAY_MESSAGE_BYTES: usize = RELAY_BYTES / 2;

/// What another node's sessions should know. All of it is durable already.
#[derive(Debug, Clone)]
pub(crate) enum Announcement {
    /// Messages of one sender in one conversation. Never empty.
    Messages {
        /// In their order.
        run: Arc<[Envelope]>,
        /// What they are part of.
        trace: Option<Trace>,
    },
    /// A user's cursor in the conversation with `peer` moved.
    Cursor {
        /// Whose cursor.
        user: UserId,
        /// The other user.
        peer: UserId,
        /// Where it is.
        cursor: Cursor,
    },
    /// The session of this route was replaced by a newer one of its device.
    Superseded(Box<Route>),
    /// A session of this user came in force or left.
    Presence(UserId),
}

impl Announcement {
    /// Messages that are part of the trace that we are in.
    pub(crate) fn messages(run: Arc<[Envelope]>) -> Self {
        let trace = Trace::current();
        Self::Messages { run, trace }
    }
}

/// What the sessions of one user should know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Each of one sender and one conversation.
    pub(crate) runs: Vec<Arc<[Envelope]>>,
    /// Of `runs`: kept by [`News::push`].
    pub(crate) message_bytes: usize,
    pub(crate) raised: BTreeMap<UserId, Seq>,
    /// By peer, and by whose cursor it is.
    pub(crate) receipts: BTreeMap<(UserId, UserId), Cursor>,
    pub(crate) superseded: BTreeSet<SessionId>,
    pub(crate) look_at_presence: bool,
    pub(crate) resync: bool,
    /// What the oldest of these messages is part of, of those that are part of a trace.
    pub(crate) trace: Option<Trace>,
}

impl News {
    pub(crate) fn of_run(run: Arc<[Envelope]>) -> Self {
        let mut news = Self::default();
        news.push(run);
        news
    }

    pub(crate) fn of_cursor(peer: UserId, whose: UserId, cursor: Cursor) -> Self {
        Self {
            receipts: BTreeMap::from([((peer, whose), cursor)]),
            ..Self::default()
        }
    }

    pub(crate) fn of_superseded(session: SessionId) -> Self {
        Self {
            superseded: BTreeSet::from([session]),
            ..Self::default()
        }
    }

    pub(crate) fn of_presence() -> Self {
        Self {
            look_at_presence: true,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, run: Arc<[Envelope]>) {
        self.message_bytes += bytes_of(&run);
        self.runs.push(run);
    }

    pub(crate) fn raise(&mut self, peer: UserId, seq: Seq) {
        let target = self.raised.entry(peer).or_default();
        *target = (*target).max(seq);
    }

    pub(crate) fn receipt(&mut self, peer: UserId, whose: UserId, cursor: Cursor) {
        let latest = self.receipts.entry((peer, whose)).or_default();
        *latest = latest.max(cursor);
    }

    /// Turns messages into raised targets.
    pub(crate) fn widen(&mut self, user: &UserId) {
        self.message_bytes = 0;
        for run in std::mem::take(&mut self.runs) {
            for envelope in run.iter().filter(|_| !planted(Mutant::OverflowDropped)) {
                self.raise(envelope.peer_of(user).clone(), envelope.seq);
            }
        }
    }

    /// Turns everything but presence into "sync".
    fn widen_to_resync(&mut self) {
        *self = Self {
            look_at_presence: self.look_at_presence,
            resync: true,
            trace: self.trace,
            ..Self::default()
        };
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.trace = self.trace.or(other.trace);
        if !self.resync {
            for run in other.runs {
                self.push(run);
            }
            for (peer, seq) in other.raised {
                self.raise(peer, seq);
            }
            for ((peer, whose), cursor) in other.receipts {
                self.receipt(peer, whose, cursor);
            }
            self.superseded.extend(other.superseded);
        }
        self.look_at_presence |= other.look_at_presence;
        let pieces = self.raised.len() + self.receipts.len() + self.superseded.len();
        if other.resync || pieces > MAX_NEWS_PER_USER {
            self.widen_to_resync();
        }
    }

    /// Takes everything but the messages that do not fit; one message always does.
    fn take(&mut self, max_bytes: usize) -> Self {
        let runs = std::mem::take(&mut self.runs);
        self.message_bytes = 0;
        let mut taken = std::mem::take(self);
        for run in runs {
            let mut bytes = taken.message_bytes;
            let fits = run.iter().take_while(|envelope| {
                let first = bytes == 0;
                bytes += envelope.wire().len();
                first || bytes <= max_bytes
            });
            let fits = if self.runs.is_empty() {
                fits.count()
            } else {
                0
            };
            if fits == run.len() {
                taken.push(run);
                continue;
            }
            if fits > 0 {
                taken.push(run[..fits].into());
            }
            self.push(run[fits..].into());
        }
        taken
    }

    fn cost(&self) -> usize {
        let pieces =
            self.runs.len() + self.raised.len() + self.receipts.len() + self.superseded.len();
        self.message_bytes + (pieces + 1) * NEWS_BYTES
    }
}

fn bytes_of(run: &[Envelope]) -> usize {
    run.iter().map(|envelope| envelope.wire().len()).sum()
}

/// News of one user, and where its sessions are believed to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) news: News,
    /// At the peer that this is for.
    pub(crate) routes: Vec<Route>,
}

impl Entry {
    fn cost(&self) -> usize {
        self.news.cost() + self.routes.len() * NEWS_BYTES
    }
}

/// News by user, bounded.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    users: BTreeMap<UserId, Entry>,
    bytes: usize,
    everyone: bool,
    /// The user taken last, so that each has its turn.
    last: Option<UserId>,
}

impl Buffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.everyone
    }

    /// Adds news of a user. Returns whether something was widened.
    pub(crate) fn add(&mut self, user: &UserId, mut news: News, routes: Vec<Route>) -> bool {
        if self.everyone {
            return true;
        }
        let mut widened = false;
        if !news.runs.is_empty() && self.bytes + news.cost() > RELAY_MESSAGE_BYTES {
            news.widen(user);
            widened = true;
        }
        let mut entry = self.remove(user).unwrap_or_default();
        let resync = entry.news.resync;
        entry.news.merge(news);
        for route in routes {
            entry.routes.retain(|known| known.device != route.device);
            entry.routes.push(route);
        }
        if self.bytes + entry.cost() > RELAY_BYTES {
            entry.news.widen_to_resync();
            entry.routes = Vec::new();
        }
        widened |= entry.news.resync && !resync;
        self.bytes += entry.cost();
        self.users.insert(user.clone(), entry);
        if self.bytes > RELAY_BYTES {
            self.widen_to_everyone();
        }
        widened
    }

    /// Everyone should sync: covers all that waits, and whatever comes before it is
    /// taken.
    pub(crate) fn widen_to_everyone(&mut self) {
        (self.users, self.bytes, self.everyone) = (BTreeMap::new(), 0, true);
    }

    /// Takes whether everyone should sync.
    pub(crate) fn take_everyone(&mut self) -> bool {
        std::mem::take(&mut self.everyone)
    }

    /// Takes what waits of one user.
    pub(crate) fn remove(&mut self, user: &UserId) -> Option<Entry> {
        let entry = self.users.remove(user)?;
        self.bytes -= entry.cost();
        Some(entry)
    }

    /// Takes what waits of the next user.
    pub(crate) fn pop(&mut self) -> Option<(UserId, Entry)> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.users.range((after, Bound::Unbounded));
        let next = later.next().or_else(|| self.users.iter().next());
        let user = next.map(|(user, _)| user.clone())?;
        self.last = Some(user.clone());
        let entry = self.remove(&user)?;
        Some((user, entry))
    }

    /// Takes about as much as that, of one user after the other.
    pub(crate) fn take(&mut self, max_bytes: usize) -> Batch {
        let mut batch = Batch {
            everyone: self.take_everyone(),
            ..Batch::default()
        };
        let mut room = max_bytes;
        while room > 0
            && let Some((user, mut entry)) = self.pop()
        {
            let taken = Entry {
                news: entry.news.take(room),
                routes: entry.routes.clone(),
            };
            room = room.saturating_sub(taken.cost());
            batch.users.push((user.clone(), taken));
            if !entry.news.runs.is_empty() {
                self.bytes += entry.cost();
                self.users.insert(user, entry);
                break;
            }
        }
        batch
    }

    /// Everywhere that sessions are believed to be.
    pub(crate) fn into_routes(self) -> impl Iterator<Item = Route> {
        self.users.into_values().flat_map(|entry| entry.routes)
    }
}

/// News that are sent, and acknowledged, together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) users: Vec<(UserId, Entry)>,
    pub(crate) everyone: bool,
}
