//! Signals to processes that a task runs.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Sends a signal, by its name without `SIG`, to a process that runs.
pub(crate) async fn send(name: &str, process: u32) -> Result<()> {
    let arguments = ["-s".to_owned(), name.to_owned(), process.to_string()];
    let status = Command::new("kill").args(arguments).status().await;
    ensure!(
        status.context("cannot run kill")?.success(),
        "process {process} has ended"
    );
    Ok(())
}
