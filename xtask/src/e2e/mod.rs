//! End to end: the built program, with real clients, over real sockets, on a
//! real disk.
//!
//! `server` starts and ends the program, `load` drives it, `tracer` breaks its
//! syncs; `readme`, `drain`, `doors`, `kills`, `pause`, `disk`, `sync` and `cluster` are the parts
//! of the run. Every wait has a limit.

mod cluster;
mod dice;
mod disk;
mod doors;
mod drain;
mod kills;
mod load;
mod mask;
mod pause;
mod readme;
mod server;
mod sync;
mod tally;
mod tracer;
mod transcript;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use duologue_client::{Environment as _, SystemEnvironment};

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
    faulty: Option<PathBuf>,
    /// How many kills must have met sends without an answer.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// How often each service of the cluster is killed.
    #[arg(long, default_value_t = 2)]
    cluster_kills: usize,
    /// As many kills as it takes to find what is rare: an hour.
    #[arg(long, conflicts_with_all = ["kills", "cluster_kills"])]
    full: bool,
    /// Decides what clients do and when they are met; by default the time decides.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the README shows, with the default ports.
    Readme,
    /// One signal drains, two end at once.
    Drain,
    /// Every way in, each with kills: gRPC-Web, WebSocket, JSON, all of them at once,
    /// and the TypeScript client.
    Doors,
    /// SIGKILL under load, at random moments and at named points.
    Kills,
    /// SIGSTOP under load, and SIGCONT after half a minute.
    Pause,
    /// A failing fsync, and a disk that is full.
    Disk,
    /// What a loss of power leaves.
    Sync,
    /// Two of each service on DynamoDB Local, one thing after another broken.
    Cluster,
}

/// Of the one process, in a full run.
const FULL_KILLS: usize = 200;
/// Of each service, in a full run: with three services more than 40.
const FULL_CLUSTER_KILLS: usize = 14;

/// The longest that any part may take.
const PART_LIMIT: Duration = Duration::from_mins(5);
/// How long a kill may take at most, in the part of kills.
const KILL_LIMIT: Duration = Duration::from_secs(12);

/// The programs of a split system, which are built where the one process is.
pub(crate) const BESIDE: [&str; 4] = [
    "--package=duologue-chat",
    "--package=duologue-gateway",
    "--package=duologue-history",
    "--package=duologue-presence",
];

/// What every part needs.
struct Setup {
    /// The workspace.
    root: PathBuf,
    /// The built program.
    program: PathBuf,
    /// The same, with points at which it can be made to kill itself.
    faulty: PathBuf,
    /// Where records are kept that break a promise.
    records: PathBuf,
    kills: usize,
    cluster_kills: usize,
    seed: u64,
}

/// Builds the program and runs the parts; the error says what went wrong.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let records = root.join("target/e2e");
    // The program is built last, so that it is what target/debug holds.
    let faulty = match &options.faulty {
        Some(program) => std::path::absolute(program)?,
        None => build_faulty(root, &records)?,
    };
    let program = match &options.program {
        Some(program) => std::path::absolute(program)?,
        None => build(root, &BESIDE)?,
    };
    let setup = Setup {
        root: root.to_path_buf(),
        program,
        faulty,
        records,
        kills: if options.full {
            FULL_KILLS
        } else {
            options.kills
        },
        cluster_kills: if options.full {
            FULL_CLUSTER_KILLS
        } else {
            options.cluster_kills
        },
        seed: options.seed.unwrap_or_else(|| SystemEnvironment.now().0),
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
        Part::Readme => ("readme", limited(PART_LIMIT, readme::run(setup)).await),
        Part::Drain => ("drain", limited(PART_LIMIT, drain::run(setup)).await),
        Part::Doors => ("doors", limited(PART_LIMIT, doors::run(setup)).await),
        Part::Kills => (
            "kills",
            limited(kills_limit(setup), kills::run(setup)).await,
        ),
        Part::Pause => ("pause", limited(PART_LIMIT, pause::run(setup)).await),
        Part::Disk => (
            "disk",
            limited(PART_LIMIT, Box::pin(disk::run(setup))).await,
        ),
        Part::Sync => (
            "sync",
            limited(PART_LIMIT, Box::pin(sync::run(setup))).await,
        ),
        Part::Cluster => (
            "cluster",
            limited(cluster::limit(setup), Box::pin(cluster::run(setup))).await,
        ),
    };
    let summary = limited.with_context(|| format!("e2e {name} failed"))?;
    crate::say(&format!("e2e {name}: {summary}"));
    Ok(())
}

async fn limited(limit: Duration, part: impl Future<Output = Result<String>>) -> Result<String> {
    let Ok(result) = tokio::time::timeout(limit, part).await else {
        bail!("it takes longer than {} s", limit.as_secs());
    };
    result
}

fn kills_limit(setup: &Setup) -> Duration {
    let kills = u32::try_from(setup.kills).unwrap_or(u32::MAX);
    PART_LIMIT.max(KILL_LIMIT.saturating_mul(kills))
}

/// Builds the program with its points, and keeps it where no other build puts one.
fn build_faulty(root: &Path, folder: &Path) -> Result<PathBuf> {
    let built = build(root, &["--features=faults"])?;
    let kept = folder.join("duologue-faults");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::copy(built, &kept))
        .context("cannot keep the program")?;
    Ok(kept)
}

/// Builds the program and says where it is.
pub(crate) fn build(root: &Path, more: &[&str]) -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--bins", "--package=duologue"])
        .args(["--locked", "--message-format=json-render-diagnostics"])
        .args(more)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the program does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|program| program.file_stem().is_some_and(|name| name == "duologue"))
        .context("cargo names no program")
}
