//! The threads of a process, and in which order its tasks run.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use tokio::runtime::Builder;

/// Threads for what blocks, such as reading from disk.
pub const MAX_BLOCKING_THREADS: usize = 32;

/// Runs a process.
pub fn run(process: impl Future<Output = ExitCode>) -> io::Result<ExitCode> {
    let mut threads = Builder::new_multi_thread();
    threads
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS);
    // One task wakes many: an appender all whose messages were synced together. The one
    // that was woken last must not run first, ahead of hundreds; each in its turn finds
    // all that has come for it, and does it in one go.
    #[cfg(tokio_unstable)]
    threads.disable_lifo_slot();
    Ok(threads.build()?.block_on(process))
}
