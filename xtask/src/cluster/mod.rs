//! The split system of docker-compose.yml on this machine, without containers: the
//! commands, the environment, the order and the health checks of the file, so that what
//! is shipped is what was tried.
//!
//! `compose` reads the file, `plan` makes containers into processes, `process` keeps one,
//! `check` tries the whole, with `browser` as one of its users.

mod browser;
mod check;
mod compose;
pub(crate) mod plan;
pub(crate) mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::plan::{Kind, Plan};
use self::process::{Place, Server};
use crate::dynamodb_local::{self, Data, DynamoDbLocal};
use crate::e2e;

/// What is run of docker-compose.yml.
pub(crate) const PROFILE: &str = "split";
/// Where logs and volumes are.
const FOLDER: &str = "target/cluster";
/// The volume with the key that signs users' tokens.
const KEYS: &str = "keys";
/// The gateway that users are told of.
const GATEWAY: &str = "gateway-1";

/// What to do with a cluster.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Run it until Ctrl-C; logs and data are in target/cluster, and are kept.
    Up(Options),
    /// Run it, let users of two nodes and of a page talk, kill a node and go on, and end it.
    Check,
}

/// How to run it.
#[derive(Args)]
pub(crate) struct Options {
    /// Take free ports, instead of those that the file publishes.
    #[arg(long)]
    free_ports: bool,
}

pub(crate) fn run(root: &Path, task: &Task) -> Result<()> {
    let program = e2e::build(root, &e2e::BESIDE)?;
    let programs = program.parent().context("the program has no folder")?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        match task {
            Task::Up(options) => {
                let folder = root.join(FOLDER);
                up(root, programs, &folder, !options.free_ports).await
            }
            Task::Check => check::run(root, programs).await,
        }
    })
}

/// Runs it until a signal.
async fn up(root: &Path, programs: &Path, folder: &Path, published: bool) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut plan = Plan::of(root, PROFILE, folder, published)?;
    plan.sign_in_by_name(&folder.join(KEYS));
    let mut cluster = Cluster::default();
    let runs = async {
        cluster.start(root, programs, folder, &plan).await?;
        cluster.keep(folder, plan.listens(GATEWAY, "web")?).await
    };
    let ended = tokio::select! {
        ended = runs => ended,
        asked = tokio::signal::ctrl_c() => asked.context("cannot wait for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    };
    crate::say("ending …");
    cluster.stop().await.and(ended)
}

/// What runs, in the order in which it was started.
#[derive(Default)]
struct Cluster {
    dynamodb: Option<DynamoDbLocal>,
    servers: Vec<(String, Server)>,
}

impl Cluster {
    /// Starts everything in order, each when those before it are ready.
    async fn start(
        &mut self,
        root: &Path,
        programs: &Path,
        folder: &Path,
        plan: &Plan,
    ) -> Result<()> {
        let place = Place {
            programs: programs.to_path_buf(),
            folder: folder.to_path_buf(),
        };
        for volume in &plan.volumes {
            process::make(&folder.join(volume))?;
        }
        for step in &plan.steps {
            let name = &step.name;
            match &step.kind {
                Kind::DynamoDb { port, data } => {
                    self.dynamodb = Some(dynamodb(root, *port, data.clone()).await?);
                    crate::say(&format!("{name:<11} 127.0.0.1:{port}"));
                }
                Kind::Once(line) => {
                    place.run(line).await?;
                    crate::say(&format!("{name:<11} done"));
                }
                Kind::Server {
                    run,
                    health,
                    listens,
                } => {
                    let server = Server::start(name, &place, run.clone(), health.clone())?;
                    let process = server.process();
                    self.servers.push((name.clone(), server));
                    let (_, server) = self.servers.last().context("it was just put there")?;
                    server.healthy().await?;
                    let listens = listens
                        .iter()
                        .map(|(what, place)| format!("{what} {place}"));
                    let listens = listens.collect::<Vec<_>>().join("  ");
                    crate::say(&format!("{name:<11} {listens}  process {process}"));
                }
            }
        }
        Ok(())
    }

    /// Waits until the one thing ends that is not started again.
    async fn keep(&mut self, folder: &Path, web: SocketAddr) -> Result<()> {
        crate::say(&format!(
            "\nReady: http://{web} in two browser windows. Logs and data: {}.\n\
             Tokens: duologue token NAME --data {}\n\
             Ctrl-C ends it.",
            folder.display(),
            folder.join(KEYS).display()
        ));
        let dynamodb = self.dynamodb.as_mut();
        dynamodb.context("the file has no DynamoDB")?.ended().await
    }

    fn server(&mut self, name: &str) -> Result<&mut Server> {
        let mut servers = self.servers.iter_mut();
        let server = servers.find_map(|(it, server)| (it == name).then_some(server));
        server.with_context(|| format!("there is no server {name}"))
    }

    /// Ends everything, what was started last first; the error is the first of them.
    async fn stop(mut self) -> Result<()> {
        let mut ended = Ok(());
        while let Some((_, server)) = self.servers.pop() {
            ended = ended.and(server.stop().await);
        }
        match self.dynamodb {
            Some(dynamodb) => ended.and(dynamodb.stop().await),
            None => ended,
        }
    }
}

/// Starts the one thing that is not ours.
pub(crate) async fn dynamodb(root: &Path, port: u16, data: PathBuf) -> Result<DynamoDbLocal> {
    let program = dynamodb_local::fetch(root)?;
    DynamoDbLocal::start(&program, &Data::Folder(data), port).await
}
