//! Every limit of a chat node beside those of the contract, which are
//! `duologue_proto::limits`. Each stands in the code where it is kept.

pub use crate::connection::{LEAVING, MAX_BATCH, MAX_RELEASES};
pub use crate::grpc::MAX_ECHO_BYTES;
pub use crate::inbox::{INBOX_BYTES, MAX_WAITING};
pub use crate::outbox::WRITE_BYTES;
pub use crate::people::BATCH;
pub use crate::remote::{
    CALL_TIMEOUT, FIRST_PAUSE, MAX_CHANGES, MAX_PAUSE, MAX_PENDING_KIB, OPEN_TIMEOUT, QUEUE_RUNS,
    REQUEST_BYTES, REQUEST_RUNS, RUN_TIMEOUT, SWEEP,
};
pub use crate::session::{
    BEHIND_PAUSE, CLOSING_TIMEOUT, HELD_BYTES, KEPT_LEVEL, MAX_CURSOR_WRITES, MAX_MOVES,
    MAX_PRESENCE, MAX_READS, MAX_RECEIPTS, MAX_SESSION, OUTBOX_BYTES, OUTBOX_HARD_BYTES,
    OVER_RATE_PAUSE, PAGE_BYTES, PAGE_CONVERSATIONS, READ_BYTES, READ_MESSAGES, RETRY_PAUSE,
};
