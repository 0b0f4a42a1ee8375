//! Holds one stream per device: stores, acknowledges, orders and relays.
//!
//! A message is stored, then acknowledged, then announced; see `session` for the
//! rules, `connection` for the task that performs them, and `session::sends` for
//! the place where a message is acknowledged. It must not own what was said: that
//! is history's.

mod append;
mod chat;
pub mod config;
mod connection;
mod core;
mod door;
pub mod frame;
mod grpc;
mod hints;
mod inbox;
pub mod limits;
mod metrics;
mod node;
mod outbox;
mod people;
pub mod ports;
mod registry;
mod relay;
pub mod remote;
mod router;
pub mod serve;
pub mod session;
mod signal;
#[cfg(test)]
mod tests;
mod timer;

pub use chat::Chat;
pub use core::{ChatConfig, OtherNodes, Parts, Visibility};
pub use grpc::ChatServer;
pub use relay::RelayServer;
