//! Maps users to the nodes that their devices are connected to.
//!
//! [`Presence`] is what chat asks. Rows and leases live behind the port
//! [`Directory`]; which of them to believe is decided in [`lease`]. Nothing here
//! knows what a message is.

mod board;
mod config;
pub mod directory;
pub mod dynamodb;
mod expiring;
mod grpc;
pub mod lease;
pub mod memory;
mod nodes;
mod patrol;
pub mod presence;
pub mod serve;

pub use directory::Directory;
pub use dynamodb::DynamoDirectory;
pub use grpc::PresenceServer;
pub use memory::MemoryDirectory;
pub use presence::{Nodes, Presence};
