//! The load of the conformance driver on a server that is broken meanwhile, and
//! what its checker says of it. It does not break anything itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use conformance::check::{Violation, check};
use conformance::driver::{self, Kind};
use conformance::event::{Event, Way};
use conformance::faults::struck;
use conformance::record::{Record, Recorder};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::server::{ANY_PORT, Server};

/// Violations of a failing record that are told.
const TOLD: usize = 10;
/// How often a record is looked at.
const POLL: Duration = Duration::from_millis(5);

/// The load of one kind of clients on one server.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) kind: Kind,
    /// The ways in, of which each device takes the next.
    pub(super) ways: Vec<Way>,
    /// Where those lead that are not native.
    pub(super) gateways: Vec<SocketAddr>,
    /// Starts the TypeScript client.
    pub(super) program: Vec<String>,
    pub(super) seed: u64,
    pub(super) wild: Duration,
    pub(super) users: usize,
    pub(super) devices: usize,
    pub(super) recorder: Recorder,
}

impl Load {
    pub(super) fn new(kind: Kind, seed: u64, wild: Duration) -> Self {
        Self {
            kind,
            ways: vec![Way::Native],
            gateways: Vec::new(),
            program: Vec::new(),
            seed,
            wild,
            users: 12,
            devices: 3,
            recorder: Recorder::default(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Stubs => "stubs",
            Kind::Client => "client",
            Kind::TypeScript => "typescript",
        }
    }

    fn options(&self, addresses: &[SocketAddr], data: &Path) -> driver::Options {
        driver::Options {
            data: data.to_path_buf(),
            load: driver::Load {
                addresses: addresses.to_vec(),
                gateways: self.gateways.clone(),
                ways: self.ways.clone(),
                users: self.users,
                devices: self.devices,
                wild: self.wild,
                seed: self.seed,
                kind: self.kind,
                program: self.program.clone(),
            },
        }
    }

    /// Waits until the record has so many events more; false: not before `limit`.
    pub(super) async fn flows(&self, events: u64, limit: Instant) -> bool {
        let from = self.recorder.reserve();
        for polls in 1.. {
            if self.recorder.reserve() >= from + events + polls {
                return true;
            }
            if Instant::now() >= limit {
                return false;
            }
            sleep(POLL).await;
        }
        false
    }
}

/// Drives a server until the end, while `breaks` does to it whatever it does; then
/// checks the records, and returns them. Those of a run that fails are saved. `data` is
/// the folder with the development key.
pub(super) async fn drive<T>(
    loads: &[Load],
    (addresses, data): (&[SocketAddr], &Path),
    breaks: impl Future<Output = Result<T>>,
    records: &Path,
) -> Result<(T, Vec<Record>)> {
    let drivers = loads.iter().map(|load| {
        let options = load.options(addresses, data);
        driver::run_with(options, load.recorder.clone())
    });
    let mut drivers = pin!(try_join_all(drivers));
    let driven = async {
        let broken = tokio::select! {
            outcomes = &mut drivers => {
                outcomes?;
                bail!("the load ended before all was broken");
            }
            broken = breaks => broken?,
        };
        anyhow::Ok((broken, drivers.await?))
    };
    let (broken, outcomes) = match driven.await {
        Ok(driven) => driven,
        Err(error) => {
            let saved = loads
                .iter()
                .map(|load| save(&load.recorder.record(), load, records));
            return Err(error.context(saved.collect::<Vec<_>>().join("; ")));
        }
    };
    for (load, outcome) in loads.iter().zip(&outcomes) {
        let violations = check(&outcome.record);
        if !violations.is_empty() {
            bail!(
                "{}; {}",
                told(&violations),
                save(&outcome.record, load, records)
            );
        }
    }
    let caught_up_after = outcomes.iter().map(|outcome| outcome.caught_up_after);
    let slowest = caught_up_after.max().unwrap_or_default();
    crate::say(&format!("  caught up after {:.1} s", slowest.as_secs_f64()));
    let records = outcomes.into_iter().map(|outcome| outcome.record);
    Ok((broken, records.collect()))
}

/// Saves a record and says where.
fn save(record: &Record, load: &Load, folder: &Path) -> String {
    let file = folder.join(format!("{}-{}.jsonl", load.name(), load.seed));
    let saved = std::fs::create_dir_all(folder).map_err(anyhow::Error::from);
    match saved.and_then(|()| Ok(record.save(&file)?)) {
        Ok(()) => format!("seed {}, record in {}", load.seed, file.display()),
        Err(error) => format!("seed {}, record not saved: {error}", load.seed),
    }
}

fn told(violations: &[Violation]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in violations {
        *counts.entry(violation.rule).or_default() += 1;
    }
    let first: Vec<String> = violations
        .iter()
        .take(TOLD)
        .map(ToString::to_string)
        .collect();
    format!("broken: {counts:?}\n{}\n", first.join("\n"))
}

/// How the servers of these runs are started: whoever has something to say may.
pub(super) struct Serving {
    folder: PathBuf,
    /// The same for every start.
    grpc: String,
    web: String,
}

/// Rates and counts that no load reaches.
pub(super) const UNBOUNDED: [&str; 8] = [
    "--sends",
    "1000000/1000000",
    "--calls",
    "1000000/1000000",
    "--connects",
    "100000/100000",
    "--sessions-per-user",
    "1000",
];

/// The same of a gateway.
pub(super) const UNBOUNDED_REQUESTS: [&str; 2] = ["--requests-per-address", "1000000/1000000"];

impl Serving {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            grpc: ANY_PORT.to_owned(),
            web: ANY_PORT.to_owned(),
        }
    }

    /// Starts a program with this in its environment, and does not wait.
    pub(super) fn spawn(&self, program: &Path, environment: &[(&str, &str)]) -> Result<Server> {
        let listen = [
            "--grpc-listen",
            &self.grpc,
            "--web-listen",
            &self.web,
            "--admin-listen",
            ANY_PORT,
            "--data",
            "data",
        ];
        let arguments = [&listen[..], &UNBOUNDED, &UNBOUNDED_REQUESTS].concat();
        Server::spawn(program, &self.folder, &arguments, environment)
    }

    /// Starts it, on the port of the first time, and waits until it serves.
    pub(super) async fn start(
        &mut self,
        program: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Server> {
        let mut server = self.spawn(program, environment)?;
        server.listening().await?;
        self.grpc = server.grpc().to_string();
        self.web = server.web().to_string();
        Ok(server)
    }
}

/// Notes in every record what is broken.
pub(super) fn note(loads: &[Load], event: &Event) {
    for load in loads {
        load.recorder.note(event.clone());
    }
}

/// What all faults met: messages without an answer, and how many of them were
/// answered as duplicates later.
pub(super) fn met(records: &[Record]) -> (usize, usize) {
    let struck: Vec<_> = records.iter().flat_map(struck).collect();
    let unanswered = struck.iter().map(|struck| struck.unanswered.len()).sum();
    let duplicates = struck.iter().map(|struck| struck.duplicates).sum();
    (unanswered, duplicates)
}
