//! Every way in: clients that come by gRPC-Web, by `WebSocket`, by JSON, and each
//! device by another one, do what they do by native gRPC in the part of kills, while
//! the server is killed and started again; and so does the TypeScript client, which is
//! killed, too. The rules are the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conformance::driver::Kind;
use conformance::event::{Event, Way};
use duologue_client::{Environment as _, SystemEnvironment, UnixMillis};
use tokio::time::{Instant, sleep};

use super::Setup;
use super::dice::Dice;
use super::load::{Load, Serving, drive};
use super::server::Server;
use super::tally::{Tally, until_enough};

/// Kills of each run.
const KILLS: usize = 3;
/// How long clients do what they like: the kills, and time to recover.
const WILD: Duration = Duration::from_secs(8);
/// The same where each client is a process, which takes its time to start.
const TYPESCRIPT_WILD: Duration = Duration::from_secs(16);
/// How long a server stands still before it is killed, so that the kill meets what is
/// sent meanwhile: else most sends are answered within the time between two looks.
const MEETS: Duration = Duration::from_millis(50);
/// Nothing is killed any more so long before that ends.
const MARGIN: Duration = Duration::from_secs(1);
const USERS: usize = 8;
/// How long a server may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Events that come between a start and a kill.
const FLOW: (u64, u64) = (200, 800);
/// Each client of these is a process.
const TYPESCRIPT_USERS: usize = 4;
const TYPESCRIPT_DEVICES: usize = 2;
/// The native way alone is the part of kills.
const RUNS: [(&str, Kind, &[Way]); 5] = [
    ("grpc-web", Kind::Stubs, &[Way::GrpcWeb]),
    ("websocket", Kind::Stubs, &[Way::WebSocket]),
    ("json", Kind::Stubs, &[Way::Json]),
    ("mixed", Kind::Stubs, &Way::ALL),
    (
        "typescript",
        Kind::TypeScript,
        &[Way::GrpcWeb, Way::WebSocket],
    ),
];

/// Runs all of them; says what the kills of each met.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let actor = build_actor(&setup.root)?;
    let mut all = Tally::default();
    for (number, (name, kind, ways)) in RUNS.into_iter().enumerate() {
        let what = format!("with {name}");
        let seed = setup.seed.wrapping_add(u64::try_from(number)?);
        let run = async |seed| {
            let load = load(kind, ways, &actor, seed);
            let tally = run_one(setup, load, &what)
                .await
                .with_context(|| format!("{name} with seed {seed} failed"))?;
            crate::say(&format!("  {name} with seed {seed}: {tally}"));
            Ok(tally)
        };
        all.add(until_enough(seed, run, |met| met.ensure_met([what.as_str()])).await?);
    }
    Ok(format!("every promise kept; {all}"))
}

fn load(kind: Kind, ways: &[Way], actor: &Path, seed: u64) -> Load {
    let load = Load {
        ways: ways.to_vec(),
        users: USERS,
        ..Load::new(kind, seed, WILD)
    };
    if kind != Kind::TypeScript {
        return load;
    }
    Load {
        users: TYPESCRIPT_USERS,
        devices: TYPESCRIPT_DEVICES,
        program: vec!["node".into(), actor.display().to_string()],
        wild: TYPESCRIPT_WILD,
        ..load
    }
}

/// Builds the TypeScript client as a program that is told what to do.
fn build_actor(root: &Path) -> Result<PathBuf> {
    let web = root.join("clients/web");
    if !web.join("node_modules").exists() {
        npm(&web, &["ci", "--no-audit", "--no-fund"])?;
    }
    npm(
        &web,
        &["run", "--silent", "build:conformance", "--workspace=client"],
    )?;
    Ok(root.join("target/conformance/actor.cjs"))
}

fn npm(folder: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run npm: the TypeScript client needs Node.js")?;
    ensure!(status.success(), "npm {arguments:?} failed");
    Ok(())
}

/// One record, on a history of its own.
async fn run_one(setup: &Setup, mut load: Load, what: &str) -> Result<Tally> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut serving = Serving::new(folder.path());
    let server = serving.start(&setup.program, &[]).await?;
    load.gateways = vec![server.web()];
    let addresses = [server.grpc()];
    let breaks = kill_all(setup, &load, &mut serving, server, what);
    let data = folder.path().join("data");
    let place = (addresses.as_slice(), data.as_path());
    let loads = std::slice::from_ref(&load);
    let ((server, deaths), records) = drive(loads, place, breaks, &setup.records).await?;
    drop(server);
    ensure!(
        deaths.len() == KILLS,
        "there was time for {} of {KILLS} kills",
        deaths.len()
    );
    Tally::of(&records, &deaths)
}

/// Kills the server again and again; returns one that lives, and when the others had
/// ended.
async fn kill_all(
    setup: &Setup,
    load: &Load,
    serving: &mut Serving,
    mut server: Server,
    what: &str,
) -> Result<(Server, Vec<UnixMillis>)> {
    let mut dice = Dice::new(load.seed);
    let ends = Instant::now() + load.wild - MARGIN;
    let mut deaths = Vec::new();
    for _ in 0..KILLS {
        if !load.flows(dice.between(FLOW.0, FLOW.1), ends).await {
            break;
        }
        server.signal("STOP").await?;
        sleep(MEETS).await;
        let what = what.to_owned();
        load.recorder.note(Event::Kill { what });
        server.kill()?;
        server.ended(END_LIMIT).await?;
        deaths.push(SystemEnvironment.now());
        server = serving.start(&setup.program, &[]).await?;
        load.recorder.note(Event::Heal);
    }
    Ok((server, deaths))
}
