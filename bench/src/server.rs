//! A server as a child process on a core of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::driver::{Door as Way, Member};
use crate::machine;
use crate::probe::Probe;
use crate::say;

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

/// The server's core and the driver's.
const CORES: [usize; 2] = [0, 1];

/// Makes a place in `folder` and takes the driver to its core; says which machine
/// this is.
pub(crate) fn place(program: &Path, folder: &Path) -> Result<(TempDir, Place)> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores >= 2,
        "two cores are needed: one for the server, one for the driver"
    );
    std::fs::create_dir_all(folder).context("cannot make the folder")?;
    let folder = TempDir::new_in(folder)?;
    let place = Place {
        program: program.to_owned(),
        folder: folder.path().to_owned(),
        core: CORES[0],
    };
    say(&format!("{}\n", machine::describe()));
    machine::pin(std::process::id(), CORES[1])?;
    Ok((folder, place))
}

/// A running server with a data directory of its own.
pub(crate) struct Server {
    running: Running,
    data: TempDir,
    kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where browsers are served; the bare relay has no such place.
    pub(crate) web: Option<SocketAddr>,
}

/// The process; it is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// With nothing stored.
    pub(crate) fn start(kind: Kind, place: &Place) -> Result<Self> {
        let data = TempDir::new_in(&place.folder)?;
        if kind == Kind::Duologue {
            DevKey::load_or_create(data.path())?;
        }
        let (mut running, address) = Running::start(kind, place, data.path())?;
        let web = match kind {
            Kind::Bare => None,
            Kind::Duologue => Some(running.next_address("web")?),
        };
        Ok(Self {
            running,
            data,
            kind,
            address,
            web,
        })
    }

    /// Kills it and starts it again on the same data; returns how long it takes
    /// until it says that it serves.
    pub(crate) fn restart(&mut self, place: &Place) -> Result<Duration> {
        self.running.end()?;
        let started = Instant::now();
        let (running, address) = Running::start(self.kind, place, self.data.path())?;
        let time = started.elapsed();
        (self.running, self.address) = (running, address);
        // Where it is now, nobody has asked.
        self.web = None;
        Ok(time)
    }

    /// Where a door is.
    pub(crate) fn address_of(&self, door: Way) -> Result<SocketAddr> {
        if door.is_web() {
            return self.web.context("nothing serves browsers");
        }
        Ok(self.address)
    }

    pub(crate) fn process(&self) -> u32 {
        self.running.process()
    }

    pub(crate) fn probe(&self, place: &Place) -> Result<Probe> {
        Ok(Probe {
            servers: vec![self.process()],
            core: place.core,
            device: machine::device_of(self.data())?,
        })
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Users with what each shows at the door.
    pub(crate) fn members(
        &self,
        names: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<Member>> {
        self.door()?.members(names)
    }

    /// What one user shows at the door.
    pub(crate) fn token(&self, name: &str) -> Result<String> {
        self.door()?.token(name.to_owned())
    }

    pub(crate) fn door(&self) -> Result<Door> {
        Ok(match self.kind {
            Kind::Bare => Door::Open,
            Kind::Duologue => Door::Key(DevKey::load_or_create(self.data.path())?),
        })
    }
}

/// What is wanted at the door.
pub(crate) enum Door {
    /// The name.
    Open,
    /// A token that this has signed.
    Key(DevKey),
}

impl Door {
    /// Users with what each shows.
    pub(crate) fn members(
        &self,
        names: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<Member>> {
        let member = |(name, peer): (String, String)| {
            let token = self.token(name)?;
            Ok(Member { token, peer })
        };
        names.map(member).collect()
    }

    fn token(&self, name: String) -> Result<String> {
        /// Longer than any run.
        const LIFETIME: Duration = Duration::from_hours(4);
        match self {
            Self::Open => Ok(name),
            Self::Key(key) => Ok(key.sign(&UserId::parse(&name)?, LIFETIME, &SystemClock)),
        }
    }
}

impl Running {
    fn start(kind: Kind, place: &Place, data: &Path) -> Result<(Self, SocketAddr)> {
        match kind {
            Kind::Bare => Self::run(place, &std::env::current_exe()?, ["bare"], "gRPC"),
            Kind::Duologue => {
                let mut arguments = [
                    "serve",
                    "--web-listen=127.0.0.1:0",
                    "--requests-per-address=1000000/1000000",
                ]
                .map(OsStr::new)
                .to_vec();
                arguments.extend(FLAGS.map(OsStr::new));
                arguments.extend([OsStr::new("--data"), data.as_os_str()]);
                Self::run(place, &place.program, arguments, "gRPC")
            }
        }
    }

    /// A program on the server's core; also what it says of that name.
    pub(crate) fn run(
        place: &Place,
        program: &Path,
        arguments: impl IntoIterator<Item: AsRef<OsStr>>,
        address_of: &str,
    ) -> Result<(Self, SocketAddr)> {
        let log = place.folder.join("server.log");
        let mut child = Command::new("taskset")
            .args(["-c", &place.core.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot run taskset, of util-linux")?;
        let output = child.stdout.take().context("the server has no output")?;
        let mut running = Self {
            child,
            output: BufReader::new(output),
        };
        let address = address(&mut running.output, address_of)
            .with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
        Ok((running, address))
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it says next of that name.
    fn next_address(&mut self, name: &str) -> Result<SocketAddr> {
        address(&mut self.output, name)
    }

    fn end(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.end();
    }
}

/// Nothing of Duologue's is turned off; limits per user and per address are
/// raised, since all users come from one address and write without rest. Who sees
/// whom is as in production, where no development key is in use.
pub(crate) const FLAGS: [&str; 17] = [
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

/// The first address on a line that names it.
fn address(output: &mut impl std::io::BufRead, name: &str) -> Result<SocketAddr> {
    for line in output.lines() {
        let line = line?;
        if !line.contains(name) {
            continue;
        }
        let mut words = line.split(|c: char| c.is_whitespace() || c == '/');
        if let Some(address) = words.find_map(|word| word.parse().ok()) {
            return Ok(address);
        }
    }
    anyhow::bail!("the server did not say where it listens")
}
