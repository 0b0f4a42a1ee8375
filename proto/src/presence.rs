//! What is said between chat and presence, as typed values.
//!
//! In one process these values are handed over as they are; between processes
//! they travel as [`v1`], which `wire::presence` writes and reads.

use std::time::Duration;

use crate::ids::{DeviceId, Incarnation, NodeId, SessionId, UnixMillis, UserId};

/// The internal contract, generated from `proto/duologue/presence`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    include!("generated/duologue.presence.v1.rs");
}

/// The rising number that settles every race between sessions of one device:
/// compared first by connect number, then by re-registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectNumber {
    /// Chosen by the client; rises with every connect of the device.
    pub connect: u64,
    /// How often the node has registered this session again.
    pub registration: u32,
}

/// Where a session of a user is: one row of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The user.
    pub user: UserId,
    /// The device; it has at most one route.
    pub device: DeviceId,
    /// The number that settles races.
    pub number: ConnectNumber,
    /// The session.
    pub session: SessionId,
    /// The node that holds it.
    pub node: NodeId,
    /// That node's start.
    pub incarnation: Incarnation,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The route is in force.
    InForce {
        /// The routes of other sessions of the device that were in force before it: the
        /// one that it replaced, and the one that this had replaced, which may not have
        /// been told yet.
        replaced: Vec<Route>,
    },
    /// A route or release with a higher number, or an equal one of another
    /// session, is in force.
    Superseded,
}

/// Whether a user is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPresence {
    /// The user.
    pub user: UserId,
    /// At least one route of a living node.
    pub online: bool,
    /// When the user was last online, if that is known; none while online.
    pub last_seen: Option<UnixMillis>,
}

/// A node's right to its routes: one row per node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// Its start; a lost lease is followed by a new one.
    pub incarnation: Incarnation,
    /// Where other nodes reach it.
    pub address: String,
    /// Rises with every renewal.
    pub counter: u64,
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is in force.
    InForce,
    /// It was removed, or another incarnation of the node has taken it.
    Lost,
}

/// What is known of an incarnation of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Its counter was seen to move lately.
    Alive,
    /// Its counter rested, or its node has another incarnation.
    Dead,
    /// Neither was seen. Alive to who routes; an error to who asks for presence.
    Unknown,
}

/// A node with a lease, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// The incarnation that holds the lease.
    pub incarnation: Incarnation,
    /// Where other nodes reach it.
    pub address: String,
    /// Whether it lives.
    pub liveness: Liveness,
}

/// Why presence cannot answer; never shown as "offline".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// The directory cannot be reached, or a node's state is not known yet.
    #[error("presence is not available")]
    Unavailable {
        /// Wait at least this long.
        retry_after: Option<Duration>,
    },
    /// Of this user nothing can be said or changed: too many devices, or a row that cannot
    /// be read. Whoever asks elsewhere hears the same, and of others it says nothing.
    #[error("presence of this user is not available")]
    OfUser,
}

impl PresenceError {
    /// How long to wait at least, if that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after } => *retry_after,
            Self::OfUser => None,
        }
    }
}
