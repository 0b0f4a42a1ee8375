//! The program as its users meet it: a process, its ports, its files.
//!
//! Every test starts what it needs and is independent of the others. Nothing here
//! knows how the program is made, but for `two_nodes`, which proves a seam.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod hello;
mod cursors;
mod frames;
mod sends;
mod tokens;
