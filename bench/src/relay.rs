//! `bench relay`: alternating rounds, the medians, the table.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::driver::When;
use crate::options::{Repeats, Subject};
use crate::server::{Kind, Place};
use crate::throughput::{self, Outcome, ROWS, Row};
use crate::{idle, knee, say};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    rounds: Repeats,
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
    let (_folder, place) = options.subject.place()?;
    if !options.only_idle {
        let rounds = measure_rates(runtime, options, &place)?;
        print_rates(&rows(options), &rounds);
        measure_knee(runtime, options, &rounds, &place)?;
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

/// Needs the rate that was just measured.
fn measure_knee(
    runtime: &Runtime,
    options: &Options,
    rounds: &Rounds,
    place: &Place,
) -> Result<()> {
    let at = rows(options).iter().position(|row| *row == knee::ROW);
    let outcomes = at.and_then(|at| rounds.get(&(at, Kind::Duologue)));
    let Some(outcomes) = outcomes else {
        say(&format!(
            "\nbelow the most: left out, without {}",
            knee::ROW
        ));
        return Ok(());
    };
    let most = throughput::median(outcomes).rate;
    knee::run(
        runtime,
        options.rounds.count(),
        most,
        options.rounds.times(),
        place,
    )
}

/// The servers take turns within each round, so that what changes on the machine
/// meanwhile strikes both.
fn measure_rates(runtime: &Runtime, options: &Options, place: &Place) -> Result<Rounds> {
    let times = options.rounds.times();
    let mut rounds = Rounds::new();
    for round in 1..=options.rounds.count() {
        for (at, row) in rows(options).into_iter().enumerate() {
            for kind in kinds(options) {
                let window = When::Window(row.window);
                let measured = throughput::measure(kind, row.pairs, window, times, place);
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
        used.limit(),
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
            let ratio = match (bare.used.void(), ours.used.void()) {
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
        used.limit(),
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
