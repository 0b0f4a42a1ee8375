//! Chat's ports, wired to the services in this very process: every call is a call
//! of a function.

use async_trait::async_trait;
use duologue_chat::ports;
use duologue_history::history::History;
use duologue_presence::Presence;
use duologue_proto::history::{
    ConversationsPage, CursorAdvanced, HistoryError, ListConversations, ListMessages, MessagesPage,
    OnAppended, ReadPage, ReadRequest, Run, SyncPage, SyncRequest,
};
use duologue_proto::ids::{HistoryId, UserId};
use duologue_proto::message::Cursor;
use duologue_proto::presence::{
    Lease, NodeInfo, PresenceError, Registered, Renewed, Route, UserPresence,
};
use tokio::sync::broadcast;

/// History in this process.
pub struct LocalHistory(pub History);

#[async_trait]
impl ports::History for LocalHistory {
    async fn history_id(&self) -> Result<HistoryId, HistoryError> {
        self.0.history_id().await
    }

    async fn append(&self, run: Run, answered: OnAppended) {
        self.0.submit(run, answered).await;
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadPage, HistoryError> {
        self.0.read(request).await
    }

    async fn sync(&self, request: SyncRequest) -> Result<SyncPage, HistoryError> {
        self.0.sync(request).await
    }

    async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, HistoryError> {
        self.0.advance_cursor(user, peer, asked).await
    }

    async fn list_messages(&self, request: ListMessages) -> Result<MessagesPage, HistoryError> {
        self.0.list_messages(request).await
    }

    async fn list_conversations(
        &self,
        request: ListConversations,
    ) -> Result<ConversationsPage, HistoryError> {
        self.0.list_conversations(request).await
    }

    async fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, HistoryError> {
        self.0.peers(user, after, max).await
    }

    async fn share_conversation(&self, one: &UserId, other: &UserId) -> Result<bool, HistoryError> {
        self.0.share_conversation(one, other).await
    }
}

/// Presence in this process.
pub struct LocalPresence(pub Presence);

#[async_trait]
impl ports::Presence for LocalPresence {
    async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        self.0.register(route).await
    }

    async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        self.0.release(route).await
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        self.0.routes(user).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        self.0.presence(users).await
    }

    async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        self.0.online(after, max).await
    }

    fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.0.watch()
    }
}

#[async_trait]
impl ports::Nodes for LocalPresence {
    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        self.0.nodes().await
    }

    async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.0.take_lease(lease).await
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.0.renew_lease(lease).await
    }

    async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError> {
        self.0.forget_lease(lease).await
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError> {
        self.0.remove_route(route).await
    }
}
