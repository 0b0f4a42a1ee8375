//! A node's own view of its lease: the rule by which it gives the lease up, without
//! I/O and without a clock.
//!
//! It gives up before any observer can call it dead, so that a node that was stopped
//! for a while comes back as a new incarnation, and never as an old one whose routes
//! may have been cleaned up. Who observes judges by the same times.

use std::time::Duration;

use duologue_proto::presence::{Lease, Renewed};
use tokio::time::Instant;

/// How often a node raises its counter.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// A counter that rested this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

/// When a call was made, on the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTime {
    /// Before it was sent.
    pub began: Instant,
    /// After it was answered.
    pub ended: Instant,
}

/// A node's own view of its lease.
#[derive(Debug)]
pub struct Holder {
    lease: Lease,
    /// The beginning of the last renewal that was confirmed: the counter was
    /// raised then or later.
    confirmed: Instant,
    lost: bool,
}

impl Holder {
    /// The holder of a lease that was taken by a call that began at `began`.
    pub fn new(lease: Lease, began: Instant) -> Self {
        Self {
            lease,
            confirmed: began,
            lost: false,
        }
    }

    /// The lease as the last renewal has it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The lease to renew with next. Every call raises the counter, so that a
    /// renewal of unknown outcome is never taken for the next one.
    pub fn renewal(&mut self) -> &Lease {
        self.lease.counter = self.lease.counter.saturating_add(1);
        &self.lease
    }

    /// Takes in the answer to a renewal. A renewal that is confirmed after the
    /// lease could have been called dead does not bring it back.
    pub fn answered(&mut self, renewal: ReadTime, renewed: Renewed) {
        self.lost |= renewed == Renewed::Lost || self.is_lost(renewal.ended);
        self.confirmed = self.confirmed.max(renewal.began);
    }

    /// Whether the lease is lost: time for a new incarnation, which registers
    /// the live sessions again. For good.
    pub fn is_lost(&mut self, now: Instant) -> bool {
        self.lost |= now.saturating_duration_since(self.confirmed) >= DEAD_AFTER;
        self.lost
    }
}
