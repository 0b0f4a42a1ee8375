//! `bench doors`: the same load by every door, in alternating rounds, and what a
//! session costs that rests.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::driver::Door;
use crate::options::{Repeats, Subject};
use crate::server::Place;
use crate::throughput::{self, Outcome, Row};
use crate::{idle, say};

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
    /// Leave out the memory of idle sessions
    #[arg(long)]
    no_idle: bool,
    /// Only the memory of idle sessions
    #[arg(long, conflicts_with = "no_idle")]
    only_idle: bool,
}

/// The loads, each user on a connection of its own.
const ROWS: [Row; 2] = [Row::new(100, 1), Row::new(100, 16)];
/// What is compared, with what, and the most that is wanted of the CPU per message.
const WANTED: [(Door, Door, Option<f64>); 4] = [
    (Door::WebSocket, Door::Converse, Some(1.0)),
    (Door::GrpcWeb, Door::Subscribe, Some(1.15)),
    (Door::Subscribe, Door::Converse, None),
    (Door::GrpcWeb, Door::Converse, None),
];
/// KiB of memory that an idle `WebSocket` may take.
const WANTED_KIB: f64 = 16.0;

/// Measures and prints.
pub(crate) fn run(runtime: &Runtime, options: &Options) -> Result<()> {
    let (_folder, place) = options.subject.place()?;
    if !options.only_idle {
        for row in rows(options) {
            measure(runtime, options, row, &place)?;
        }
    }
    if !options.no_idle {
        print_idle(runtime, &place)?;
    }
    Ok(())
}

fn rows(options: &Options) -> Vec<Row> {
    if options.rows.is_empty() {
        return ROWS.to_vec();
    }
    options.rows.clone()
}

/// The doors take turns, so that what changes on the machine meanwhile strikes all.
fn measure(runtime: &Runtime, options: &Options, row: Row, place: &Place) -> Result<()> {
    let times = options.rounds.times();
    let mut rounds: BTreeMap<Door, Vec<Outcome>> = BTreeMap::new();
    for round in 1..=options.rounds.count() {
        for door in Door::ALL {
            let outcome = LocalSet::new()
                .block_on(runtime, throughput::measure_door(door, row, times, place))
                .with_context(|| format!("{door:?} failed at {row}"))?;
            say(&format!(
                "round {round} {row} {door:?}: {:.0} messages/s, {:.1} µs of CPU each; limit: {}",
                outcome.rate,
                outcome.cpu,
                outcome.used.limit()
            ));
            rounds.entry(door).or_default().push(outcome);
        }
    }
    let medians = rounds
        .iter()
        .map(|(door, rounds)| (*door, throughput::median(rounds)));
    print(row, &medians.collect());
    Ok(())
}

fn print(row: Row, medians: &BTreeMap<Door, Outcome>) {
    say(&format!(
        "\n| {row} | messages/s | CPU per message, µs | ack p50 / p99, ms | delivery p50 / p99, \
         ms | driver | limit |"
    ));
    say("|---|---|---|---|---|---|---|");
    for (door, outcome) in medians {
        let [stored, stored99, delivered, delivered99] = outcome.latency;
        say(&format!(
            "| {door:?} | {:.0} | {:.2} | {stored:.2} / {stored99:.2} | {delivered:.2} / \
             {delivered99:.2} | {:.0} % | {} |",
            outcome.rate,
            outcome.cpu,
            outcome.used.driver * 100.0,
            outcome.used.limit()
        ));
    }
    say("\n| door | of | rate | CPU per message | wanted |\n|---|---|---|---|---|");
    for (door, of, wanted) in WANTED {
        let (Some(ours), Some(theirs)) = (medians.get(&door), medians.get(&of)) else {
            continue;
        };
        let cpu = ours.cpu / theirs.cpu;
        let disturbed = ours.used.disturbed().or(theirs.used.disturbed());
        let wanted = match (wanted, disturbed) {
            (None, _) => "reported".to_owned(),
            (Some(_), Some(why)) => format!("void: {why}"),
            (Some(most), None) => {
                let met = if cpu <= most { "met" } else { "missed" };
                format!("≤ {most:.2}: {met}")
            }
        };
        say(&format!(
            "| {door:?} | {of:?} | {:.2} | {cpu:.2} | {wanted} |",
            ours.rate / theirs.rate
        ));
    }
    say("");
}

fn print_idle(runtime: &Runtime, place: &Place) -> Result<()> {
    say("| door | KiB per idle session | wanted |\n|---|---|---|");
    for door in [Door::Converse, Door::WebSocket] {
        let kib = LocalSet::new()
            .block_on(runtime, idle::measure_door(door, place))
            .with_context(|| format!("{door:?} failed with idle sessions"))?;
        let wanted = match door {
            Door::WebSocket if kib <= WANTED_KIB => format!("≤ {WANTED_KIB}: met"),
            Door::WebSocket => format!("≤ {WANTED_KIB}: missed"),
            Door::Converse | Door::Subscribe | Door::GrpcWeb => "reported".to_owned(),
        };
        say(&format!("| {door:?} | {kib:.1} | {wanted} |"));
    }
    Ok(())
}
