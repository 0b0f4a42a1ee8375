//! WebSockets against the whole system in this process, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for some kinds of frames and takes no others"
)]

mod bad_input;
mod client;
mod memory;
mod sessions;
mod system;
