//! The whole system in virtual time: builds the simulation and runs seeds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// Which seeds, and how.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// See `cargo xtask simulate --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds and runs.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--package=simulation", "--"])
        .args(&options.arguments)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the simulation failed");
    Ok(())
}
