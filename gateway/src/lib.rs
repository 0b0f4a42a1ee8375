//! The way into Duologue for browsers.

mod upstream;
pub mod websocket;

pub use upstream::Upstream;
