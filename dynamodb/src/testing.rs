//! DynamoDB in the process, with faults: for tests only.
//!
//! [`Engine`] holds the tables, [`Connector`] stands where the SDK's connections do and
//! lets requests fail in every way that a network can. The engine ignores
//! `ConsistentRead` and never throttles, so both are the connector's.

mod connector;
mod engine;
mod faults;
mod ledger;

pub use connector::Connector;
pub use engine::{Engine, MAX_LATE};
pub use faults::{Fault, Faults};
pub use ledger::{Counted, Ledger};

#[cfg(test)]
mod tests;
