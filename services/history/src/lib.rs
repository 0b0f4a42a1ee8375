//! Owns the persistence of conversations: append, sync, cursors, paging.

mod append;
pub mod committer;
mod config;
mod cursors;
pub mod dynamodb;
pub mod embedded;
mod error;
mod grpc;
pub mod history;
pub mod limits;
mod list;
pub mod memory;
mod read;
mod rows;
pub mod serve;
pub mod store;
mod sync;
pub mod time;
mod tokens;
mod watch;

pub use grpc::HistoryServer;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod tests;
