//! Which users are looked up, and when: decides, and does no I/O.
//!
//! A look-up serves only what was announced before it began: an earlier one may miss
//! a session that registers in between (design §4). What is announced of a user who
//! is being looked up waits for the next look-up, all of it together. A look-up that
//! fails is made again, for raised targets: what waits is bounded.
//!
//! Receipts would double the look-ups. They go at once where the last look-up of their
//! user found its sessions, if that is not long ago, and with the next look-up to all:
//! one that is made for a message, or one of their own. So every receipt has a look-up
//! that began after it, as everything else has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use duologue_proto::ids::{SessionId, UserId};
use duologue_proto::presence::Route;
use duologue_runtime::telemetry::propagation::Trace;
use tokio::time::Instant;

use super::backoff;
use super::news::{Announcement, Buffer, News};

/// Users who are looked up at the same time.
pub const MAX_LOOKUPS: usize = 64;
/// Users of whom other nodes are to be told that their presence may have changed,
/// and sessions that are to be told that they were superseded; with more, everyone
/// is told to look.
pub const MAX_HINTS: usize = 4_096;
/// The longest first pause after a look-up that failed.
pub const LOOKUP_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after any.
pub const MAX_LOOKUP_PAUSE: Duration = Duration::from_secs(5);
/// For so long after a look-up of a user receipts go where it has found sessions.
pub const RECEIPT_ROUTES_AGE: Duration = Duration::from_secs(15);
/// Users whose sessions are remembered for it.
pub const MAX_RECEIPT_ROUTES: usize = 8_192;

/// What is to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    /// Where a user's sessions are.
    User(UserId),
    /// Which nodes there are.
    Nodes,
}

/// What is for every node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ForAll {
    /// Users whose presence is to be looked at.
    pub(crate) hints: BTreeSet<UserId>,
    /// Every session should sync.
    pub(crate) everyone: bool,
}

/// News of a user, and where its sessions are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) user: UserId,
    pub(crate) news: News,
    pub(crate) routes: Vec<Route>,
}

/// What look-ups for receipts have found not long ago.
#[derive(Debug, Default)]
struct KnownRoutes {
    users: BTreeMap<UserId, Vec<Route>>,
    /// When each is forgotten, in that order.
    ends: VecDeque<(Instant, UserId)>,
}

impl KnownRoutes {
    fn found(&mut self, user: &UserId, routes: &[Route], for_receipts: bool, now: Instant) {
        if let Some(known) = self.users.get_mut(user) {
            *known = routes.to_vec();
        } else if for_receipts && self.ends.len() < MAX_RECEIPT_ROUTES {
            self.users.insert(user.clone(), routes.to_vec());
            let end = now + RECEIPT_ROUTES_AGE;
            self.ends.push_back((end, user.clone()));
        }
    }

    /// Forgets what is too old: the next user of whom it is.
    fn forget(&mut self, now: Instant) -> Option<UserId> {
        let (_, user) = self.ends.pop_front_if(|(end, _)| *end <= now)?;
        self.users.remove(&user);
        Some(user)
    }
}

/// What waits to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    waiting: Buffer,
    /// Announced since the look-up of its user began.
    behind: Buffer,
    looking: BTreeMap<UserId, News>,
    /// Receipts, not looked at yet.
    receipts: Buffer,
    known: KnownRoutes,
    /// Receipts that went where sessions were known to be; the next look-up is for them
    /// too.
    owed: Buffer,
    to_known: Vec<Found>,
    for_all: ForAll,
    looking_for_all: Option<ForAll>,
    superseded: BTreeMap<SessionId, Route>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Lookups {
    /// Takes what is durable. Returns whether something was widened.
    pub(crate) fn announce(&mut self, announcement: Announcement) -> bool {
        match announcement {
            Announcement::Messages { run, trace } => {
                let Some(first) = run.first() else {
                    return false;
                };
                let (sender, recipient) = (first.sender.clone(), first.recipient.clone());
                let both = sender != recipient;
                let news = News {
                    trace,
                    ..News::of_run(run)
                };
                let widened = both && self.add(&sender, news.clone());
                self.add(&recipient, news) || widened
            }
            Announcement::Cursor { user, peer, cursor } => {
                let both = user != peer;
                let to_peer = News::of_cursor(user.clone(), user.clone(), cursor);
                let widened = both && self.add_receipt(&peer, to_peer);
                let own = News::of_cursor(peer, user.clone(), cursor);
                self.add_receipt(&user, own) || widened
            }
            Announcement::Superseded(route) => {
                self.superseded.insert(route.session.clone(), *route);
                self.bound_hints()
            }
            Announcement::Presence(user) => {
                self.for_all.hints.insert(user);
                self.bound_hints()
            }
        }
    }

    fn add(&mut self, user: &UserId, news: News) -> bool {
        let buffer = if self.looking.contains_key(user) {
            &mut self.behind
        } else {
            &mut self.waiting
        };
        let widened = buffer.add(user, news, Vec::new());
        self.for_all.everyone |= buffer.take_everyone();
        widened
    }

    fn add_receipt(&mut self, user: &UserId, news: News) -> bool {
        let widened = self.receipts.add(user, news, Vec::new());
        self.for_all.everyone |= self.receipts.take_everyone();
        widened
    }

    /// Sends receipts on their way: see above.
    fn sort_receipts(&mut self, now: Instant) {
        while let Some(user) = self.known.forget(now) {
            if let Some(entry) = self.owed.remove(&user) {
                self.add(&user, entry.news);
            }
        }
        while let Some((user, entry)) = self.receipts.pop() {
            let Some(routes) = self.known.users.get(&user) else {
                self.add(&user, entry.news);
                continue;
            };
            let routes = routes.clone();
            self.owed.add(&user, entry.news.clone(), Vec::new());
            self.for_all.everyone |= self.owed.take_everyone();
            let news = entry.news;
            self.to_known.push(Found { user, news, routes });
        }
    }

    /// Receipts that go where sessions were found not long ago.
    pub(crate) fn take_to_known(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.to_known)
    }

    fn bound_hints(&mut self) -> bool {
        let full = self.for_all.hints.len() > MAX_HINTS || self.superseded.len() > MAX_HINTS;
        if full {
            self.for_all.hints = BTreeSet::new();
            self.superseded = BTreeMap::new();
            self.for_all.everyone = true;
        }
        full
    }

    /// What is to be looked up now. To be called until there is nothing, and each
    /// look-up to be begun after that.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Lookup> {
        self.sort_receipts(now);
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        if self.looking_for_all.is_none() && self.for_all != ForAll::default() {
            self.looking_for_all = Some(std::mem::take(&mut self.for_all));
            return Some(Lookup::Nodes);
        }
        if self.looking.len() >= MAX_LOOKUPS {
            return None;
        }
        let (user, mut entry) = self.waiting.pop()?;
        if let Some(owed) = self.owed.remove(&user) {
            entry.news.merge(owed.news);
        }
        self.looking.insert(user.clone(), entry.news);
        Some(Lookup::User(user))
    }

    /// What a look-up that has begun is part of: of the oldest that it serves.
    pub(crate) fn trace_of(&self, lookup: &Lookup) -> Option<Trace> {
        match lookup {
            Lookup::User(user) => self.looking.get(user)?.trace,
            Lookup::Nodes => None,
        }
    }

    /// When there may be something to look up, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        let owed = self.known.ends.front();
        let owed = owed.filter(|_| !self.owed.is_empty()).map(|(end, _)| *end);
        self.not_before.into_iter().chain(owed).min()
    }

    /// Sessions that were superseded: where they are is known.
    pub(crate) fn take_superseded(&mut self) -> impl Iterator<Item = Route> + use<> {
        std::mem::take(&mut self.superseded).into_values()
    }

    /// A user was looked up: what is to be told where its sessions are.
    pub(crate) fn found(&mut self, user: &UserId, routes: &[Route], now: Instant) -> News {
        self.succeeded();
        let news = self.looking.remove(user).unwrap_or_default();
        let for_receipts = !news.receipts.is_empty();
        self.known.found(user, routes, for_receipts, now);
        self.bring_forward(user);
        news
    }

    /// The nodes were looked up: what is to be told to each.
    pub(crate) fn found_nodes(&mut self) -> ForAll {
        self.succeeded();
        self.looking_for_all.take().unwrap_or_default()
    }

    /// A look-up failed: it is made again, later. `random` spreads it.
    pub(crate) fn failed(&mut self, lookup: &Lookup, now: Instant, random: u64) {
        match lookup {
            Lookup::User(user) => {
                let mut news = self.looking.remove(user).unwrap_or_default();
                news.widen(user);
                self.add(user, news);
                self.bring_forward(user);
            }
            Lookup::Nodes => {
                let again = self.looking_for_all.take().unwrap_or_default();
                self.for_all.everyone |= again.everyone;
                self.for_all.hints.extend(again.hints);
                self.bound_hints();
            }
        }
        let pause = backoff(random, LOOKUP_PAUSE, MAX_LOOKUP_PAUSE, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    /// Whether nothing waits and nothing is being looked up.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.behind.is_empty()
            && self.looking.is_empty()
            && self.superseded.is_empty()
            && self.for_all == ForAll::default()
            && self.looking_for_all.is_none()
    }

    fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    fn bring_forward(&mut self, user: &UserId) {
        if let Some(entry) = self.behind.remove(user) {
            self.add(user, entry.news);
        }
    }
}
