//! Presence with calls that take time, as over a wire: so registrations and releases
//! overtake one another.

use async_trait::async_trait;
use duologue::ports::LocalPresence;
use duologue_chat::ports;
use duologue_proto::ids::UserId;
use duologue_proto::presence::{PresenceError, Registered, Route, UserPresence};
use tokio::sync::broadcast;

use crate::store::Pace;

/// Presence whose calls take time.
pub(crate) struct SlowPresence {
    pub(crate) presence: LocalPresence,
    pub(crate) pace: Pace,
}

#[async_trait]
impl ports::Presence for SlowPresence {
    async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        self.pace.around(self.presence.register(route)).await
    }

    async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        self.pace.around(self.presence.release(route)).await
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        self.pace.around(self.presence.routes(user)).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        self.pace.around(self.presence.presence(users)).await
    }

    async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        self.pace.around(self.presence.online(after, max)).await
    }

    fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.presence.watch()
    }
}
