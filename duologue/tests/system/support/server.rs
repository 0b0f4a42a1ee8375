//! The program as a process: started on free ports, killed when it goes out of
//! scope.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::soon;

/// The program with an empty environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Where a server keeps its data, and what it logged; outlives the server.
#[derive(Clone)]
pub(crate) struct Place(Arc<TempDir>);

impl Place {
    pub(crate) fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// A file or folder of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A token by the development key of this data directory.
    pub(crate) fn token(&self, user: &str, lifetime: Duration) -> String {
        let key = DevKey::load_or_create(&self.data()).unwrap();
        key.sign(&UserId::parse(user).unwrap(), lifetime, &SystemClock)
    }

    /// Everything that servers here have written to standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// `serve` on free ports, not yet started.
    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        let mut command = program();
        command.arg("serve").arg("--data").arg(self.data());
        if !flags.contains(&"--grpc-listen") {
            command.args(["--grpc-listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--web-listen") {
            command.args(["--web-listen", "127.0.0.1:0"]);
        }
        command.args(["--admin-listen", "127.0.0.1:0"]).args(flags);
        command
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn serve(&self, flags: &[&str]) -> Server {
        self.serve_as(self.command(flags)).await
    }

    /// Starts this very command and waits until it is ready.
    pub(crate) async fn serve_as(&self, mut command: Command) -> Server {
        let child = command
            .stdout(Stdio::piped())
            .stderr(self.log_file())
            .spawn()
            .unwrap();
        soon(Server::ready(child, self.clone())).await
    }

    fn log_file(&self) -> File {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        options.open(self.path("log")).unwrap()
    }
}

/// A server that is ready.
pub(crate) struct Server {
    child: Child,
    /// Held, so that the server can go on writing.
    stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) place: Place,
    pub(crate) banner: String,
    pub(crate) grpc: SocketAddr,
    pub(crate) web: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// A server on a place of its own.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Place::new().serve(flags).await
    }

    async fn ready(mut child: Child, place: Place) -> Self {
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        // What follows the addresses is a help for people.
        while !banner.contains("\n  history") {
            let Some(line) = stdout.next_line().await.unwrap() else {
                panic!("the server did not start: {}", place.log());
            };
            banner.push_str(&line);
            banner.push('\n');
        }
        Self {
            grpc: address(&banner, "gRPC"),
            web: address(&banner, "web"),
            admin: address(&banner, "admin"),
            child,
            stdout,
            place,
            banner,
        }
    }

    /// The rest of what the server says at its start.
    pub(crate) async fn rest_of_banner(&mut self, until: &str) -> String {
        let mut text = String::new();
        while !text.contains(until) {
            let line = soon(self.stdout.next_line()).await.unwrap();
            text.push_str(&line.expect("the server said less"));
            text.push('\n');
        }
        text
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.pid().to_string());
        let sent = Command::new("kill").args([signal, pid]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon(self.child.wait()).await.unwrap()
    }

    /// Kills the process as a power cut would.
    pub(crate) async fn kill(mut self) -> Place {
        self.child.kill().await.unwrap();
        self.place
    }
}

fn address(banner: &str, name: &str) -> SocketAddr {
    let mut words = banner.split_whitespace().skip_while(|word| *word != name);
    let url = words.nth(1).unwrap();
    url.rsplit('/').next().unwrap().parse().unwrap()
}
