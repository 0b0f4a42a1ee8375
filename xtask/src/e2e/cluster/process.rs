//! One server of the cluster, as docker-compose.yml has it, but that it stays away until
//! it is started again: start, kill, signals, whether it is ready.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Child;

use crate::cluster::plan::Line;
use crate::cluster::process::{Place, end};
use crate::signal;

/// How long a process may take to be ready.
const LIMIT: Duration = Duration::from_secs(30);

/// A process, running or not; killed when this is dropped.
pub(super) struct Process {
    name: String,
    place: Place,
    run: Line,
    health: Line,
    log: File,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(name: &str, place: &Place, run: Line, health: Line) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            place: place.clone(),
            run,
            health,
            log: place.make_log(name)?,
            child: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, and does not wait.
    pub(super) fn start(&mut self) -> Result<()> {
        self.child = Some(self.place.spawn(&self.run, &self.log)?);
        Ok(())
    }

    /// Waits until its health check succeeds.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("it does not run")?;
        tokio::select! {
            ready = self.place.healthy(&self.name, &self.health, LIMIT) => ready,
            status = child.wait() => {
                let evidence = self.place.evidence(&self.name);
                bail!("{} has ended: {}; {evidence}", self.name, status?)
            }
        }
    }

    /// Sends SIGKILL, and waits until it has ended.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill().await.context("cannot kill a process")
    }

    /// Sends a signal, by its name without `SIG`.
    pub(super) async fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        signal::send(name, child.id().context("it has ended")?).await
    }

    /// Tells it to end, and waits; it must end well.
    pub(super) async fn stop(&mut self) -> Result<()> {
        end(&self.name, self.child.take().context("it does not run")?).await
    }
}
