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
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::{PresenceError, Registered, Route, UserPresence};
use tokio::sync::broadcast;

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

/// What another node's sessions should know.
#[derive(Debug, Clone)]
pub enum Announcement {
    /// Messages of one sender in one conversation are durable. Never empty.
    Messages(Arc<[Envelope]>),
    /// A user's cursor in the conversation with `peer` moved.
    Cursor {
        /// Whose cursor.
        user: UserId,
        /// The other user.
        peer: UserId,
        /// Where it is.
        cursor: Cursor,
    },
    /// The session of this route was replaced by a newer one of its device.
    Superseded(Box<Route>),
}

/// The other chat nodes. Absent where there is one.
///
/// What it is given is durable already, so it must look up routes only after the
/// call: an earlier look-up may miss a session that registers in between.
pub trait Relay: Send + Sync + 'static {
    /// Takes an announcement for every other node that holds a session of the
    /// users concerned. Returns at once; when there is no room, a message becomes
    /// a raised target, never silence.
    fn relay(&self, announcement: Announcement);
}
