//! Who asks a failing directory again until it answers, as chat does.

use async_trait::async_trait;
use duologue_presence::Directory;
use duologue_presence::directory::{Lease, Renewed, UserRows};
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::{PresenceError, Registered, Route};

use super::Engine;

/// Nothing fails so often.
const MAX_CALLS: usize = 50;

pub(super) struct Persistent {
    pub(super) failing: Engine,
    /// The same rows without faults: to know what a call without an answer did.
    pub(super) sound: Engine,
}

macro_rules! until_answered {
    ($call:expr) => {{
        let mut answer = $call.await;
        for _ in 1..MAX_CALLS {
            if answer.is_ok() {
                break;
            }
            answer = $call.await;
        }
        answer
    }};
}

impl Persistent {
    async fn is_in_force(&self, route: &Route) -> bool {
        let users = std::slice::from_ref(&route.user);
        let rows = self.sound.lookup(users).await.unwrap().remove(0);
        rows.routes.iter().any(|held| held.device == route.device)
    }
}

#[async_trait]
impl Directory for Persistent {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        until_answered!(self.failing.register(route))
    }

    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        let before = self.is_in_force(route).await;
        if let Ok(went) = self.failing.release(route, at).await {
            return Ok(went);
        }
        until_answered!(self.failing.release(route, at))?;
        Ok(before && !self.is_in_force(route).await)
    }

    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        let before = self.is_in_force(seen).await;
        if let Ok(went) = self.failing.remove(seen).await {
            return Ok(went);
        }
        until_answered!(self.failing.remove(seen))?;
        Ok(before && !self.is_in_force(seen).await)
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        until_answered!(self.failing.lookup(users))
    }

    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        until_answered!(self.failing.users(after, max))
    }

    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        until_answered!(self.failing.take(lease))
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        until_answered!(self.failing.renew(lease))
    }

    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        until_answered!(self.failing.forget(seen))
    }

    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        until_answered!(self.failing.leases())
    }
}
