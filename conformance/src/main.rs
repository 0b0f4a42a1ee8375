//! `cargo run -p conformance`: drives a running Duologue and says which promises it
//! has broken. Ends with 0 if none, 1 if any, 2 if the run shows nothing.

#![expect(clippy::print_stdout, reason = "what it finds is its output")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use conformance::check::{Violation, check};
use conformance::driver::{self, Behaviour, Kind, Load, Options};
use conformance::event::Event;
use conformance::faults;
use conformance::record::Record;

/// Violations of one rule printed in full.
const SHOWN: usize = 3;
/// Events printed of each.
const SHOWN_EVENTS: usize = 6;
/// Characters printed of an event.
const SHOWN_CHARS: usize = 400;

/// Drives a running Duologue with many clients that do what clients and networks
/// do, records everything, and checks every promise.
#[derive(Debug, Parser)]
struct Cli {
    /// The server; on this machine only. Repeated: the nodes of one system.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    addr: Vec<String>,
    /// The server's data directory, with its development key.
    #[arg(long, default_value = "./duologue-data", value_name = "DIR")]
    data: PathBuf,
    /// How many users.
    #[arg(long, default_value_t = 6)]
    users: usize,
    /// Devices of each user.
    #[arg(long, default_value_t = 3)]
    devices: usize,
    /// How long they do whatever they like.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Decides what they do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Drive the Rust client in place of the generated stubs.
    #[arg(long)]
    client: bool,
    /// Save the record.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Drive nothing: check a saved record.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(file) = &cli.check {
        let record = Record::load(file)?;
        return Ok(judge(&record, &[]));
    }
    let outcome = driver::run(options(&cli)?).await?;
    println!("seed {}", cli.seed);
    for (behaviour, count) in outcome.counts.all() {
        println!("{count:>8}  {behaviour:?}");
    }
    if let Some(file) = &cli.save {
        outcome.record.save(file)?;
    }
    Ok(judge(&outcome.record, &outcome.counts.missing()))
}

fn options(cli: &Cli) -> Result<Options> {
    let addresses = cli.addr.iter().map(|addr| {
        let address = addr.strip_prefix("http://").unwrap_or(addr).parse();
        address.with_context(|| format!("{addr} is not http://ADDRESS:PORT"))
    });
    let load = Load {
        addresses: addresses.collect::<Result<_>>()?,
        users: cli.users,
        devices: cli.devices,
        wild: Duration::from_secs(cli.seconds),
        seed: cli.seed,
        kind: if cli.client {
            Kind::Client
        } else {
            Kind::Stubs
        },
    };
    Ok(Options {
        data: cli.data.clone(),
        load,
    })
}

/// Prints what a record shows, and what follows from it.
fn judge(record: &Record, missing: &[Behaviour]) -> ExitCode {
    let violations = check(record);
    let sends = record
        .entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Send(_)));
    println!(
        "{} events, {} tries, {} violations",
        record.entries.len(),
        sends.count(),
        violations.len()
    );
    for struck in faults::struck(record) {
        println!(
            "{}: {} sends without an answer, {} of them found stored later",
            struck.what,
            struck.unanswered.len(),
            struck.duplicates
        );
    }
    let mut by_rule: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in &violations {
        by_rule.entry(violation.rule).or_default().push(violation);
    }
    for (rule, violations) in &by_rule {
        println!("broken: {rule}, {} times", violations.len());
        for violation in violations.iter().take(SHOWN) {
            show(record, violation);
        }
    }
    if !violations.is_empty() {
        return ExitCode::from(1);
    }
    if !missing.is_empty() {
        println!("void: {missing:?} never happened");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn show(record: &Record, violation: &Violation) {
    println!("{violation}");
    for at in violation.events.iter().take(SHOWN_EVENTS) {
        let found = record.entries.iter().find(|entry| entry.at == *at);
        if let Some(entry) = found {
            let text: String = format!("{:?}", entry.event)
                .chars()
                .take(SHOWN_CHARS)
                .collect();
            println!("    {at}: {text}");
        }
    }
}
