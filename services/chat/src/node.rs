//! The node's right to its routes: a lease, renewed for as long as the node lives.
//!
//! A node that cannot renew gives its lease up before anybody else could call it dead
//! (`duologue_runtime::lease`). It then takes a new incarnation and registers its live
//! sessions again, so that none is dropped and none goes on as if nothing had
//! happened: each syncs once its route is confirmed. With one node none of this runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::ids::Incarnation;
use duologue_proto::presence::{Lease, Renewed};
use duologue_runtime::backoff::full_jitter;
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::lease::{Holder, RENEW_INTERVAL, ReadTime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::ports::Nodes;

/// A question about a lease takes at most so long.
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause before a lease that could not be taken is tried again.
pub const TAKE_PAUSE: Duration = Duration::from_secs(1);
/// After a new incarnation was taken the live sessions are registered again within
/// this time, one after the other.
pub const REREGISTER_SPREAD: Duration = Duration::from_secs(3);

/// Which start of the node this is, and whether it may still count on its lease.
#[derive(Debug)]
pub(crate) struct Tenure {
    held: Mutex<Held>,
    left: watch::Sender<bool>,
}

#[derive(Debug)]
struct Held {
    incarnation: Incarnation,
    /// None where there is one node, and until the first lease is taken.
    holder: Option<Holder>,
}

impl Held {
    fn holds(&mut self, now: Instant) -> bool {
        let holder = self.holder.as_mut();
        holder.is_some_and(|holder| !holder.is_lost(now))
    }
}

impl Tenure {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self {
            held: Mutex::new(Held {
                incarnation,
                holder: None,
            }),
            left: watch::Sender::new(false),
        }
    }

    /// The incarnation that sessions register with.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.held().incarnation.clone()
    }

    /// Whether the node holds the lease of this very incarnation.
    pub(crate) fn is_held_by(&self, incarnation: &Incarnation, now: Instant) -> bool {
        let mut held = self.held();
        held.incarnation == *incarnation && held.holds(now)
    }

    /// Whether the node may count on its lease.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.held().holds(now)
    }

    /// Returns when the node has left.
    pub(crate) async fn left(&self) {
        // It errs only when the sender is gone, which is here.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    fn renewal(&self) -> Option<Lease> {
        self.held().holder.as_mut().map(|one| one.renewal().clone())
    }

    fn answered(&self, renewal: ReadTime, renewed: Renewed) {
        if let Some(holder) = &mut self.held().holder {
            holder.answered(renewal, renewed);
        }
    }

    fn take(&self, lease: Lease, began: Instant) {
        *self.held() = Held {
            incarnation: lease.incarnation.clone(),
            holder: Some(Holder::new(lease, began)),
        };
    }

    fn lease(&self) -> Option<Lease> {
        let held = self.held();
        held.holder.as_ref().map(|holder| holder.lease().clone())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change is a single one, so a panic leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a node's lease.
pub(crate) struct Keeper {
    core: Arc<Core>,
    nodes: Arc<dyn Nodes>,
    /// Where other nodes reach this one.
    address: String,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, nodes: Arc<dyn Nodes>, address: String) -> Self {
        Self {
            core,
            nodes,
            address,
        }
    }

    /// Takes the first lease, before any session registers. If that fails, [`Self::run`]
    /// tries on, and registers again whoever came meanwhile.
    pub(crate) async fn start(&self) {
        let incarnation = self.core.tenure.incarnation();
        if !self.take(incarnation).await {
            tracing::warn!("no lease was taken: other nodes do not find this one yet");
        }
    }

    /// Renews, and regains, until `stop`; then gives the lease back.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        tokio::pin!(stopped);
        loop {
            // One that is lost is not renewed: others may have called it dead.
            let pause = if self.core.tenure.is_held(Instant::now()) {
                RENEW_INTERVAL
            } else if self.regain().await {
                continue;
            } else {
                self.take_pause()
            };
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = tokio::time::sleep(pause) => {}
            }
            if self.core.tenure.is_held(Instant::now()) {
                self.renew().await;
            }
        }
        self.forget().await;
        self.core.tenure.left.send_replace(true);
    }

    async fn renew(&self) {
        let Some(lease) = self.core.tenure.renewal() else {
            return;
        };
        let began = Instant::now();
        let renewed = tokio::time::timeout(LEASE_TIMEOUT, self.nodes.renew_lease(&lease)).await;
        let ended = Instant::now();
        match renewed {
            Ok(Ok(renewed)) => {
                self.core
                    .tenure
                    .answered(ReadTime { began, ended }, renewed);
                if renewed == Renewed::Lost && ended < began + LEASE_TIMEOUT {
                    tracing::warn!(
                        "the lease was lost: it ran out, or another process has this node's name"
                    );
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
            Err(_) => tracing::warn!("the lease was not renewed in time"),
        }
    }

    /// Tries once for a new incarnation. The old one is over: what registers with it
    /// until then is found by the next try. Returns whether it was taken.
    async fn regain(&self) -> bool {
        let Ok(incarnation) = Incarnation::parse(&self.core.random.id()) else {
            return false;
        };
        if !self.take(incarnation.clone()).await {
            return false;
        }
        tracing::warn!(
            sessions = self.core.registry.len(),
            "a new lease was taken: sessions are registered again"
        );
        // Whoever enters the table from now on finds the new incarnation itself.
        self.core
            .registry
            .register_again(&incarnation, REREGISTER_SPREAD);
        // Other nodes may have named users to look at, and took this one for dead.
        self.core
            .registry
            .tell_everyone(|handle| handle.inbox.presence_lost());
        true
    }

    fn take_pause(&self) -> Duration {
        let pause = full_jitter(self.core.random.number(), TAKE_PAUSE, TAKE_PAUSE, 0);
        pause.max(Duration::from_millis(1))
    }

    /// Takes a lease; returns whether the node may count on it.
    async fn take(&self, incarnation: Incarnation) -> bool {
        let lease = Lease {
            node: self.core.config.node.clone(),
            incarnation,
            address: self.address.clone(),
            counter: 1,
        };
        let began = Instant::now();
        let taken = tokio::time::timeout(LEASE_TIMEOUT, self.nodes.take_lease(&lease)).await;
        if !matches!(taken, Ok(Ok(()))) {
            return false;
        }
        self.core.tenure.take(lease, began);
        self.core.tenure.is_held(Instant::now())
    }

    /// Gives the lease back. One that stays, since its last renewal has no outcome,
    /// runs out by itself.
    async fn forget(&self) {
        let Some(lease) = self.core.tenure.lease() else {
            return;
        };
        let forgotten = tokio::time::timeout(LEASE_TIMEOUT, self.nodes.forget_lease(&lease)).await;
        tracing::debug!(?forgotten, "the lease was given back");
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::NodeId;

    use super::*;

    fn lease(incarnation: &str) -> Lease {
        Lease {
            node: NodeId::parse("one").unwrap(),
            incarnation: Incarnation::parse(incarnation).unwrap(),
            address: "127.0.0.1:1".to_owned(),
            counter: 1,
        }
    }

    #[test]
    fn a_node_that_was_frozen_counts_on_nothing_when_it_wakes_and_on_its_next_lease_only() {
        let (first, second) = (lease("first"), lease("second"));
        let start = Instant::now();
        let tenure = Tenure::new(first.incarnation.clone());
        assert!(!tenure.is_held(start), "no lease was taken");
        tenure.take(first.clone(), start);
        assert!(tenure.is_held_by(&first.incarnation, start + Duration::from_secs(9)));
        // Nothing ran in between, so that nobody could have noticed.
        let woken = start + Duration::from_secs(20);
        assert!(!tenure.is_held_by(&first.incarnation, woken));
        // Not even if the renewal that was under way is confirmed now.
        let (began, ended) = (start + Duration::from_secs(2), woken);
        tenure.answered(ReadTime { began, ended }, Renewed::InForce);
        assert!(!tenure.is_held(woken));
        tenure.take(second.clone(), woken);
        assert!(!tenure.is_held_by(&first.incarnation, woken));
        assert!(tenure.is_held_by(&second.incarnation, woken));
    }
}
