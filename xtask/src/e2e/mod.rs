//! End to end: the built program, with real clients, over real sockets, on a
//! real disk.
//!
//! `server` starts and ends the program; `readme`, `kill`, `drain` and `sync` are
//! the parts of the run. Every wait has a limit, and none is a plain sleep.

mod drain;
mod kill;
mod mask;
mod readme;
mod server;
mod side;
mod sync;
mod transcript;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

/// What to run end to end.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Run this program instead of building it.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Run this program, built with the feature `faults`, instead of building it.
    #[arg(long, value_name = "FILE")]
    faults_program: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the README shows, with the default ports.
    Readme,
    /// Ten kills in mid-conversation.
    Kill,
    /// One signal drains, two end at once.
    Drain,
    /// What a loss of power leaves.
    Sync,
}

/// The longest that any part may take.
const PART_LIMIT: Duration = Duration::from_mins(5);

/// What every part needs.
struct Setup {
    /// The workspace.
    root: PathBuf,
    /// The built program.
    program: PathBuf,
    /// The same with faults that can be planted, if a part needs it.
    faults: Option<PathBuf>,
}

/// Builds the program and runs the parts; the error says what went wrong.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    // First: cargo leaves the program that it built last in its place.
    let faults = match &options.faults_program {
        Some(program) => Some(std::path::absolute(program)?),
        None if options.only.is_none_or(|only| only == Part::Sync) => Some(build_faults(root)?),
        None => None,
    };
    let setup = Setup {
        root: root.to_path_buf(),
        program: match &options.program {
            Some(program) => std::path::absolute(program)?,
            None => build(root, &[])?,
        },
        faults,
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        for part in Part::value_variants() {
            if options.only.is_none_or(|only| only == *part) {
                Box::pin(run_part(*part, &setup)).await?;
            }
        }
        Ok(())
    })
}

async fn run_part(part: Part, setup: &Setup) -> Result<()> {
    let (name, limited) = match part {
        Part::Readme => ("readme", limited(readme::run(setup)).await),
        Part::Kill => ("kill", limited(kill::run(setup)).await),
        Part::Drain => ("drain", limited(drain::run(setup)).await),
        Part::Sync => ("sync", Box::pin(limited(sync::run(setup))).await),
    };
    let summary = limited.with_context(|| format!("e2e {name} failed"))?;
    crate::say(&format!("e2e {name}: {summary}"));
    Ok(())
}

async fn limited(part: impl Future<Output = Result<String>>) -> Result<String> {
    let Ok(result) = tokio::time::timeout(PART_LIMIT, part).await else {
        bail!("it takes longer than {} s", PART_LIMIT.as_secs());
    };
    result
}

/// Builds the program with faults that can be planted, and keeps it beside the one
/// without.
fn build_faults(root: &Path) -> Result<PathBuf> {
    let built = build(root, &["--features=faults"])?;
    let kept = built.with_file_name("duologue-faults");
    std::fs::copy(&built, &kept).context("cannot keep the program with faults")?;
    build(root, &[])?;
    Ok(kept)
}

/// Builds the program and says where it is.
fn build(root: &Path, features: &[&str]) -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package=duologue", "--bin=duologue"])
        .args(["--locked", "--message-format=json-render-diagnostics"])
        .args(features)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the program does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no program")
}
