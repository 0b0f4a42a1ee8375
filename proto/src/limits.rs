//! The limits of the contract: what both sides of any wire agree on.
//!
//! Limits of a deployment (rates, sessions per user) are configuration of the
//! services. `docs/limits.md` lists all of them, and a test compares.

use std::time::Duration;

/// Longest user id, in bytes.
pub const MAX_USER_ID_BYTES: usize = 64;
/// Longest message id or device id, in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 64;
/// Longest text of a message, in bytes of UTF-8; a flag lowers it.
pub const MAX_TEXT_BYTES: usize = 8_192;
/// Longest encoded body between services, in bytes: a text and what is around it.
pub const MAX_BODY_BYTES: usize = MAX_TEXT_BYTES + 256;
/// Largest request or frame up, in bytes, as gRPC counts it.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Largest response or frame down, in bytes, as gRPC counts it.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// Bytes of envelopes on one page; the rest of a response is smaller.
pub const MAX_PAGE_BYTES: usize = 48 * 1024;
/// Positions, and likewise cursors, in one `Hello`.
pub const MAX_POSITIONS: usize = 500;
/// Longest client name, client version or feature in `Hello`, in bytes.
pub const MAX_CLIENT_NAME_BYTES: usize = 64;
/// Features in one `Hello`.
pub const MAX_FEATURES: usize = 16;
/// Longest sync or page token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 512;
/// How many messages after `after_seq` are searched for an earlier copy.
pub const MAX_SEARCH: u64 = 256;
/// Sends without an answer, after which the server stops reading a stream.
pub const MAX_SENDS_IN_FLIGHT: usize = 256;
/// Deferred messages that one session keeps in order.
pub const MAX_DEFERRED: usize = 1_024;
/// Conversations whose state one session keeps.
pub const MAX_SESSION_CONVERSATIONS: usize = 10_000;

/// Largest message between services, in bytes: a run of [`MAX_RUN_DRAFTS`] with
/// the longest bodies.
pub const MAX_INTERNAL_BYTES: usize = 4 * 1024 * 1024;
/// Drafts of one run.
pub const MAX_RUN_DRAFTS: usize = MAX_SENDS_IN_FLIGHT;
/// Runs without an answer on one stream, after which history stops reading it.
pub const MAX_RUNS_IN_FLIGHT: usize = 1_024;
/// Users that one question between services names, or one answer lists.
pub const MAX_INTERNAL_USERS: usize = 1_024;
/// Longest address of a node, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Messages on one page if the request does not say.
pub const DEFAULT_MESSAGES_PAGE: usize = 50;
/// Messages on one page at most.
pub const MAX_MESSAGES_PAGE: usize = 200;
/// Conversations on one page if the request does not say.
pub const DEFAULT_CONVERSATIONS_PAGE: usize = 50;
/// Conversations on one page at most.
pub const MAX_CONVERSATIONS_PAGE: usize = 100;
/// Users on one page if the request does not say.
pub const DEFAULT_USERS_PAGE: usize = 50;
/// Users on one page at most.
pub const MAX_USERS_PAGE: usize = 200;

/// How long a stream may wait before its `Hello`.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A heartbeat is sent after this long without another frame down.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);
/// A connect number may be at most this far ahead of the server's clock.
pub const MAX_CONNECT_NUMBER_AHEAD: Duration = Duration::from_hours(24);
/// Cursor moves are written at most this often per conversation and session.
pub const CURSOR_WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// A session syncs again after this long, ± 20 %.
pub const RESYNC_INTERVAL: Duration = Duration::from_mins(10);
/// A sync token older than this is treated as none.
pub const MAX_SYNC_TOKEN_AGE: Duration = Duration::from_hours(30 * 24);
