//! DynamoDB Local as a child process: start, pause, stop, and start again on the
//! same data and the same port. Every wait has a limit.

pub(super) mod proof;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::call::call;
use crate::signal;

const MAIN_CLASS: &str = "software.amazon.dynamodb.services.local.main.ServerRunner";
/// How long it may take to answer, or to end.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two questions whether it answers.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How long one of them waits.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Where the data is.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Gone with the process.
    Memory,
    /// In this folder, still there when it is started again.
    Folder(PathBuf),
}

/// A running DynamoDB Local; killed when this is dropped.
pub(crate) struct DynamoDbLocal {
    program: PathBuf,
    data: Data,
    address: SocketAddr,
    child: Child,
    /// It leaves libraries there at every start.
    scratch: TempDir,
}

impl DynamoDbLocal {
    /// Starts it, on any free port if `port` is 0, and waits until it answers.
    /// `program` is the folder that `fetch` returned.
    pub(crate) async fn start(program: &Path, data: &Data, port: u16) -> Result<Self> {
        let port = if port == 0 { free_port()? } else { port };
        if let Data::Folder(folder) = data {
            std::fs::create_dir_all(folder).context("cannot make the folder for the data")?;
        }
        let scratch = tempfile::tempdir().context("cannot make a folder")?;
        let mut server = Self {
            program: program.to_path_buf(),
            data: data.clone(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            child: spawn(program, data, port, scratch.path())?,
            scratch,
        };
        server.answering().await?;
        Ok(server)
    }

    /// What `AWS_ENDPOINT_URL_DYNAMODB` is to be.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nobody is answered until `go_on`; connections stay open.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Ends a pause.
    pub(crate) async fn go_on(&self) -> Result<()> {
        self.signal("CONT").await
    }

    /// Starts it again with what it was started with, after `kill`.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let port = self.address.port();
        self.child = spawn(&self.program, &self.data, port, self.scratch.path())?;
        self.answering().await
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child
            .start_kill()
            .context("cannot kill DynamoDB Local")?;
        self.wait().await.map(|_| ())
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.signal("TERM").await?;
        self.wait().await.map(|_| ())
    }

    /// Waits until it ends by itself, which it should not.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().await;
        bail!("DynamoDB Local has ended: {}", status?)
    }

    /// Whether it answers now.
    pub(crate) async fn answers(&self) -> bool {
        let tables = timeout(ASK_LIMIT, call(self.address, "ListTables", "{}")).await;
        matches!(tables, Ok(Ok((200, _))))
    }

    async fn answering(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.answers().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("DynamoDB Local has ended at its start: {status}");
            }
            ensure!(started.elapsed() < LIMIT, "DynamoDB Local does not answer");
            sleep(ASK_INTERVAL).await;
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<ExitStatus> {
        match timeout(LIMIT, self.child.wait()).await {
            Ok(status) => status.context("cannot wait for DynamoDB Local"),
            Err(_) => bail!("DynamoDB Local does not end"),
        }
    }

    async fn signal(&self, name: &str) -> Result<()> {
        let process = self.child.id().context("DynamoDB Local has ended")?;
        signal::send(name, process).await
    }
}

fn spawn(program: &Path, data: &Data, port: u16, scratch: &Path) -> Result<Child> {
    let mut command = Command::new("java");
    command
        .arg(format!("-Djava.io.tmpdir={}", scratch.display()))
        .arg(format!("-Djava.library.path={}", program.display()))
        .arg("-cp")
        .arg(program.join("*"))
        .arg(MAIN_CLASS)
        // One database whatever the credentials and the region are.
        .args(["-sharedDb", "-disableTelemetry"])
        .args(["-port", &port.to_string()]);
    match data {
        Data::Memory => command.arg("-inMemory"),
        Data::Folder(folder) => command.arg("-dbPath").arg(folder),
    };
    command
        .stdin(Stdio::null())
        // It prints how it was started, nothing that anybody waits for.
        .stdout(Stdio::null())
        // Ctrl-C is for whoever runs it, who ends it when nobody needs it any more.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run java: Java 17 is needed for DynamoDB Local")
}

/// Java is told a port and cannot be asked for one: in between another program may
/// take it, and then the start fails.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.context("there is no free port")?.port())
}
