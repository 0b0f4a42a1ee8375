//! Every limit of history beside those of the contract, which are
//! `duologue_proto::limits`. Each stands in the code where it is kept.

pub use crate::append::{
    FIRST_RETRY_DELAY, MAX_BATCH_DRAFTS, MAX_BLOCKED, MAX_CACHED_SLOTS, MAX_LATE, MAX_PENDING_KIB,
    MAX_PUT, MAX_RETRIES, MAX_SLOTS, MAX_TAILS, MAX_WAIT, READ_BYTES, READ_SLOTS, SHARD_QUEUE,
    SHARDS,
};
pub use crate::committer::rules::MAX_READING_AGE;
pub use crate::committer::{
    MAX_GROUP_BYTES, MAX_GROUP_OPERATIONS, MAX_QUEUED_BYTES, MAX_QUEUED_OPERATIONS,
};
pub use crate::dynamodb::{
    MAX_CURSOR_ROUNDS, MAX_IDENTITY_ROUNDS, MAX_PAGE_ROWS, MAX_PAGE_SLOTS, MAX_SKEW,
};
pub use crate::embedded::{
    CACHE_BYTES, JOURNALS_BYTES, MAX_BUNDLE_BYTES, MAX_BUNDLE_MESSAGES, MAX_KNOWN_HEADS,
    MAX_LEVEL_0_TABLES, MAX_OPEN_FILES, MAX_QUEUED_READS, MAX_SEALED_MEMTABLES,
    MESSAGES_BUFFER_BYTES, ROOM_POLL, ROWS_BUFFER_BYTES, WORKERS,
};
pub use crate::error::RETRY_AFTER;
pub use crate::grpc::ANSWERS_BYTES;
pub use crate::list::{CHUNK_ROWS, LIST_ROWS_AT_ONCE, MAX_ROWS};
pub use crate::read::{MAX_READ_BYTES, MAX_READ_MESSAGES};
pub use crate::rows::{MAX_REMEMBERED, MAX_REWRITES};
pub use crate::sync::{MAX_SYNC_PAGE, MAX_SYNC_ROWS, READS_AT_ONCE, SYNC_ROWS_AT_ONCE};
pub use crate::time::{APPEND_DEADLINE, READING_LAG, SYNC_SLACK};
pub use crate::watch::{PROBE_INTERVAL, REFUSING_KEPT};
