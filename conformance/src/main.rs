//! `cargo run -p conformance`: drives a running Duologue and says which promises it
//! has broken. Ends with 0 if none, 1 if any, 2 if the run shows nothing.

#![expect(clippy::print_stdout, reason = "what it finds is its output")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use conformance::check::{Violation, check};
use conformance::driver::{self, Behaviour, Kind, Load, Options};
use conformance::event::{Event, Way};
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
    /// The gateway, which every door but the native one leads through; on this machine
    /// only. Repeated: the gateways of one system.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    gateway: Vec<String>,
    /// The way in; `mixed`: each device of a user by another one.
    #[arg(long, value_enum, default_value_t = Door::Native)]
    door: Door,
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
    #[arg(long, conflicts_with = "typescript")]
    client: bool,
    /// Drive the TypeScript client in place of the generated stubs, by its doors
    /// (`grpc-web`, `websocket`, or `mixed` for both): the program that
    /// `npm run build:conformance` in clients/web/client makes; it is run by `node`.
    #[arg(long, value_name = "FILE")]
    typescript: Option<PathBuf>,
    /// Save the record.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Drive nothing: check a saved record.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Door {
    /// gRPC over HTTP/2.
    Native,
    /// gRPC-Web over HTTP/1.1: `Subscribe` and unary calls.
    GrpcWeb,
    /// A `WebSocket` of protobuf; unary calls and `Subscribe` by gRPC-Web.
    Websocket,
    /// The same with a `WebSocket` of JSON.
    Json,
    /// All of them.
    Mixed,
}

impl Door {
    fn ways(self) -> Vec<Way> {
        match self {
            Self::Native => vec![Way::Native],
            Self::GrpcWeb => vec![Way::GrpcWeb],
            Self::Websocket => vec![Way::WebSocket],
            Self::Json => vec![Way::Json],
            Self::Mixed => Way::ALL.to_vec(),
        }
    }
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
    let load = Load {
        addresses: addresses(&cli.addr)?,
        gateways: addresses(&cli.gateway)?,
        ways: ways(cli),
        users: cli.users,
        devices: cli.devices,
        wild: Duration::from_secs(cli.seconds),
        seed: cli.seed,
        kind: match (&cli.typescript, cli.client) {
            (Some(_), _) => Kind::TypeScript,
            (None, true) => Kind::Client,
            (None, false) => Kind::Stubs,
        },
        program: node(cli.typescript.as_deref()),
    };
    Ok(Options {
        data: cli.data.clone(),
        load,
    })
}

fn ways(cli: &Cli) -> Vec<Way> {
    let mut ways = cli.door.ways();
    if cli.typescript.is_some() && ways.len() > 1 {
        ways = vec![Way::GrpcWeb, Way::WebSocket];
    }
    ways
}

/// How `node` runs a file.
fn node(file: Option<&Path>) -> Vec<String> {
    let file = file.map(|file| file.display().to_string());
    file.map_or_else(Vec::new, |file| vec!["node".to_owned(), file])
}

fn addresses(urls: &[String]) -> Result<Vec<SocketAddr>> {
    let addresses = urls.iter().map(|url| {
        let address = url.strip_prefix("http://").unwrap_or(url).parse();
        address.with_context(|| format!("{url} is not http://ADDRESS:PORT"))
    });
    addresses.collect()
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
