//! The way into Duologue for browsers.

mod upstream;

pub use upstream::Upstream;
