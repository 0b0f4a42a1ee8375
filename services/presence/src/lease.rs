//! Which node is alive: the rules of leases, without I/O and without a clock.
//!
//! A node raises a counter; an [`Observer`] watches it rest or move on its own
//! monotonic clock. No two clocks are ever compared. The node itself gives its
//! lease up before any observer can call it dead: `duologue_runtime::lease`.

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_proto::ids::{Incarnation, NodeId};
use duologue_proto::presence::Lease;
pub use duologue_proto::presence::Liveness;
use duologue_runtime::lease::{DEAD_AFTER, ReadTime};
use tokio::time::Instant;

/// How often an observer reads the leases.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// So long after the last moment at which a node lived for certain it is no
/// longer known to be alive, whether or not reads succeed. Below the 15 s after
/// which nobody of a killed node may be shown online; above [`DEAD_AFTER`] and
/// two polls, so that it only shows when reads fail or are slow.
pub const FADES_AFTER: Duration = Duration::from_millis(14_500);
/// Rest is counted only between reads that succeeded and are no further apart: two
/// polls, and some time for them to be late. Who could not read for longer may find
/// that the nodes could not renew either, and that proves nothing.
pub const READS_APART: Duration = Duration::from_secs(5);
/// So long a node that took a new incarnation has to register its sessions again,
/// before those of the incarnation before are called dead.
pub const REPLACED_GRACE: Duration = Duration::from_secs(5);
/// So long after its counter came to rest a lease is removed: nobody waits for that
/// node any more, and there is room for [`crate::directory::MAX_NODES`].
pub const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// What the reads of leases have shown so far. As large as the last read.
#[derive(Debug, Default)]
pub struct Observer {
    last_read: Option<ReadTime>,
    nodes: BTreeMap<NodeId, Observed>,
}

#[derive(Debug)]
struct Observed {
    lease: Lease,
    /// The end of the read that first showed this counter.
    resting_since: Instant,
    /// The beginning of the last read that showed the counter before: it was
    /// raised after that. None: it was not seen to move.
    lived_at: Option<Instant>,
    last_read_began: Instant,
    dead: bool,
    /// Incarnations before this one. From a read that begins then or later on they are
    /// dead; until then they are unknown.
    replaced: Vec<(Incarnation, Instant)>,
    /// The same of those that were never seen.
    others_over_at: Instant,
}

impl Observer {
    /// Takes in a read of all leases that has just succeeded, and judges. A read
    /// that failed is not an observation: it proves nothing.
    ///
    /// The rest that two reads prove lies between the end of the first and the
    /// beginning of the second.
    pub fn observe(&mut self, read: ReadTime, leases: &[Lease]) {
        if self.last_read.is_some_and(|last| read.began < last.began) {
            // Overtaken by a later read: nothing to learn.
            return;
        }
        let apart = |last: ReadTime| read.began.saturating_duration_since(last.ended);
        let gap = self.last_read.is_none_or(|last| apart(last) > READS_APART);
        self.last_read = Some(read);
        let mut before = std::mem::take(&mut self.nodes);
        for lease in leases {
            let observed = match before.remove(&lease.node) {
                Some(seen) if seen.lease.incarnation == lease.incarnation => {
                    seen.again(read, lease, gap)
                }
                Some(seen) => seen.replaced_by(read, lease, gap),
                None if gap => Observed::first(read, lease, read.ended + REPLACED_GRACE),
                // The last read has shown that none is left.
                None => Observed::first(read, lease, read.began),
            };
            self.nodes.insert(lease.node.clone(), observed);
        }
    }

    /// What is known of an incarnation that a row names; `row_read_at` is when
    /// that row was there to be read.
    ///
    /// A node takes its lease before it registers any route. So if leases that
    /// were read after the row show another incarnation, or none, this one is
    /// over. If they were read before, it may be newer.
    pub fn liveness(
        &self,
        node: &NodeId,
        incarnation: &Incarnation,
        row_read_at: Instant,
        now: Instant,
    ) -> Liveness {
        match self.nodes.get(node) {
            Some(seen) if seen.lease.incarnation == *incarnation => seen.liveness(now),
            seen if self.has_read_since(row_read_at)
                && seen.is_none_or(|seen| self.has_read_since(seen.over_at(incarnation))) =>
            {
                Liveness::Dead
            }
            Some(_) | None => Liveness::Unknown,
        }
    }

    fn has_read_since(&self, time: Instant) -> bool {
        self.last_read.is_some_and(|last| last.began >= time)
    }

    /// Whether an incarnation that was known to be alive is over: its counter
    /// rested, or the reads show another one in its place for long enough, or none.
    pub fn is_over(&self, node: &NodeId, incarnation: &Incarnation) -> bool {
        self.nodes.get(node).is_none_or(|seen| {
            if seen.lease.incarnation == *incarnation {
                seen.dead
            } else {
                self.has_read_since(seen.over_at(incarnation))
            }
        })
    }

    /// When a read is due that would find the next incarnation dead, if its counter
    /// rests until then or it was replaced: the first such time after `time`.
    pub fn next_death(&self, time: Instant) -> Option<Instant> {
        let living = self.nodes.values().filter(|seen| !seen.dead);
        let resting = living.map(|seen| seen.resting_since + DEAD_AFTER);
        let replaced = self.nodes.values().flat_map(|seen| &seen.replaced);
        let replaced = replaced.map(|(_, over)| *over);
        resting.chain(replaced).filter(|death| *death > time).min()
    }

    /// The lease that an incarnation still has though it is dead.
    pub fn left_behind(&self, node: &NodeId, incarnation: &Incarnation) -> Option<Lease> {
        let seen = self.nodes.get(node);
        let seen = seen.filter(|seen| seen.dead && seen.lease.incarnation == *incarnation);
        seen.map(|seen| seen.lease.clone())
    }

    /// Leases to be removed, by exactly what was seen. A node that comes back all the
    /// same finds its lease lost, and what it registered is dead with or without it.
    pub fn forgettable(&self) -> Vec<Lease> {
        let rested = |seen: &&Observed| {
            let rest = seen
                .last_read_began
                .saturating_duration_since(seen.resting_since);
            seen.dead && rest >= FORGOTTEN_AFTER
        };
        let resting = self.nodes.values().filter(rested);
        resting.map(|seen| seen.lease.clone()).collect()
    }

    /// Whether reading the leases again would tell more about an incarnation:
    /// the last read does not show it.
    pub fn is_unfamiliar(&self, node: &NodeId, incarnation: &Incarnation) -> bool {
        let seen = self.nodes.get(node);
        seen.is_none_or(|seen| seen.lease.incarnation != *incarnation)
    }
}

impl Observed {
    fn first(read: ReadTime, lease: &Lease, others_over_at: Instant) -> Self {
        Self {
            replaced: Vec::new(),
            others_over_at,
            lease: lease.clone(),
            resting_since: read.ended,
            lived_at: None,
            last_read_began: read.began,
            dead: false,
        }
    }

    /// `gap`: what happened since the read before is not known.
    fn again(self, read: ReadTime, lease: &Lease, gap: bool) -> Self {
        if lease.counter > self.lease.counter {
            return Self {
                lived_at: Some(self.last_read_began),
                replaced: self.replaced,
                ..Self::first(read, lease, self.others_over_at)
            };
        }
        let resting_since = if gap && !self.dead {
            read.ended
        } else {
            self.resting_since
        };
        let rested = read.began.saturating_duration_since(resting_since);
        Self {
            resting_since,
            dead: self.dead || rested >= DEAD_AFTER,
            last_read_began: read.began,
            ..self
        }
    }

    /// A read shows another incarnation in the place of this one, which is over a little
    /// later, but not later than without that.
    fn replaced_by(self, read: ReadTime, lease: &Lease, gap: bool) -> Self {
        let grace = read.ended + REPLACED_GRACE;
        let over = if self.dead {
            read.began
        } else if gap {
            grace
        } else {
            grace.min(self.resting_since + DEAD_AFTER)
        };
        let mut replaced = self.replaced;
        replaced.retain(|(_, over)| *over > read.began);
        replaced.push((self.lease.incarnation, over));
        let others = if gap { grace } else { self.others_over_at };
        Self {
            replaced,
            ..Self::first(read, lease, others)
        }
    }

    fn over_at(&self, other: &Incarnation) -> Instant {
        let mut replaced = self.replaced.iter();
        let known = replaced.find(|(incarnation, _)| incarnation == other);
        known.map_or(self.others_over_at, |(_, over)| *over)
    }

    fn liveness(&self, now: Instant) -> Liveness {
        let fresh = |at| now.saturating_duration_since(at) <= FADES_AFTER;
        if self.dead {
            Liveness::Dead
        } else if self.lived_at.is_some_and(fresh) {
            Liveness::Alive
        } else {
            Liveness::Unknown
        }
    }
}
