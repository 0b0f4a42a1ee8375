//! A disk that fails under load: every sync of the writer fails (strace), and a
//! disk that is full (a small tmpfs). Nothing is acknowledged from then on, which
//! the server says of itself; reads go on; a restart with room heals, and the
//! checker judges the whole.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conformance::driver::Kind;
use conformance::event::Event;
use conformance::record::Record;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::{Body, ListMessagesRequest, SendMessageRequest, body};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::Setup;
use super::load::{Load, Serving, drive, met, note};
use super::server::{Server, token};
use super::tracer::Tracer;

/// How long clients do what they like.
const WILD: Duration = Duration::from_secs(11);
/// How long the server may take to notice a disk that fails.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
/// How long the load may take to fill a small disk.
const FILL_LIMIT: Duration = Duration::from_secs(20);
/// How long it is left so, under load.
const BROKEN: Duration = Duration::from_secs(3);
/// Events before the disk fails.
const FLOW: u64 = 600;
/// Full within seconds, and large enough to open a history in.
const SMALL_BYTES: u64 = 2 * 1024 * 1024;
const LARGE_BYTES: u64 = 256 * 1024 * 1024;
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Breaks the disk in both ways; says what was seen.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let failing = failing_sync(setup).await.context("a failing fsync")?;
    let full = full_disk(setup).await.context("a full disk")?;
    Ok(format!(
        "failing fdatasync (strace): {failing}; full tmpfs: {full}"
    ))
}

async fn failing_sync(setup: &Setup) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let loads = loads(setup.seed);
    let mut serving = Serving::new(folder.path());
    let server = serving.start(&setup.program, &[]).await?;
    let addresses = [server.grpc()];
    let probe = Probe::new(setup, folder.path(), &server).await?;
    let breaks = async {
        for load in &loads {
            load.flows(FLOW, Instant::now() + NOTICE_LIMIT).await;
        }
        note(&loads, &kill("fdatasync fails"));
        let tracer = Tracer::attach(server.process(), "error=EIO:when=1+").await?;
        let seen = broken(setup, &loads, &server, &probe).await?;
        end(server).await?;
        drop(tracer);
        let server = serving.start(&setup.program, &[]).await?;
        note(&loads, &Event::Heal);
        Ok((seen, server))
    };
    let data = folder.path().join("data");
    let place = (addresses.as_slice(), data.as_path());
    let ((seen, server), records) = drive(&loads, place, breaks, &setup.records).await?;
    healed(&server, &probe).await?;
    let (unanswered, duplicates) = met(&records);
    Ok(format!(
        "{seen}; it met {unanswered} sends without an answer, {duplicates} retries were duplicates"
    ))
}

async fn full_disk(setup: &Setup) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).context("cannot make a folder")?;
    let disk = SmallDisk::mount(&data).await?;
    let loads = loads(setup.seed.wrapping_add(2));
    let mut serving = Serving::new(folder.path());
    let server = serving.start(&setup.program, &[]).await?;
    let addresses = [server.grpc()];
    let probe = Probe::new(setup, folder.path(), &server).await?;
    let breaks = async {
        let from = Instant::now();
        // Until the disk is full, which nobody does but the load.
        let places = until_full(&loads, &server).await?;
        let filled = from.elapsed();
        for (load, place) in loads.iter().zip(places) {
            load.recorder.note_at(place, kill("the disk is full"));
        }
        let seen = broken(setup, &loads, &server, &probe).await?;
        end(server).await?;
        disk.resize(LARGE_BYTES).await?;
        let server = serving.start(&setup.program, &[]).await?;
        note(&loads, &Event::Heal);
        Ok((seen, server, filled))
    };
    let place = (addresses.as_slice(), data.as_path());
    let ((seen, server, filled), records) = drive(&loads, place, breaks, &setup.records).await?;
    healed(&server, &probe).await?;
    let (unanswered, duplicates) = met(&records);
    let filled = filled.as_millis();
    Ok(format!(
        "full after {filled} ms; {seen}; it met {unanswered} sends without an answer, {duplicates} retries were duplicates"
    ))
}

/// Both kinds of clients at once.
fn loads(seed: u64) -> [Load; 2] {
    [
        Load::new(Kind::Stubs, seed, WILD),
        Load::new(Kind::Client, seed.wrapping_add(1), WILD),
    ]
}

fn kill(what: &str) -> Event {
    Event::Kill { what: what.into() }
}

/// Waits until the server is not ready any more. Returns a place in each record at
/// which it was.
async fn until_full(loads: &[Load], server: &Server) -> Result<Vec<u64>> {
    let reserve = || loads.iter().map(|load| load.recorder.reserve()).collect();
    let limit = Instant::now() + FILL_LIMIT;
    let mut ready: Vec<u64> = reserve();
    while Instant::now() < limit {
        let places = reserve();
        if !server.is_ready().await? {
            return Ok(ready);
        }
        ready = places;
        sleep(POLL).await;
    }
    bail!(
        "the disk is not full after {} s of load",
        FILL_LIMIT.as_secs()
    )
}

/// The disk fails: the server says so, nothing is acknowledged, reads go on.
async fn broken(setup: &Setup, loads: &[Load], server: &Server, probe: &Probe) -> Result<String> {
    let limit = Instant::now() + NOTICE_LIMIT;
    while server.is_ready().await? {
        ensure!(Instant::now() < limit, "the server says that it is ready");
        sleep(POLL).await;
    }
    ensure!(
        !is_healthy(setup, server).await?,
        "`duologue health` says that it serves"
    );
    let places: Vec<u64> = loads.iter().map(|load| load.recorder.reserve()).collect();
    let mut reads = 0;
    let until = Instant::now() + BROKEN;
    while Instant::now() < until {
        probe.reads().await.context("reads do not go on")?;
        reads += 1;
        probe.is_refused().await?;
        sleep(POLL).await;
    }
    ensure!(!server.is_ready().await?, "the server is ready again");
    let mut refused = Refused::default();
    for (load, place) in loads.iter().zip(places) {
        refused.take(&load.recorder.record(), place)?;
    }
    ensure!(
        refused.sends > 0 && refused.deferred > 0,
        "no client was refused: this shows nothing"
    );
    Ok(format!(
        "not ready, health says so, {reads} reads went on, of {} sends none was acknowledged \
         and {} answers were \"unavailable\"",
        refused.sends, refused.deferred
    ))
}

/// What clients were told while the disk failed.
#[derive(Default)]
struct Refused {
    sends: usize,
    deferred: usize,
}

impl Refused {
    /// Fails if a message that was first sent after this place is acknowledged.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other events say nothing of sends"
    )]
    fn take(&mut self, record: &Record, place: u64) -> Result<()> {
        let mut before = std::collections::BTreeSet::new();
        for entry in &record.entries {
            match &entry.event {
                Event::Send(send) if entry.at < place => {
                    before.insert(send.message_id.as_str());
                }
                Event::Send(_) => self.sends += 1,
                Event::Stored(stored) if entry.at > place => ensure!(
                    before.contains(stored.message_id.as_str()),
                    "{} was acknowledged, but cannot be on the disk",
                    stored.message_id
                ),
                Event::Deferred(refused) if entry.at > place => {
                    let reason = refused.reason.to_ascii_lowercase();
                    self.deferred += usize::from(reason.contains("unavailable"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Ends a server as an operator would who has no other way.
async fn end(mut server: Server) -> Result<()> {
    server.kill()?;
    server.ended(NOTICE_LIMIT).await?;
    Ok(())
}

async fn healed(server: &Server, probe: &Probe) -> Result<()> {
    ensure!(server.is_ready().await?, "the server is not ready again");
    probe
        .send()
        .await
        .context("a send is refused after the restart")?;
    Ok(())
}

async fn is_healthy(setup: &Setup, server: &Server) -> Result<bool> {
    let status = Command::new(&setup.program)
        .args(["health", "--addr", &format!("http://{}", server.grpc())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = timeout(COMMAND_LIMIT, status).await;
    Ok(status.context("`duologue health` does not end")??.success())
}

/// A user beside the load, who has one message.
struct Probe {
    chat: ChatServiceClient<Channel>,
    token: String,
}

const PROBE: &str = "probe";
const TEXT: &str = "before";

impl Probe {
    async fn new(setup: &Setup, folder: &Path, server: &Server) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{}", server.grpc()))?
            .timeout(COMMAND_LIMIT)
            .connect_lazy();
        let probe = Self {
            chat: ChatServiceClient::new(channel),
            token: token(&setup.program, &folder.join("data"), PROBE).await?,
        };
        probe.send().await?;
        Ok(probe)
    }

    async fn send(&self) -> Result<(), Status> {
        let kind = Some(body::Kind::Text(TEXT.into()));
        let request = self.request(SendMessageRequest {
            peer: PROBE.into(),
            body: Some(Body { kind }),
            ..SendMessageRequest::default()
        })?;
        self.chat.clone().send_message(request).await.map(|_| ())
    }

    /// What is stored can be read.
    async fn reads(&self) -> Result<()> {
        let request = self.request(ListMessagesRequest {
            peer: PROBE.into(),
            ..ListMessagesRequest::default()
        })?;
        let page = self.chat.clone().list_messages(request).await?.into_inner();
        ensure!(
            page.messages.len() == 1,
            "{} messages are read",
            page.messages.len()
        );
        Ok(())
    }

    async fn is_refused(&self) -> Result<()> {
        match self.send().await {
            Err(status) if status.code() == Code::Unavailable => Ok(()),
            other => bail!("a send is answered with {other:?}"),
        }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token).parse();
        let value = value.map_err(|_| Status::internal("the token is not ASCII"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A tmpfs, as root or by sudo.
struct SmallDisk {
    folder: String,
}

impl SmallDisk {
    async fn mount(folder: &Path) -> Result<Self> {
        let folder = folder.to_string_lossy().into_owned();
        let options = format!("size={SMALL_BYTES},mode=777");
        as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &folder]).await?;
        Ok(Self { folder })
    }

    async fn resize(&self, bytes: u64) -> Result<()> {
        let options = format!("remount,size={bytes}");
        as_root(&["mount", "-o", &options, &self.folder]).await
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Even while a process ends that has it open.
        let unmount = ["umount", "--lazy", &self.folder];
        let done = root_commands(&unmount).any(|command| {
            let output = std::process::Command::new(command[0])
                .args(&command[1..])
                .output();
            output.is_ok_and(|output| output.status.success())
        });
        if !done {
            crate::say(&format!("{} is still mounted", self.folder));
        }
    }
}

/// Runs a command that only root may run.
async fn as_root(command: &[&str]) -> Result<()> {
    let mut last = String::new();
    for whole in root_commands(command) {
        let output = Command::new(whole[0])
            .args(&whole[1..])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match timeout(COMMAND_LIMIT, output).await.context("it hangs")? {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => last = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => last = error.to_string(),
        }
    }
    bail!("{command:?} needs root, or sudo without a password: {last}")
}

/// The ways to run it: as it is, and by sudo.
fn root_commands<'a>(command: &'a [&'a str]) -> impl Iterator<Item = Vec<&'a str>> {
    [&[][..], &["sudo", "-n"]]
        .into_iter()
        .map(move |prefix| [prefix, command].concat())
}
