//! The program `duologue`; everything is in the library of the same name.

/// A message is allocated on one thread and freed on another, and there are many
/// small ones: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    duologue::run().await
}
