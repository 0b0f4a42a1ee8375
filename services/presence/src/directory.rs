//! The port to an engine that keeps routes and leases, and what it promises.
//!
//! Engines: in memory, and DynamoDB. An engine compares numbers and nothing
//! else: whether a node lives is decided above this port.

use std::time::Duration;

use async_trait::async_trait;
use duologue_proto::ids::{UnixMillis, UserId};
pub use duologue_proto::presence::{Lease, Renewed};
use duologue_proto::presence::{PresenceError, Registered, Route};

/// How long "gone, number" stays: longer than any registration can be late.
pub const GONE_KEPT: Duration = Duration::from_hours(1);
/// How long a user's last seen time stays, at least.
pub const LAST_SEEN_KEPT: Duration = Duration::from_hours(30 * 24);
/// Routes in force of one user; chat's cap on sessions is far below.
pub const MAX_ROUTES_PER_USER: usize = 1_024;
/// How many sessions of a device before the one in force are named to who registers it.
pub const MAX_REPLACED: usize = 2;
/// Nodes with a lease.
pub const MAX_NODES: usize = 1_024;

/// What an engine knows of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRows {
    /// The routes in force, in order of device.
    pub routes: Vec<Route>,
    /// When the last route went; none if that was never or is forgotten.
    pub last_seen: Option<UnixMillis>,
}

/// An engine that keeps routes and leases.
///
/// Every device has one row: a route in force, or "gone, number", or nothing.
/// Each call changes at most one row, atomically. Reads are strong: they see
/// every change that was answered before they began.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Puts a route in force over a lower number, in force or gone. The very
    /// route that is in force is confirmed and changes nothing; anything else is
    /// superseded.
    ///
    /// `replaced` are the routes of the last [`MAX_REPLACED`] sessions before this one,
    /// the newest first. They are named every time: whoever asks again may have lost
    /// the first answer, whoever registered in between may never get one, and the other
    /// session must be told.
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError>;

    /// Leaves "gone, number" over a lower number or over this very route, even
    /// where nothing is: the registration may be late. A higher number, or an
    /// equal one of another session, stays. If the user's last route goes, `at`
    /// becomes the last seen time. Returns whether a route went by this call, as far
    /// as is known: nothing may hang on it.
    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError>;

    /// Cleans up: leaves "gone, number" over exactly the route that was `seen`,
    /// and otherwise changes nothing. When its user was last online is not known:
    /// if the last route goes, the last seen time is forgotten. Returns whether
    /// the route went.
    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError>;

    /// The rows of each of `users`, in their order.
    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError>;

    /// Users with at least one route in force, in order, after `after`; at most
    /// `max`.
    async fn users(&self, after: Option<&UserId>, max: usize)
    -> Result<Vec<UserId>, PresenceError>;

    /// Starts an incarnation's lease, whatever its node had before. A late one of
    /// an earlier start makes the later renewal find its lease lost.
    async fn take(&self, lease: &Lease) -> Result<(), PresenceError>;

    /// Raises the counter of this incarnation's lease. A counter that is not
    /// higher changes nothing: it is a late or repeated renewal.
    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError>;

    /// Removes a lease if it still is exactly what was `seen`. Returns whether it
    /// was.
    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError>;

    /// All leases, in order of node.
    async fn leases(&self) -> Result<Vec<Lease>, PresenceError>;
}
