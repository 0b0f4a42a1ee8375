//! Services whose requests are counted apart by what they are for.

use async_trait::async_trait;
use duologue::ports::LocalHistory;
use duologue_chat::ports;
use duologue_presence::directory::{Lease, Renewed, UserRows};
use duologue_presence::{Directory, DynamoDirectory};
use duologue_proto::history::{
    ConversationsPage, CursorAdvanced, HistoryError, ListConversations, ListMessages, MessagesPage,
    OnAppended, ReadPage, ReadRequest, Run, SyncPage, SyncRequest,
};
use duologue_proto::ids::{HistoryId, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_proto::presence::{PresenceError, Registered, Route};

/// One history, two replicas: a session syncs by time, not by message.
pub(crate) struct DividedHistory {
    pub(crate) messages: LocalHistory,
    pub(crate) syncs: LocalHistory,
}

#[async_trait]
impl ports::History for DividedHistory {
    async fn history_id(&self) -> Result<HistoryId, HistoryError> {
        self.messages.history_id().await
    }

    async fn append(&self, run: Run, answered: OnAppended) {
        self.messages.append(run, answered).await;
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadPage, HistoryError> {
        self.messages.read(request).await
    }

    async fn sync(&self, request: SyncRequest) -> Result<SyncPage, HistoryError> {
        self.syncs.sync(request).await
    }

    async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, HistoryError> {
        self.messages.advance_cursor(user, peer, asked).await
    }

    async fn list_messages(&self, request: ListMessages) -> Result<MessagesPage, HistoryError> {
        self.messages.list_messages(request).await
    }

    async fn list_conversations(
        &self,
        request: ListConversations,
    ) -> Result<ConversationsPage, HistoryError> {
        self.messages.list_conversations(request).await
    }

    async fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, HistoryError> {
        self.messages.peers(user, after, max).await
    }

    async fn share_conversation(&self, one: &UserId, other: &UserId) -> Result<bool, HistoryError> {
        self.messages.share_conversation(one, other).await
    }
}

/// One table, two ways to it: leases cost by time, too.
pub(crate) struct DividedDirectory {
    pub(crate) routes: DynamoDirectory,
    pub(crate) leases: DynamoDirectory,
}

#[async_trait]
impl Directory for DividedDirectory {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        self.routes.register(route).await
    }

    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        self.routes.release(route, at).await
    }

    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        self.routes.remove(seen).await
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        self.routes.lookup(users).await
    }

    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        self.routes.users(after, max).await
    }

    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.leases.take(lease).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.leases.renew(lease).await
    }

    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        self.leases.forget(seen).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        self.leases.leases().await
    }
}
