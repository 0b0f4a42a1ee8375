//! `bench relay`: alternating rounds, the medians, the table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::server::{Kind, Place};
use crate::throughput::{self, Outcome, ROWS, Row, Times};
use crate::{idle, machine, say};

/// The server's core and the driver's.
const CORES: [usize; 2] = [0, 1];

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// The program `duologue`, built for release
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Where the data is kept meanwhile: on the disk to be measured
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// How often each load is run with each server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load before anything is measured
    #[arg(long, default_value_t = 2)]
    warm: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only these loads: pairs and window, such as 100x16
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    rows: Vec<Row>,
    /// Only this server
    #[arg(long)]
    only: Option<Kind>,
    /// Leave out the memory of idle sessions
    #[arg(long)]
    no_idle: bool,
    /// Only the memory of idle sessions
    #[arg(long, conflicts_with = "no_idle")]
    only_idle: bool,
}

/// The rounds of each load with each server.
type Rounds = BTreeMap<(usize, Kind), Vec<Outcome>>;

/// Measures and prints.
pub(crate) fn run(runtime: &Runtime, options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "at least one round is needed");
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores >= 2,
        "two cores are needed: one for the server, one for the driver"
    );
    std::fs::create_dir_all(&options.folder).context("cannot make the folder")?;
    let folder = TempDir::new_in(&options.folder)?;
    let place = Place {
        program: options.program.clone(),
        folder: folder.path().to_owned(),
        core: CORES[0],
    };
    say(&format!("{}\n", machine::describe()));
    machine::pin(std::process::id(), CORES[1])?;
    if !options.only_idle {
        let rounds = measure_rates(runtime, options, &place)?;
        print_rates(&rows(options), &rounds);
    }
    if !options.no_idle {
        print_idle(runtime, options, &place)?;
    }
    Ok(())
}

fn rows(options: &Options) -> Vec<Row> {
    if options.rows.is_empty() {
        ROWS.to_vec()
    } else {
        options.rows.clone()
    }
}

fn kinds(options: &Options) -> Vec<Kind> {
    options
        .only
        .map_or(vec![Kind::Bare, Kind::Duologue], |kind| vec![kind])
}

/// The servers take turns within each round, so that what changes on the machine
/// meanwhile strikes both.
fn measure_rates(runtime: &Runtime, options: &Options, place: &Place) -> Result<Rounds> {
    let times = Times {
        warm: Duration::from_secs(options.warm),
        measured: Duration::from_secs(options.seconds),
    };
    let mut rounds = Rounds::new();
    for round in 1..=options.rounds {
        for (at, row) in rows(options).into_iter().enumerate() {
            for kind in kinds(options) {
                let measured = throughput::measure(kind, row, times, place);
                let outcome = LocalSet::new()
                    .block_on(runtime, measured)
                    .with_context(|| format!("{kind:?} failed at {row}"))?;
                say(&format!(
                    "round {round} {row} {kind:?}: {}",
                    in_short(&outcome)
                ));
                rounds.entry((at, kind)).or_default().push(outcome);
            }
        }
    }
    Ok(rounds)
}

fn in_short(outcome: &Outcome) -> String {
    let used = &outcome.used;
    format!(
        "{:.0} messages/s, {:.1} µs of CPU each; server {:.0} %, its core {:.0} % and {:.0} % \
         waiting, driver {:.0} %; {:.0} flushes/s; {:.1} % echoed; ack {:.2} / {:.2} ms; limit: {}",
        outcome.rate,
        outcome.cpu,
        used.server * 100.0,
        used.core * 100.0,
        used.waiting * 100.0,
        used.driver * 100.0,
        used.flushes_per_second.unwrap_or_default(),
        outcome.echoed * 100.0,
        outcome.latency[0],
        outcome.latency[1],
        outcome.limit(),
    )
}

fn print_rates(rows: &[Row], rounds: &Rounds) {
    say(
        "\n| pairs | window | server | messages/s | CPU per message, µs | ack p50 / p99, ms | \
         delivery p50 / p99, ms | core busy + waiting for disk | driver | syncs/s | sync p50 / p99, ms | limit |",
    );
    say("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (at, row) in rows.iter().enumerate() {
        for kind in [Kind::Bare, Kind::Duologue] {
            if let Some(outcomes) = rounds.get(&(at, kind)) {
                say(&line(*row, kind, &throughput::median(outcomes)));
            }
        }
    }
    say("\n| pairs | window | rate, of the bare relay's | CPU per message, of the bare relay's |");
    say("|---|---|---|---|");
    for (at, row) in rows.iter().enumerate() {
        let of = |kind| {
            rounds
                .get(&(at, kind))
                .map(|rounds| throughput::median(rounds))
        };
        if let (Some(bare), Some(ours)) = (of(Kind::Bare), of(Kind::Duologue)) {
            let ratio = match (bare.void(), ours.void()) {
                (None, None) => format!("{:.2}", ours.rate / bare.rate),
                _ => format!("void ({:.2})", ours.rate / bare.rate),
            };
            let cpu = ours.cpu / bare.cpu;
            say(&format!(
                "| {} | {} | {ratio} | {cpu:.2} |",
                row.pairs, row.window
            ));
        }
    }
}

fn line(row: Row, kind: Kind, outcome: &Outcome) -> String {
    let [stored, stored99, delivered, delivered99] = outcome.latency;
    let [sync, sync99] = outcome.sync;
    let used = &outcome.used;
    format!(
        "| {} | {} | {kind:?} | {:.0} | {:.2} | {stored:.2} / {stored99:.2} | {delivered:.2} / \
         {delivered99:.2} | {:.0} % + {:.0} % | {:.0} % | {:.0} | {sync:.2} / {sync99:.2} | {} |",
        row.pairs,
        row.window,
        outcome.rate,
        outcome.cpu,
        used.core * 100.0,
        used.waiting * 100.0,
        used.driver * 100.0,
        used.flushes_per_second.unwrap_or_default(),
        outcome.limit(),
    )
}

fn print_idle(runtime: &Runtime, options: &Options, place: &Place) -> Result<()> {
    say("\n| server | KiB per idle session |\n|---|---|");
    for kind in kinds(options) {
        let kib = LocalSet::new()
            .block_on(runtime, idle::measure(kind, place))
            .with_context(|| format!("{kind:?} failed with idle sessions"))?;
        say(&format!("| {kind:?} | {kib:.1} |"));
    }
    Ok(())
}
