//! The processes of a cluster, and what can be done to them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::super::Setup;
use super::super::load::UNBOUNDED;
use super::link::Link;
use super::process::{Process, Role};
use crate::dynamodb_local::{self, Data, DynamoDbLocal};

/// Of each service.
const REPLICAS: usize = 2;
const TABLE_PREFIX: &str = "e2e-";
/// Of the development key, whose folder is that of the one process.
const PUBLIC_KEY: &str = "public-key.json";

/// What a process is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Chat,
    History,
    Presence,
}

/// Two processes of each service, and DynamoDB Local.
pub(super) struct System {
    program: PathBuf,
    folder: PathBuf,
    dynamo: DynamoDbLocal,
    _memory: tempfile::TempDir,
    history: Vec<Process>,
    presence: Vec<Process>,
    chat: Vec<Process>,
    chat_addresses: Vec<SocketAddr>,
    /// The way to each chat node, for the others.
    links: Vec<Link>,
}

impl System {
    /// Starts everything, and waits until all are ready.
    pub(super) async fn start(setup: &Setup, folder: &Path) -> Result<Self> {
        let fetched = dynamodb_local::fetch(&setup.root)?;
        // In memory and yet there when it is started again: its syncs are not the matter.
        let memory = tempfile::tempdir_in("/dev/shm").context("no folder in memory")?;
        let data = Data::Folder(memory.path().join("dynamodb"));
        let dynamo = DynamoDbLocal::start(&fetched, &data, 0).await?;
        let environment = environment(&dynamo);
        run(
            &setup.program,
            folder,
            &environment,
            &["tables", "create", "--table-prefix", TABLE_PREFIX],
        )?;
        let public_key = ["public-key", "--data", "data", "--out", PUBLIC_KEY];
        run(&setup.program, folder, &environment, &public_key)?;
        let role = |program: &str, number: usize, admin: SocketAddr, arguments: Vec<String>| Role {
            name: format!("{program}-{number}"),
            program: setup.program.with_file_name(program),
            arguments,
            environment: environment.clone(),
            admin,
            folder: folder.to_path_buf(),
        };
        let inner = |program: &'static str| -> Result<(Vec<Process>, String)> {
            let mut processes = Vec::new();
            let mut addresses = Vec::new();
            for number in 1..=REPLICAS {
                let (listen, admin) = (free_address()?, free_address()?);
                let arguments = words(&[
                    "--internal-listen",
                    &listen.to_string(),
                    "--admin-listen",
                    &admin.to_string(),
                    "--dynamodb",
                    "--table-prefix",
                    TABLE_PREFIX,
                ]);
                processes.push(Process::new(role(program, number, admin, arguments)));
                addresses.push(format!("http://{listen}"));
            }
            Ok((processes, addresses.join(",")))
        };
        let (history, history_addresses) = inner("duologue-history")?;
        let (presence, presence_addresses) = inner("duologue-presence")?;
        let (mut chat, mut chat_addresses, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=REPLICAS {
            let [grpc, inner, admin] = [free_address()?, free_address()?, free_address()?];
            let link = Link::to(inner).await?;
            let mut arguments = words(&UNBOUNDED);
            arguments.extend(words(&[
                "--node",
                &format!("chat-{number}"),
                "--grpc-listen",
                &grpc.to_string(),
                "--internal-listen",
                &inner.to_string(),
                "--internal-advertise",
                &link.address().to_string(),
                "--admin-listen",
                &admin.to_string(),
                "--history",
                &history_addresses,
                "--presence",
                &presence_addresses,
                "--jwt-public-key",
                PUBLIC_KEY,
                "--presence-visibility",
                "everyone",
            ]));
            chat.push(Process::new(role(
                "duologue-chat",
                number,
                admin,
                arguments,
            )));
            chat_addresses.push(grpc);
            links.push(link);
        }
        let mut system = Self {
            program: setup.program.clone(),
            folder: folder.to_path_buf(),
            dynamo,
            _memory: memory,
            history,
            presence,
            chat,
            chat_addresses,
            links,
        };
        for process in system.processes() {
            process.start()?;
        }
        system.all_ready().await?;
        Ok(system)
    }

    /// In the order in which they are started and restarted.
    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let inner = self.history.iter_mut().chain(&mut self.presence);
        inner.chain(&mut self.chat)
    }

    fn of(&mut self, service: Service, number: usize) -> &mut Process {
        let replicas = match service {
            Service::Chat => &mut self.chat,
            Service::History => &mut self.history,
            Service::Presence => &mut self.presence,
        };
        &mut replicas[number % REPLICAS]
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn chat_addresses(&self) -> Vec<SocketAddr> {
        self.chat_addresses.clone()
    }

    /// Where the chat node listens that is struck as the so manieth, and where another.
    pub(super) fn struck_and_other(&self, number: usize) -> [SocketAddr; 2] {
        [number, number + 1].map(|number| self.chat_addresses[number % REPLICAS])
    }

    pub(super) async fn all_ready(&mut self) -> Result<()> {
        for process in self.processes() {
            process.ready().await?;
        }
        Ok(())
    }

    pub(super) async fn kill(&mut self, service: Service, number: usize) -> Result<()> {
        self.of(service, number).kill().await
    }

    pub(super) async fn start_again(&mut self, service: Service, number: usize) -> Result<()> {
        let process = self.of(service, number);
        process.start()?;
        process.ready().await
    }

    pub(super) async fn signal_chat(&mut self, number: usize, name: &str) -> Result<()> {
        self.of(Service::Chat, number).signal(name).await
    }

    /// The chat nodes do not reach each other from now on.
    pub(super) fn cut(&self) {
        self.links.iter().for_each(Link::cut);
    }

    /// They do again.
    pub(super) fn mend(&self) {
        self.links.iter().for_each(Link::mend);
    }

    /// DynamoDB is killed, and started again on its data.
    pub(super) async fn outage(&mut self, lasts: Duration) -> Result<()> {
        self.dynamo.kill().await?;
        sleep(lasts).await;
        self.dynamo.start_again().await
    }

    /// Ends and starts each process in turn, the next when the last is ready.
    pub(super) async fn roll(&mut self) -> Result<()> {
        for process in self.processes() {
            process.signal("TERM").await?;
            process.ended().await?;
            process.start()?;
            process.ready().await?;
        }
        Ok(())
    }

    /// Ends all, chat first; each must end well.
    pub(super) async fn stop(mut self) -> Result<()> {
        let replicas = [&mut self.chat, &mut self.presence, &mut self.history];
        for process in replicas.into_iter().flatten() {
            process.signal("TERM").await?;
            process.ended().await?;
        }
        self.dynamo.stop().await
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn environment(dynamo: &DynamoDbLocal) -> Vec<(String, String)> {
    let mut environment = vec![(dynamodb_local::ENDPOINT.to_owned(), dynamo.endpoint())];
    for (name, value) in dynamodb_local::ENVIRONMENT {
        environment.push((name.to_owned(), value.to_owned()));
    }
    environment
}

/// Runs a command of the one program to its end.
fn run(
    program: &Path,
    folder: &Path,
    environment: &[(String, String)],
    arguments: &[&str],
) -> Result<()> {
    let done = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .output()
        .context("cannot run the program")?;
    ensure!(
        done.status.success(),
        "`duologue {}` failed:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?)
}
