//! Opens the engine that the configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use duologue_history::embedded::EmbeddedStore;
use duologue_history::memory::MemoryStore;
use duologue_history::store::Store;
use duologue_runtime::clock::{Clock, SystemRandom};

use super::config::ServeArgs;

/// The folder of the history, below the data directory, which holds the
/// development key too.
const HISTORY: &str = "history";

pub(super) async fn open(
    args: &ServeArgs,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Store>> {
    if args.in_memory() {
        return Ok(Arc::new(MemoryStore::new(clock, &SystemRandom)));
    }
    let directory = args.data.join(HISTORY);
    let open = move || EmbeddedStore::open(&directory, clock, &SystemRandom);
    let store = tokio::task::spawn_blocking(open)
        .await
        .context("opening the store failed")?
        // The message holds the cause already.
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Arc::new(store))
}
