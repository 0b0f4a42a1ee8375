//! The gateway on a socket, in front of the public stack: what browsers send, what
//! they get, and what they must not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod dev_token;
mod doors;
mod pages;
mod stub;
mod support;
