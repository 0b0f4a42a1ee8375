//! Users who do nothing but be online on one node, and whether another node shows
//! them so.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::{
    Availability, ConverseRequest, ConverseResponse, GetPresenceRequest, Hello,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::super::server::token;

/// How long nobody of a killed node may still be shown online (design §3).
pub(super) const HONEST_WITHIN: Duration = Duration::from_secs(15);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);

/// A user with an open stream to one node.
pub(super) struct Probe {
    user: String,
    token: String,
    // The stream is open as long as these are.
    _up: mpsc::Sender<ConverseRequest>,
    _down: Streaming<ConverseResponse>,
}

impl Probe {
    /// Connects, and waits until a node shows the user online.
    pub(super) async fn connect(
        (program, keys): (&Path, &Path),
        user: &str,
        node: SocketAddr,
        other: SocketAddr,
    ) -> Result<Self> {
        let token = token(program, keys, user).await?;
        let (up, frames) = mpsc::channel(1);
        let hello = ConverseRequest {
            frame: Some(Up::Hello(Hello::default())),
            ..ConverseRequest::default()
        };
        up.send(hello).await.context("a channel is closed")?;
        let request = with_token(Request::new(ReceiverStream::new(frames)), &token)?;
        let call = chat(node)?.converse(request).await;
        let mut down = call.context("a probe cannot connect")?.into_inner();
        let welcome = timeout(LIMIT, down.message()).await;
        welcome.context("no welcome")??.context("no welcome")?;
        let probe = Self {
            user: user.to_owned(),
            token,
            _up: up,
            _down: down,
        };
        probe.shown(other, Availability::Online, LIMIT).await?;
        Ok(probe)
    }

    /// Waits until a node shows the user so; returns how long that took. An error of
    /// presence is no wrong answer, but no right one either.
    pub(super) async fn shown(
        &self,
        node: SocketAddr,
        wanted: Availability,
        limit: Duration,
    ) -> Result<Duration> {
        let began = Instant::now();
        let mut chat = chat(node)?;
        let mut last = String::from("nothing");
        while began.elapsed() <= limit {
            let ask = GetPresenceRequest {
                user: self.user.clone(),
            };
            let request = with_token(Request::new(ask), &self.token)?;
            match timeout(limit, chat.get_presence(request)).await {
                Ok(Ok(answer)) => {
                    let presence = answer.into_inner().presence;
                    let shown = presence.context("no presence")?.availability();
                    if shown == wanted {
                        return Ok(began.elapsed());
                    }
                    last = format!("{shown:?}");
                }
                Ok(Err(status)) => last = status.to_string(),
                Err(_) => bail!("presence does not answer"),
            }
            sleep(POLL).await;
        }
        ensure!(
            false,
            "{} is not shown as {wanted:?} after {} s; the last answer: {last}",
            self.user,
            limit.as_secs()
        );
        Ok(limit)
    }
}

fn with_token<T>(mut request: Request<T>, token: &str) -> Result<Request<T>> {
    let value = MetadataValue::try_from(format!("Bearer {token}"))?;
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

fn chat(node: SocketAddr) -> Result<ChatServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{node}"))?.connect_timeout(LIMIT);
    Ok(ChatServiceClient::new(endpoint.connect_lazy()))
}
