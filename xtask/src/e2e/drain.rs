//! SIGTERM: one drains, so that sessions are told and the exit code is 0; two end
//! the process at once, even while a session holds the drain up.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use duologue_proto::chat::v1::{
    Body, ConverseRequest, ConverseResponse, GoodbyeReason, Hello, SendMessageRequest, body,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::Setup;
use super::server::{ANY_PORT, Server, token};

const SERVE: [&str; 8] = [
    "--data",
    "data",
    "--grpc-listen",
    ANY_PORT,
    "--web-listen",
    ANY_PORT,
    "--admin-listen",
    ANY_PORT,
];
/// The grace period of a server without flags.
const GRACE: Duration = Duration::from_secs(20);
/// What "at once" may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long the next frame may take.
const FRAME_LIMIT: Duration = Duration::from_secs(30);
/// HTTP/2's smallest default: what a stream that is not read takes in.
const WINDOW_BYTES: u32 = 65_535;
/// More than all buffers between a server and a client that does not read.
const BACKLOG_MESSAGES: usize = 64;
const TEXT_BYTES: usize = 8_192;

/// Runs both; says how long they took.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let drained = drains(setup, folder.path()).await?;
    let ended = ends_at_once(setup, folder.path()).await?;
    Ok(format!(
        "one SIGTERM: told, exit 0 after {} ms; two: gone after {} ms",
        drained.as_millis(),
        ended.as_millis()
    ))
}

/// One signal, with a session open and a message just stored.
async fn drains(setup: &Setup, folder: &Path) -> Result<Duration> {
    let mut server = Server::start(&setup.program, folder, &SERVE).await?;
    let mut alice = Talker::connect(setup, folder, &server, "alice").await?;
    let mut session = alice.converse().await?;
    session
        .next_until(|frame| matches!(frame, Down::CaughtUp(_)))
        .await?;

    let told = Instant::now();
    server.signal("TERM").await?;
    session.expect_shutting_down().await?;
    let status = server.ended(GRACE).await?;
    ensure!(status.success(), "a drained server ended with {status}");
    Ok(told.elapsed())
}

/// Two signals, while a session that does not read holds the drain up.
async fn ends_at_once(setup: &Setup, folder: &Path) -> Result<Duration> {
    let mut server = Server::start(&setup.program, folder, &SERVE).await?;
    let mut alice = Talker::connect(setup, folder, &server, "alice").await?;
    for _ in 0..BACKLOG_MESSAGES {
        alice.send("bob").await?;
    }
    let mut bob = Talker::connect(setup, folder, &server, "bob").await?;
    let mut unread = bob.converse().await?;
    unread
        .next_until(|frame| matches!(frame, Down::Welcome(_)))
        .await?;
    let mut session = alice.converse().await?;
    session
        .next_until(|frame| matches!(frame, Down::CaughtUp(_)))
        .await?;

    server.signal("TERM").await?;
    session.expect_shutting_down().await?;
    let told = Instant::now();
    server
        .signal("TERM")
        .await
        .context("nothing held the drain up: this shows nothing of a second signal")?;
    let status = server.ended(AT_ONCE).await?;
    ensure!(
        !status.success(),
        "it ended by itself: this shows nothing of a second signal"
    );
    Ok(told.elapsed())
}

/// A user with a token and a connection that takes in little unread.
struct Talker {
    client: ChatServiceClient<Channel>,
    token: String,
}

impl Talker {
    async fn connect(setup: &Setup, folder: &Path, server: &Server, user: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{}", server.grpc()))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect()
            .await
            .context("cannot connect")?;
        Ok(Self {
            client: ChatServiceClient::new(channel),
            token: token(&setup.program, &folder.join("data"), user).await?,
        })
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    async fn send(&mut self, peer: &str) -> Result<()> {
        let text = body::Kind::Text("x".repeat(TEXT_BYTES));
        let request = self.request(SendMessageRequest {
            peer: peer.to_owned(),
            body: Some(Body { kind: Some(text) }),
            ..SendMessageRequest::default()
        })?;
        self.client.send_message(request).await?;
        Ok(())
    }

    async fn converse(&mut self) -> Result<Session> {
        let (frames, receiver) = mpsc::channel(1);
        let hello = ConverseRequest {
            frame: Some(Up::Hello(Hello::default())),
            ..ConverseRequest::default()
        };
        frames.send(hello).await.context("the stream is closed")?;
        let request = self.request(ReceiverStream::new(receiver))?;
        let stream = self.client.converse(request).await?.into_inner();
        Ok(Session {
            stream,
            _frames: frames,
        })
    }
}

/// An open session; the stream up stays open as long as it.
struct Session {
    stream: Streaming<ConverseResponse>,
    _frames: mpsc::Sender<ConverseRequest>,
}

impl Session {
    /// The next frame; none at the end of the stream, however it ends.
    async fn next(&mut self) -> Result<Option<Down>> {
        match timeout(FRAME_LIMIT, self.stream.message()).await {
            Ok(Ok(Some(response))) => Ok(response.frame),
            Ok(Ok(None) | Err(_)) => Ok(None),
            Err(_) => bail!("no frame within {} s", FRAME_LIMIT.as_secs()),
        }
    }

    async fn next_until(&mut self, wanted: impl Fn(&Down) -> bool) -> Result<Down> {
        while let Some(frame) = self.next().await? {
            if wanted(&frame) {
                return Ok(frame);
            }
        }
        bail!("the stream ends too early")
    }

    /// The last frame is a goodbye that says why, and how long to wait.
    async fn expect_shutting_down(&mut self) -> Result<()> {
        let goodbye = self.next_until(|frame| matches!(frame, Down::Goodbye(_)));
        let Down::Goodbye(goodbye) = goodbye.await? else {
            bail!("not a goodbye");
        };
        ensure!(
            goodbye.reason() == GoodbyeReason::ShuttingDown,
            "the goodbye says {:?}",
            goodbye.reason()
        );
        ensure!(
            goodbye.retry_after.is_some(),
            "the goodbye does not say how long to wait"
        );
        ensure!(
            self.next().await?.is_none(),
            "something comes after the goodbye"
        );
        Ok(())
    }
}
