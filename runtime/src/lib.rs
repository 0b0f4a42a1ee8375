//! How a Duologue process lives.

pub mod clock;
