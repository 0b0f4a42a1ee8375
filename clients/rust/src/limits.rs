//! The client's own limits, all in one place; those of the contract are
//! `duologue_proto::limits`.

use std::time::Duration;

/// Messages that are not settled, at most; sending more is refused.
pub const MAX_OUTBOX: usize = 1_024;
/// Events that wait for the application, before reading pauses.
pub const EVENT_QUEUE: usize = 256;
/// Commands that wait for the driver, before callers wait.
pub const COMMAND_QUEUE: usize = 64;
/// Frames up that wait for the connection.
pub const FRAME_QUEUE: usize = 64;
/// Commands taken at once, so that one write to disk serves all of them.
pub const COMMAND_BATCH: usize = 64;
/// Conversations whose state is kept in memory; the least active are forgotten.
pub const MAX_CONVERSATIONS: usize = 10_000;
/// The encoded positions and cursors of one `Hello`; the rest of it is smaller
/// than what the contract's frame limit leaves.
pub const MAX_HELLO_ITEMS_BYTES: usize = 60 * 1024;

/// Reconnecting backs off from this delay ...
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// ... doubling up to this one; each delay is drawn between zero and that.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A server's "retry after" counts up to this long.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);
/// A deferred message without a delay of its own is sent again after this long.
pub const RESEND_DELAY: Duration = Duration::from_millis(100);
/// A refused cursor move, or a failed look through a conversation, is tried again
/// after this long.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Cursor moves go up at most this often; those between are sent as one.
pub const CURSOR_INTERVAL: Duration = Duration::from_millis(50);

/// TCP and TLS must be established within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The token source and the response headers must come within this time each.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// `Welcome` must come within this time.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// A unary call must be answered within this time.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be on its way on one stream while the application is slow ...
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// ... and on the whole connection, so that calls go on beside a stalled stream. h2 takes
/// more unread small frames than half of this, each counted as 256 bytes, for an attack
/// and closes the connection: a stream full of the smallest ones is less.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// HTTP/2 PING is sent this often, so that a half-open connection is noticed ...
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// ... when its answer has not come within this time.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer heartbeat interval is not believed.
pub const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_mins(10);
/// A stream that is silent for this many heartbeat intervals is given up.
pub const SILENT_HEARTBEATS: u32 = 3;
/// What is safe to lose (progress) is saved at most this often.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// [`crate::Client::close`] waits for answers this long.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages asked for at once when looking through a conversation.
pub const SCAN_PAGE: i32 = 200;
