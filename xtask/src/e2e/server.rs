//! The program as a child process: start, kill, signals, exit, whether it is ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::signal;

/// How long the program may take to listen, or to make a token.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How many lines of the server's output are kept.
const KEPT_LINES: usize = 1_024;
/// Listens on any free port.
pub(super) const ANY_PORT: &str = "127.0.0.1:0";

/// A running `duologue serve`. It is killed when this is dropped.
pub(super) struct Server {
    child: Child,
    lines: mpsc::Receiver<String>,
    printed: Vec<String>,
    reader: JoinSet<()>,
    log: PathBuf,
    process: u32,
    grpc: SocketAddr,
    web: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts the program in a folder and waits until it has printed where it
    /// listens.
    pub(super) async fn start(program: &Path, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let mut server = Self::spawn(program, folder, arguments, &[])?;
        server.listening().await?;
        Ok(server)
    }

    /// The same with a command that becomes the program.
    pub(super) async fn start_by(command: Command, folder: &Path) -> Result<Self> {
        let mut server = Self::launch(command, folder)?;
        server.listening().await?;
        Ok(server)
    }

    /// Starts the program in a folder, with this in its environment.
    pub(super) fn spawn(
        program: &Path,
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(arguments)
            .envs(environment.iter().copied());
        Self::launch(command, folder)
    }

    fn launch(mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join("serve.log");
        let errors = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .context("cannot write the server's log")?;
        let mut child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("cannot start {}", command.as_std().get_program().display())
            })?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let (sender, lines) = mpsc::channel(KEPT_LINES);
        let mut reader = JoinSet::new();
        reader.spawn(keep_lines(stdout, sender));
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            process: child.id().context("the server has ended already")?,
            child,
            lines,
            printed: Vec::new(),
            reader,
            log,
            grpc: unknown,
            web: unknown,
            admin: unknown,
        })
    }

    /// Waits until it has printed where it listens.
    pub(super) async fn listening(&mut self) -> Result<()> {
        self.grpc = self.wait_for_address("grpc").await?;
        self.web = self.wait_for_address("web").await?;
        self.admin = self.wait_for_address("admin").await?;
        Ok(())
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    /// Where it serves gRPC.
    pub(super) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where it serves browsers.
    pub(super) fn web(&self) -> SocketAddr {
        self.web
    }

    /// The first lines that it prints; waits for those that are missing.
    pub(super) async fn first_lines(&mut self, count: usize) -> Result<&[String]> {
        while self.printed.len() < count {
            self.read_line().await?;
        }
        Ok(&self.printed[..count])
    }

    /// Sends SIGKILL, without waiting for the end.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.start_kill().context("cannot kill the server")
    }

    /// Sends a signal, by its name without `SIG`.
    pub(super) async fn signal(&self, name: &str) -> Result<()> {
        let process = self.child.id().context("the server has ended already")?;
        signal::send(name, process).await
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => status.context("cannot wait for the server"),
            Err(_) => bail!("the server has not ended within {} s", limit.as_secs()),
        }
    }

    /// Whether it says by HTTP that it may get calls.
    pub(super) async fn is_ready(&self) -> Result<bool> {
        let answer = timeout(START_LIMIT, ask_ready(self.admin));
        let answer = answer.await.context("/readyz does not answer")??;
        match answer.split(' ').nth(1) {
            Some("200") => Ok(true),
            Some("503") => Ok(false),
            _ => bail!("/readyz answers {answer:?}"),
        }
    }

    /// Waits until nobody can write to its output any more.
    pub(super) async fn closed(&mut self, limit: Duration) -> Result<()> {
        if timeout(limit, self.reader.join_next()).await.is_err() {
            bail!("the output is open after {} s", limit.as_secs());
        }
        Ok(())
    }

    /// The next printed `address:port` of a line about this.
    async fn wait_for_address(&mut self, what: &str) -> Result<SocketAddr> {
        loop {
            let line = self.read_line().await?;
            if !line.to_ascii_lowercase().contains(what) {
                continue;
            }
            if let Some(address) = address_in(&line) {
                return Ok(address);
            }
        }
    }

    async fn read_line(&mut self) -> Result<String> {
        let Ok(line) = timeout(START_LIMIT, self.lines.recv()).await else {
            bail!("the server prints nothing more; {}", self.evidence());
        };
        let Some(line) = line else {
            bail!("the server has closed its output; {}", self.evidence());
        };
        self.printed.push(line.clone());
        Ok(line)
    }

    /// What it has said so far.
    fn evidence(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!(
            "it printed:\n{}\nand logged:\n{log}",
            self.printed.join("\n")
        )
    }
}

/// Reads everything, so that the server never waits for a reader, and keeps the
/// first lines.
async fn keep_lines(stdout: ChildStdout, kept: mpsc::Sender<String>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // When it is full, nobody waits for more.
        let _ = kept.try_send(line);
    }
}

async fn ask_ready(admin: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Whether a process still runs: it has not even begun to end, so that whatever it
/// has open is open.
pub(super) fn is_alive(process: u32) -> bool {
    // PF_EXITING of the kernel.
    const EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else {
        return false;
    };
    // After the name, which may hold anything: the state, and the flags as the 7th.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    let state = fields.next().unwrap_or("X");
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    !matches!(state, "Z" | "X") && flags.is_some_and(|flags| flags & EXITING == 0)
}

/// Makes a token as a person would.
pub(super) async fn token(program: &Path, data: &Path, user: &str) -> Result<String> {
    let output = Command::new(program)
        .args(["token", user, "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(output) = timeout(START_LIMIT, output).await else {
        bail!("`duologue token` does not end");
    };
    let output = output.context("cannot run `duologue token`")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`duologue token` failed:\n{errors}"
    );
    let token = String::from_utf8(output.stdout).context("a token is not UTF-8")?;
    let token = token.trim_end();
    let bare = !token.is_empty() && !token.contains(char::is_whitespace);
    ensure!(bare, "`duologue token` prints more than the bare token");
    Ok(token.to_owned())
}

/// The first `address:port` of a line, also within a URL.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| c.is_whitespace() || matches!(c, '/' | ',' | ';' | '(' | ')' | '='))
        .find_map(|word| word.trim_end_matches('.').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        // Not reaped: what is left of it is no process.
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn an_address_is_found_alone_and_within_a_url() {
        let expected = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
        assert_eq!(address_in("gRPC listens on 127.0.0.1:4711"), expected);
        assert_eq!(
            address_in("gRPC   http://127.0.0.1:4711/ (plain)"),
            expected
        );
        assert_eq!(address_in("grpc=127.0.0.1:4711, ready."), expected);
        assert_eq!(address_in("gRPC is on"), None);
    }
}
