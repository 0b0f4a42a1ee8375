//! `cargo xtask simulate`: runs seeds side by side and says which promises were
//! broken in which. Ends with 0 if none was, 1 if any, 2 if the seeds show nothing.

#![expect(clippy::print_stdout, reason = "what it finds is its output")]

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use conformance::check::{Violation, check};
use simulation::{Options, Outcome, Tally, run};
use tokio::time::Instant;

/// Violations of one rule printed in full.
const SHOWN: usize = 3;

/// Runs the whole system in virtual time, once per seed, and checks every promise.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask simulate")]
struct Cli {
    /// The first seed, and the first that is not run.
    #[arg(long, value_name = "A..B", default_value = "1..21", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// How long, in virtual seconds, clients do what they like and things break.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run each seed twice, and compare the records.
    #[arg(long)]
    replay: bool,
    /// Save the record of the last seed, for `cargo run -p conformance -- --check`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..");
    let range = ends.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    match range {
        Some(range) if !range.is_empty() => Ok(range),
        _ => Err("two numbers are expected, as in 1..201".into()),
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut options = Options::default();
    if let Some(seconds) = cli.seconds {
        options.wild = Duration::from_secs(seconds);
    }
    let began = Instant::now();
    let batch = Mutex::new(Batch::of(cli.seeds.clone()));
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..threads {
            scope.spawn(|| work(&batch, &options, cli.replay));
        }
    });
    let batch = batch.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let (Some(file), Some(last)) = (&cli.save, &batch.last) {
        last.record.save(file).context("the record is not saved")?;
    }
    let count = cli.seeds.end - cli.seeds.start;
    println!("{count} seeds in {:.1} s", began.elapsed().as_secs_f64());
    Ok(batch.judge(&options))
}

/// What the threads share.
struct Batch {
    left: Range<u64>,
    tally: Tally,
    failed: Vec<u64>,
    /// Of the last seed.
    last: Option<Outcome>,
}

impl Batch {
    fn of(seeds: Range<u64>) -> Self {
        Self {
            left: seeds,
            tally: Tally::default(),
            failed: Vec::new(),
            last: None,
        }
    }

    fn judge(&self, options: &Options) -> ExitCode {
        for (behaviour, count) in &self.tally.behaviours {
            println!("{count:>8}  {behaviour:?}");
        }
        for (fault, count) in &self.tally.faults {
            println!(
                "{:>8}  {}: {} sends without an answer, {} of them found stored later",
                count.times,
                fault.name(),
                count.unanswered,
                count.duplicates
            );
        }
        println!(
            "{} events, {} tries, {} syncs, {} unsynced groups lost, {} virtual seconds",
            self.tally.events,
            self.tally.sends,
            self.tally.syncs,
            self.tally.lost_groups,
            self.tally.millis / 1_000
        );
        if !self.failed.is_empty() {
            println!("failed: seeds {:?}", self.failed);
            return ExitCode::from(1);
        }
        let missing = self.tally.missing(&options.faults);
        if !missing.is_empty() {
            println!("void: these never happened: {}", missing.join(", "));
            return ExitCode::from(2);
        }
        ExitCode::SUCCESS
    }
}

/// Runs seeds while there are any.
fn work(batch: &Mutex<Batch>, options: &Options, replay: bool) {
    let lock = || batch.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (seed, is_last) = {
            let left = &mut lock().left;
            let Some(seed) = left.next() else { return };
            (seed, left.is_empty())
        };
        // A defect of one seed is told with the others.
        let outcome = catch_unwind(|| run(seed, options));
        let failed = match &outcome {
            Ok(Ok(outcome)) => {
                let broken = tell(seed, &check(&outcome.record));
                broken | (replay && differs(seed, options, outcome))
            }
            Ok(Err(error)) => {
                println!("seed {seed} shows nothing: {error:#}");
                true
            }
            Err(_) => {
                println!("seed {seed} panicked");
                true
            }
        };
        let mut batch = lock();
        if failed {
            batch.failed.push(seed);
        }
        if let Ok(Ok(outcome)) = outcome {
            batch.tally.add(&outcome.tally);
            if is_last {
                batch.last = Some(outcome);
            }
        }
    }
}

/// Runs a seed again; true if anything else happened.
fn differs(seed: u64, options: &Options, before: &Outcome) -> bool {
    let Ok(again) = run(seed, options) else {
        println!("seed {seed} shows nothing when it is run again");
        return true;
    };
    let (one, other) = (&before.record.entries, &again.record.entries);
    if one == other {
        return false;
    }
    let same = one
        .iter()
        .zip(other)
        .take_while(|(one, other)| one == other);
    let same = same.count();
    println!("seed {seed} does not replay:");
    println!("    {:?}", one.get(same));
    println!("    {:?}", other.get(same));
    true
}

/// Prints what a seed has broken; true if anything.
fn tell(seed: u64, violations: &[Violation]) -> bool {
    let mut by_rule: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in violations {
        by_rule.entry(violation.rule).or_default().push(violation);
    }
    for (rule, violations) in &by_rule {
        println!("seed {seed} breaks {rule}, {} times", violations.len());
        for violation in violations.iter().take(SHOWN) {
            println!("    {violation}");
        }
    }
    !by_rule.is_empty()
}
