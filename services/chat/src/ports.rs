//! What chat needs of the services beside it.
//!
//! In one process `duologue` wires these ports to the services directly; in a
//! split system they are the gRPC clients of [`crate::remote`]. Chat knows neither.

use std::sync::Arc;

use async_trait::async_trait;
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
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

/// History: the one owner of what was said.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Which history this is.
    async fn history_id(&self) -> Result<HistoryId, HistoryError>;

    /// Takes a run to be stored; `answered` is called when it is settled. Cancelling
    /// the call leaves every draft either stored or not, never half-done, and what is
    /// stored is answered.
    async fn append(&self, run: Run, answered: OnAppended);

    /// Reads messages in order, strongly.
    async fn read(&self, request: ReadRequest) -> Result<ReadPage, HistoryError>;

    /// Lists what changed for a user.
    async fn sync(&self, request: SyncRequest) -> Result<SyncPage, HistoryError>;

    /// Moves a user's cursor forward.
    async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, HistoryError>;

    /// Lists messages for a person to read.
    async fn list_messages(&self, request: ListMessages) -> Result<MessagesPage, HistoryError>;

    /// Lists conversations by recency.
    async fn list_conversations(
        &self,
        request: ListConversations,
    ) -> Result<ConversationsPage, HistoryError>;

    /// The users who share a conversation with `user`, in order, after `after`;
    /// at most `max`.
    async fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, HistoryError>;

    /// Whether two users share a conversation.
    async fn share_conversation(&self, one: &UserId, other: &UserId) -> Result<bool, HistoryError>;
}

/// Presence: which node holds which session.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Puts a route in force, unless a higher number is. Registering the same
    /// route again changes nothing.
    async fn register(&self, route: Route) -> Result<Registered, PresenceError>;

    /// Removes a route, unless a higher number is in force.
    async fn release(&self, route: &Route) -> Result<(), PresenceError>;

    /// The routes of a user. Routes of unknown nodes are among them.
    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError>;

    /// The presence of each of `users`, in their order.
    async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError>;

    /// Users who are online, in order, after `after`; at most `max`.
    async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError>;

    /// Changes from now on. A receiver that falls behind is told so, and asks. One
    /// that is closed has missed changes too: it watches anew, and then asks.
    fn watch(&self) -> broadcast::Receiver<UserPresence>;
}

/// The chat nodes: their leases, and where they are.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// Every node with a lease, in order of node. What is said was read after the
    /// call.
    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError>;

    /// Starts an incarnation's lease, whatever its node had before.
    async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError>;

    /// Raises the counter of a lease.
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError>;

    /// Removes a lease if it is exactly this one. Returns whether it was.
    async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError>;

    /// Removes a route if it is exactly this one. Returns whether it was.
    async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError>;
}

/// An address that cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of a node")]
pub struct InvalidAddress;

/// The way to another node. It connects when it is used.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The way over a connection of tonic's.
pub fn channel(transport: tonic::transport::Channel) -> Channel {
    let failed = |error: tonic::transport::Error| Status::from_error(error.into());
    BoxCloneSyncService::new(transport.map_err(failed))
}

/// Makes the way to the node at an address, with whatever the internal network wants
/// of a caller.
pub type Dial = Arc<dyn Fn(&str) -> Result<Channel, InvalidAddress> + Send + Sync>;
