//! The whole of Duologue in one process, its terminal client and its operator's
//! tool: `duologue --help`.
//!
//! It wires chat's ports to history and presence; no service's rule stands here.

mod cli;
#[cfg(test)]
mod docs;
mod health;
pub mod ports;
mod secret;
mod send;
mod serve;
mod tables;
mod tail;
mod talk;
mod token;

pub use cli::{command, run};
