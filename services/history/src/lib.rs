//! Owns the persistence of conversations: append, sync, cursors, paging.

pub mod store;
