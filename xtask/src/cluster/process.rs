//! One server as a process of this machine: run as Compose runs it (`unless-stopped`), so
//! that one which ends is started again, until it is told to end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::plan::Line;
use crate::signal;

/// How long a server may take to be ready, and a command to end.
const LIMIT: Duration = Duration::from_mins(1);
/// How long it may take to end: as `stop_grace_period` says.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two questions whether it is ready.
const POLL: Duration = Duration::from_millis(100);
/// Before one that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Where programs and logs are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) programs: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Place {
    /// The command, with nothing in its environment but what the file says.
    fn command(&self, line: &Line) -> Command {
        let mut command = Command::new(self.programs.join(&line.program));
        command
            .args(&line.arguments)
            .env_clear()
            .envs(&line.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // Ctrl-C is for the task, which ends them in order.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, line: &Line) -> Result<()> {
        let ended = timeout(LIMIT, self.command(line).output()).await;
        let output = ended.with_context(|| format!("{line} does not end"))?;
        let output = output.with_context(|| format!("cannot run {}", line.program))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line} failed:\n{errors}");
        Ok(())
    }

    /// Starts a server, whose output is added to its log.
    pub(crate) fn spawn(&self, run: &Line, log: &File) -> Result<Child> {
        let mut command = self.command(run);
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let child = command.spawn();
        child.with_context(|| format!("cannot run {}", run.program))
    }

    /// Waits until the health check of a server succeeds, and no longer than this.
    pub(crate) async fn healthy(&self, name: &str, health: &Line, limit: Duration) -> Result<()> {
        let limit = Instant::now() + limit;
        loop {
            let Err(error) = self.run(health).await else {
                return Ok(());
            };
            if Instant::now() > limit {
                bail!("{name} is not ready: {error}\n{}", self.evidence(name));
            }
            sleep(POLL).await;
        }
    }

    /// An empty log of a server.
    pub(crate) fn make_log(&self, name: &str) -> Result<File> {
        File::create(self.log(name)).context("cannot write a log")
    }

    /// What a server has said last.
    pub(crate) fn evidence(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("its log ends:\n{last}")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{} {}`", self.program, self.arguments.join(" "))
    }
}

/// A server; its process is killed when this is dropped.
pub(super) struct Server {
    name: String,
    place: Place,
    health: Line,
    stop: oneshot::Sender<()>,
    process: watch::Receiver<u32>,
    keeper: JoinSet<Result<()>>,
}

impl Server {
    /// Starts it, and does not wait until it is ready.
    pub(super) fn start(name: &str, place: &Place, run: Line, health: Line) -> Result<Self> {
        let log = place.make_log(name)?;
        let first = place.spawn(&run, &log)?;
        let (stop, stopped) = oneshot::channel();
        let (tell, process) = watch::channel(first.id().unwrap_or_default());
        let mut keeper = JoinSet::new();
        let kept = Kept {
            name: name.to_owned(),
            place: place.clone(),
            run,
            log,
            process: tell,
        };
        keeper.spawn(kept.keep(first, stopped));
        Ok(Self {
            name: name.to_owned(),
            place: place.clone(),
            health,
            stop,
            process,
            keeper,
        })
    }

    /// Its process now.
    pub(super) fn process(&self) -> u32 {
        *self.process.borrow()
    }

    /// Waits until it was started once more.
    pub(super) async fn started_again(&mut self) -> Result<()> {
        let changed = timeout(LIMIT, self.process.changed()).await;
        let changed = changed.with_context(|| format!("{} is not started again", self.name))?;
        changed.with_context(|| format!("{} has been given up", self.name))
    }

    /// Waits until its health check succeeds.
    pub(super) async fn healthy(&self) -> Result<()> {
        self.place.healthy(&self.name, &self.health, LIMIT).await
    }

    /// Tells it to end, and waits.
    pub(super) async fn stop(mut self) -> Result<()> {
        // Gone only if keeping it has failed, which is told next.
        let _ = self.stop.send(());
        let kept = self.keeper.join_next().await;
        kept.context("a server has no keeper")??
    }
}

/// What is needed to start it again.
struct Kept {
    name: String,
    place: Place,
    run: Line,
    log: File,
    process: watch::Sender<u32>,
}

impl Kept {
    async fn keep(self, mut child: Child, mut stopped: oneshot::Receiver<()>) -> Result<()> {
        loop {
            tokio::select! {
                _ = &mut stopped => return end(&self.name, child).await,
                status = child.wait() => self.tell(status?),
            }
            tokio::select! {
                _ = &mut stopped => return Ok(()),
                () = sleep(PAUSE) => {}
            }
            child = self.place.spawn(&self.run, &self.log)?;
            let process = child.id().unwrap_or_default();
            self.process.send_replace(process);
            crate::say(&format!(
                "{}: started again as process {process}",
                self.name
            ));
        }
    }

    fn tell(&self, status: ExitStatus) {
        crate::say(&format!("{} has ended: {status}", self.name));
    }
}

/// TERM, as Compose does, and KILL when that takes too long.
pub(crate) async fn end(name: &str, mut child: Child) -> Result<()> {
    if let Some(process) = child.id() {
        signal::send("TERM", process).await?;
    }
    match timeout(STOP_LIMIT, child.wait()).await {
        Ok(status) => {
            let status = status?;
            ensure!(status.success(), "{name} ended with {status}");
            Ok(())
        }
        Err(_) => bail!("{name} does not end"),
    }
}

/// Makes the folder with its parents.
pub(crate) fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
