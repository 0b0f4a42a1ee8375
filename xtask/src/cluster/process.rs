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
pub(super) struct Place {
    pub(super) programs: PathBuf,
    pub(super) folder: PathBuf,
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
    pub(super) async fn run(&self, line: &Line) -> Result<()> {
        let ended = timeout(LIMIT, self.command(line).output()).await;
        let output = ended.with_context(|| format!("{line} does not end"))?;
        let output = output.with_context(|| format!("cannot run {}", line.program))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line} failed:\n{errors}");
        Ok(())
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
        let log = File::create(place.log(name)).context("cannot write a log")?;
        let first = spawn(place, &run, &log)?;
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
        let limit = Instant::now() + LIMIT;
        loop {
            let Err(error) = self.place.run(&self.health).await else {
                return Ok(());
            };
            if Instant::now() > limit {
                let log = std::fs::read_to_string(self.place.log(&self.name)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(20)..].join("\n");
                bail!("{} is not ready: {error}\nits log ends:\n{last}", self.name);
            }
            sleep(POLL).await;
        }
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
            child = spawn(&self.place, &self.run, &self.log)?;
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

fn spawn(place: &Place, run: &Line, log: &File) -> Result<Child> {
    let mut command = place.command(run);
    command.stdout(log.try_clone()?).stderr(log.try_clone()?);
    let child = command.spawn();
    child.with_context(|| format!("cannot run {}", run.program))
}

/// TERM, as Compose does, and KILL when that takes too long.
async fn end(name: &str, mut child: Child) -> Result<()> {
    if let Some(process) = child.id() {
        signal("TERM", process).await?;
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

/// Sends a signal, by its name without `SIG`.
pub(super) async fn signal(name: &str, process: u32) -> Result<()> {
    let arguments = ["-s".to_owned(), name.to_owned(), process.to_string()];
    let status = Command::new("kill").args(arguments).status().await;
    ensure!(
        status.context("cannot run kill")?.success(),
        "process {process} has ended"
    );
    Ok(())
}

/// Makes the folder with its parents.
pub(super) fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
