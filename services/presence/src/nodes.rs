//! Leases and nodes, as chat's nodes ask for them.

use duologue_proto::presence::{Lease, NodeInfo, PresenceError, Renewed, Route};
use tokio::time::Instant;

use crate::presence::Presence;

impl Presence {
    /// Starts an incarnation's lease, whatever its node had before.
    pub async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.directory().take(lease).await
    }

    /// Raises the counter of a lease.
    pub async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.directory().renew(lease).await
    }

    /// Removes a lease if it is exactly this one. Returns whether it was.
    pub async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError> {
        self.directory().forget(lease).await
    }

    /// Every node with a lease, and whether it lives; in order of node. What is said
    /// was read after the call.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        let began = Instant::now();
        let leases = self.observe_leases().await?;
        let nodes = leases.into_iter().map(|lease| NodeInfo {
            liveness: self.liveness_of(&lease.node, &lease.incarnation, began),
            node: lease.node,
            incarnation: lease.incarnation,
            address: lease.address,
        });
        Ok(nodes.collect())
    }

    /// Removes a route that its node does not know, if it is exactly this one.
    /// Returns whether it was.
    pub async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError> {
        let removed = self.remove_dead(route).await;
        self.tell_changes(&route.user).await;
        removed
    }
}
