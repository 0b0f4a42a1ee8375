//! The processes of a cluster, and what can be done to them. They are those of
//! docker-compose.yml, so that what is broken here is what is shipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::super::Setup;
use super::super::load::{UNBOUNDED, UNBOUNDED_REQUESTS};
use super::link::Link;
use super::process::Process;
use crate::cluster::plan::{Kind, Line, Plan};
use crate::cluster::process::{Place, make};
use crate::cluster::{self, PROFILE};
use crate::dynamodb_local::DynamoDbLocal;

/// Of each service.
const REPLICAS: usize = 2;
/// The volume with the key that signs users' tokens.
const KEYS: &str = "keys";

/// What a process is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Gateway,
    Chat,
    History,
    Presence,
}

impl Service {
    /// A replica as the file names it; the first is 0.
    fn replica(self, number: usize) -> String {
        let name = match self {
            Self::Gateway => "gateway",
            Self::Chat => "chat",
            Self::History => "history",
            Self::Presence => "presence",
        };
        format!("{name}-{}", number % REPLICAS + 1)
    }
}

/// Two processes of each service, and DynamoDB Local.
pub(super) struct System {
    program: PathBuf,
    /// In memory, and yet there when a process is started again: what DynamoDB Local
    /// syncs is not the matter.
    folder: TempDir,
    dynamo: DynamoDbLocal,
    /// In the order in which they are started and restarted.
    servers: Vec<Process>,
    chat_addresses: Vec<SocketAddr>,
    gateways: Vec<SocketAddr>,
    /// The way to each chat node, for the others.
    links: Vec<Link>,
}

impl System {
    /// Starts everything, and waits until all are ready.
    pub(super) async fn start(setup: &Setup) -> Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm").context("no folder in memory")?;
        // Before the plan, which has free ports told and not taken.
        let mut entrances = Vec::new();
        for _ in 0..REPLICAS {
            entrances.push(Link::entrance().await?);
        }
        let plan = Plan::of(&setup.root, PROFILE, folder.path(), false)?;
        let programs = setup.program.parent();
        let place = Place {
            programs: programs.context("the program has no folder")?.to_path_buf(),
            folder: folder.path().to_path_buf(),
        };
        for volume in &plan.volumes {
            make(&folder.path().join(volume))?;
        }
        let listening = |service: Service, what| {
            let names = (0..REPLICAS).map(|number| service.replica(number));
            let addresses = names.map(|name| plan.listens(&name, what));
            addresses.collect::<Result<_>>()
        };
        let chat_addresses = listening(Service::Chat, "grpc")?;
        let gateways = listening(Service::Gateway, "web")?;
        let (mut dynamo, mut servers, mut links) = (None, Vec::new(), Vec::new());
        for step in &plan.steps {
            match &step.kind {
                Kind::DynamoDb { port, data } => {
                    let started = cluster::dynamodb(&setup.root, *port, data.clone());
                    dynamo = Some(started.await?);
                }
                Kind::Once(line) => place.run(line).await?,
                Kind::Server { run, health, .. } => {
                    let mut run = run.clone();
                    if step.name.starts_with("chat-") {
                        let entrance = entrances.pop().context("more nodes than links")?;
                        let link = Link::new(entrance, plan.listens(&step.name, "internal")?)?;
                        reached_by(&mut run, &link);
                        links.push(link);
                    }
                    if step.name.starts_with("gateway-") {
                        run.arguments.extend(UNBOUNDED_REQUESTS.map(str::to_owned));
                    }
                    let mut server = Process::new(&step.name, &place, run, health.clone())?;
                    server.start()?;
                    servers.push(server);
                }
            }
        }
        let mut system = Self {
            program: setup.program.clone(),
            folder,
            dynamo: dynamo.context("the file has no DynamoDB")?,
            servers,
            chat_addresses,
            gateways,
            links,
        };
        system.all_ready().await?;
        Ok(system)
    }

    fn of(&mut self, service: Service, number: usize) -> Result<&mut Process> {
        let name = service.replica(number);
        let mut servers = self.servers.iter_mut();
        let server = servers.find(|server| server.name() == name);
        server.with_context(|| format!("there is no {name}"))
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Where the key is that signs users' tokens.
    pub(super) fn keys(&self) -> PathBuf {
        self.folder.path().join(KEYS)
    }

    pub(super) fn chat_addresses(&self) -> Vec<SocketAddr> {
        self.chat_addresses.clone()
    }

    pub(super) fn gateways(&self) -> Vec<SocketAddr> {
        self.gateways.clone()
    }

    /// Where the chat node listens that is struck as the so manieth, and where another.
    pub(super) fn struck_and_other(&self, number: usize) -> [SocketAddr; 2] {
        [number, number + 1].map(|number| self.chat_addresses[number % REPLICAS])
    }

    pub(super) async fn all_ready(&mut self) -> Result<()> {
        for server in &mut self.servers {
            server.ready().await?;
        }
        Ok(())
    }

    pub(super) async fn kill(&mut self, service: Service, number: usize) -> Result<()> {
        self.of(service, number)?.kill().await
    }

    pub(super) async fn start_again(&mut self, service: Service, number: usize) -> Result<()> {
        let process = self.of(service, number)?;
        process.start()?;
        process.ready().await
    }

    pub(super) async fn signal_chat(&mut self, number: usize, name: &str) -> Result<()> {
        self.of(Service::Chat, number)?.signal(name).await
    }

    /// The chat nodes do not reach each other from now on.
    pub(super) fn cut(&self) {
        self.links.iter().for_each(Link::cut);
    }

    /// They do again.
    pub(super) fn mend(&self) {
        self.links.iter().for_each(Link::mend);
    }

    pub(super) fn dynamodb(&mut self) -> &mut DynamoDbLocal {
        &mut self.dynamo
    }

    /// Ends and starts each process in turn, the next when the last is ready.
    pub(super) async fn roll(&mut self) -> Result<()> {
        for server in &mut self.servers {
            server.stop().await?;
            server.start()?;
            server.ready().await?;
        }
        Ok(())
    }

    /// Ends all, gateways and chat first; each must end well.
    pub(super) async fn stop(mut self) -> Result<()> {
        while let Some(mut server) = self.servers.pop() {
            server.stop().await?;
        }
        self.dynamo.stop().await
    }
}

/// A chat node is met by others over a link, and takes any load.
fn reached_by(run: &mut Line, link: &Link) {
    let advertise = "DUOLOGUE_INTERNAL_ADVERTISE".to_owned();
    run.environment
        .insert(advertise, link.address().to_string());
    run.arguments.extend(UNBOUNDED.map(str::to_owned));
}
