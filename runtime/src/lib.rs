//! How a Duologue process lives.

pub mod admin;
pub mod auth;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod faults;
mod files;
pub mod inner;
pub mod lease;
pub mod listener;
pub mod metrics;
pub mod process;
pub mod rate;
pub mod refusal;
pub mod server;
pub mod shutdown;
pub mod task;
pub mod telemetry;
pub mod threads;
pub mod upstream;
