//! The program as its users meet it: a process, its ports, its files.
//!
//! Every test starts what it needs and is independent of the others. Nothing here
//! knows how the program is made, but for `two_nodes`, which wires several chat nodes.
//! knows how the program is made, but for `two_nodes` and `split`, which prove seams.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for some kinds of frames and takes no others"
)]

mod support;

mod admin;
mod browsers;
mod configuration;
mod connections;
mod contract;
mod conversations;
mod cursors;
mod data_directory;
mod devices;
mod drain;
mod frames;
mod gateways;
mod hello;
mod limits;
mod logs;
mod pages;
mod presence;
mod programs;
mod resume;
mod sends;
mod slow_reader;
mod split;
mod storm;
mod tls;
mod tokens;
mod traces;
mod two_nodes;
mod unary;
mod unary_sends;
