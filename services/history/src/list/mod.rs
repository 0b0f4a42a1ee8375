//! Lists for people to read, page by page: messages, and conversations.
//!
//! Page tokens are bound to their query. Pages are read strongly.

mod conversations;
mod messages;

pub use self::conversations::{CHUNK_ROWS, LIST_ROWS_AT_ONCE, MAX_ROWS};
