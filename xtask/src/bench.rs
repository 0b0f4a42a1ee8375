//! Measurements: builds for release what is measured and what measures, and runs
//! that. Nothing of it is part of the checks: numbers belong to one machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// `relay`, `store`, `cluster` or `doors`, and flags: see `cargo xtask bench relay --help`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds and measures.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let built = build(root)?;
    let program = executable(&built, "duologue")?;
    let bench = executable(&built, "bench")?;
    // On the disk that the target folder is on.
    let folder = bench.with_file_name("bench-data");
    let (first, rest) = options.arguments.split_at(1);
    let status = Command::new(bench)
        .args(first)
        .arg("--program")
        .arg(program)
        .arg("--folder")
        .arg(folder)
        .args(rest)
        .status()
        .context("cannot run the bench")?;
    ensure!(status.success(), "the bench failed");
    Ok(())
}

/// What is measured, and what measures.
const PACKAGES: [&str; 5] = [
    "bench",
    "duologue",
    "duologue-chat",
    "duologue-history",
    "duologue-presence",
];

/// Builds the programs; returns what Cargo says of it.
fn build(root: &Path) -> Result<Vec<serde_json::Value>> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked"])
        .args(PACKAGES.map(|package| format!("--package={package}")))
        .arg("--bins")
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the programs do not build");
    let lines = String::from_utf8_lossy(&output.stdout);
    let messages = lines.lines().map(serde_json::from_str);
    messages
        .collect::<Result<_, _>>()
        .context("cargo prints something that is not JSON")
}

fn executable(built: &[serde_json::Value], name: &str) -> Result<PathBuf> {
    built
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo names no program {name}"))
}
