//! The limits of the gateway that no flag sets.

use std::time::Duration;

pub use crate::websocket::{
    CLOSE_TIMEOUT, DOWN_BYTES, FLUSH_TIMEOUT, MAX_MESSAGE_BYTES, MESSAGE_TIMEOUT, PING_INTERVAL,
    PING_TIMEOUT, UP_BYTES,
};

/// How long the head of a request may take over HTTP/1.1, and how long a connection
/// may wait for the next one.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a request's head over HTTP/1.1; over HTTP/2 it is
/// [`duologue_runtime::server::MAX_HEADER_LIST_BYTES`].
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request over HTTP/1.1.
pub const MAX_HEADERS: usize = 64;
/// How long a chat node may take to open a stream; longer than the request may take.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How often it is logged at most that one takes longer.
pub(crate) const OPEN_WARNING_INTERVAL: Duration = Duration::from_mins(1);
/// How long the body of a request may take, but for native streams.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that takes nothing of what is written to it for this long is closed.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(40);
/// Bytes of the body of a request for a development token.
pub const MAX_DEV_TOKEN_REQUEST_BYTES: usize = 1024;
/// How long a development token of the page lives.
pub const DEV_TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// How long a browser may remember what CORS allows.
pub const CORS_MAX_AGE: Duration = Duration::from_hours(2);
