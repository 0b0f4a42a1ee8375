//! One process of a cluster: start, kill, signals, whether it is ready. It has its
//! ports for life, so that it can be started again in its place.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::server::ask_ready;

/// How long a process may take to be ready, or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);
/// How long one question may take.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// What a process is started with, each time.
#[derive(Debug, Clone)]
pub(super) struct Role {
    /// How it is named in records and logs.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Where it says whether it is ready.
    pub(super) admin: SocketAddr,
    pub(super) folder: PathBuf,
}

/// A process, running or not; killed when this is dropped.
pub(super) struct Process {
    role: Role,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(role: Role) -> Self {
        Self { role, child: None }
    }

    /// Starts it, and does not wait.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = log_of(&self.role.folder, &self.role.name)?;
        let output = log.try_clone().context("cannot share a log")?;
        let child = Command::new(&self.role.program)
            .args(&self.role.arguments)
            .envs(
                self.role
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir(&self.role.folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.with_context(|| format!("cannot start {}", self.role.name))?);
        Ok(())
    }

    /// Waits until it says that it may get calls.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        loop {
            if self.is_ready().await {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "{} has ended: {status}; {}",
                    self.role.name,
                    self.evidence()
                );
            }
            ensure!(
                Instant::now() < limit,
                "{} is not ready after {} s; {}",
                self.role.name,
                LIMIT.as_secs(),
                self.evidence()
            );
            sleep(POLL).await;
        }
    }

    /// Whether it says now that it may get calls.
    pub(super) async fn is_ready(&self) -> bool {
        let answer = timeout(ASK_LIMIT, ask_ready(self.role.admin)).await;
        matches!(answer, Ok(Ok(answer)) if answer.split(' ').nth(1) == Some("200"))
    }

    /// Sends SIGKILL, and waits until it has ended.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill().await.context("cannot kill a process")
    }

    /// Sends a signal, by its name without `SIG`.
    pub(super) async fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let process = child.id().context("it has ended")?;
        let status = Command::new("kill")
            .args(["-s", name, &process.to_string()])
            .status()
            .await
            .context("cannot run kill")?;
        ensure!(status.success(), "{} has ended", self.role.name);
        Ok(())
    }

    /// Waits until it has ended by itself, with success.
    pub(super) async fn ended(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let ended = timeout(LIMIT, child.wait()).await;
        let status = ended.with_context(|| format!("{} does not end", self.role.name))??;
        ensure!(status.success(), "{} ended with {status}", self.role.name);
        Ok(())
    }

    fn evidence(&self) -> String {
        let log = self.role.folder.join(format!("{}.log", self.role.name));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(20);
        format!("its log ends:\n{}", lines[last..].join("\n"))
    }
}

fn log_of(folder: &Path, name: &str) -> Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(format!("{name}.log")))
        .context("cannot write a log")
}
