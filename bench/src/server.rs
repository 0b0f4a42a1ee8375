//! A server as a child process on a core of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;
use tempfile::TempDir;

use crate::driver;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The relay that stores nothing
    Bare,
    /// Duologue, on its embedded store
    Duologue,
}

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The program `duologue`.
    pub(crate) program: PathBuf,
    /// Where data directories are made.
    pub(crate) folder: PathBuf,
    /// The server's core.
    pub(crate) core: usize,
}

/// A running server with nothing stored; it is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    _output: BufReader<ChildStdout>,
    data: TempDir,
    kind: Kind,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(kind: Kind, place: &Place) -> Result<Self> {
        let data = TempDir::new_in(&place.folder)?;
        if kind == Kind::Duologue {
            DevKey::load_or_create(data.path())?;
        }
        let mut command = Command::new("taskset");
        command.args(["-c", &place.core.to_string()]);
        match kind {
            Kind::Bare => {
                command.arg(std::env::current_exe()?).arg("bare");
            }
            Kind::Duologue => {
                command.arg(&place.program).args(FLAGS);
                command.arg("--data").arg(data.path());
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(place.folder.join("server.log"))?)
            .spawn()
            .context("cannot run taskset, of util-linux")?;
        let output = child.stdout.take().context("the server has no output")?;
        let mut output = BufReader::new(output);
        let address = address(&mut output);
        let mut server = Self {
            child,
            _output: output,
            data,
            kind,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.address = address.with_context(|| {
            let log = place.folder.join("server.log");
            std::fs::read_to_string(log).unwrap_or_default()
        })?;
        Ok(server)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// What each user shows at the door.
    pub(crate) fn tokens(&self, users: usize) -> Result<Vec<String>> {
        /// Longer than any run.
        const LIFETIME: Duration = Duration::from_hours(4);
        let names = (0..users).map(driver::name);
        if self.kind == Kind::Bare {
            return Ok(names.collect());
        }
        let key = DevKey::load_or_create(self.data.path())?;
        let token = |name: String| {
            let user = UserId::parse(&name)?;
            Ok(key.sign(&user, LIFETIME, &SystemClock))
        };
        names.map(token).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing of Duologue's is turned off; limits per user and per address are
/// raised, since all users come from one address and write without rest. Who sees
/// whom is as in production, where no development key is in use.
const FLAGS: [&str; 18] = [
    "serve",
    "--presence-visibility=shared",
    "--grpc-listen=127.0.0.1:0",
    "--admin-listen=127.0.0.1:0",
    "--sends",
    "1000000/1000000",
    "--calls",
    "1000000/1000000",
    "--connects",
    "1000000/1000000",
    "--sessions-per-address",
    "20000",
    "--connections-per-address",
    "20000",
    "--connections",
    "20000",
    "--log",
    "warn",
];

/// The first address on a line about gRPC.
fn address(output: &mut impl std::io::BufRead) -> Result<SocketAddr> {
    for line in output.lines() {
        let line = line?;
        if !line.contains("gRPC") {
            continue;
        }
        let mut words = line.split(|c: char| c.is_whitespace() || c == '/');
        if let Some(address) = words.find_map(|word| word.parse().ok()) {
            return Ok(address);
        }
    }
    anyhow::bail!("the server did not say where it listens")
}
