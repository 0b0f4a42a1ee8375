//! A server whose handlers do what a test asks for, and clients to it over
//! connections that are no sockets, so that time can be paused.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::chat_service_server::{ChatService, ChatServiceServer};
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_runtime::auth::{AuthError, Identity, bearer};
use duologue_runtime::inner::Credentials;
use duologue_runtime::listener::{Accepted, GuardConfig, Peer, guard};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::server::{Authenticate, Health, Methods, Stack, add_reflection, serve};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::upstream::UpstreamChannel;
use futures_util::{Stream, StreamExt as _, stream};
use http::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

pub(crate) const CHAT: &str = "duologue.chat.v1.ChatService";
pub(crate) const GRACE: Duration = Duration::from_secs(20);
pub(crate) const DEADLINE: Duration = Duration::from_secs(7);

/// The word before the user's name is the whole check.
pub(crate) fn authenticate() -> Authenticate {
    Arc::new(|headers| match bearer(headers)?.split_once(':') {
        Some(("good", user)) => Ok(Identity {
            user: UserId::parse(user).map_err(AuthError::BadSubject)?,
            expires_at: UnixMillis(u64::MAX),
        }),
        Some(("old", _)) => Err(AuthError::Expired),
        _ => Err(AuthError::BadSignature),
    })
}

/// What must not take for ever, in paused time.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let ended = tokio::time::timeout(Duration::from_hours(1), future).await;
    ended.expect("it ends")
}

pub(crate) fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) fn from_alice<T>(message: T) -> Request<T> {
    with_token("good:alice", message)
}

pub(crate) fn presence_of(user: &str) -> wire::GetPresenceRequest {
    wire::GetPresenceRequest { user: user.into() }
}

pub(crate) struct Server {
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) health: Health,
    pub(crate) stub: Stub,
    pub(crate) served: JoinHandle<()>,
    connections: mpsc::Sender<Accepted<DuplexStream>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|stack| stack).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(Stack) -> Stack) -> Self {
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let shutdown = Shutdown::new(GRACE);
        let methods = Methods::standard().unwrap();
        let stack = Stack::new(methods, &metrics, authenticate(), shutdown.clone());
        let stack = change(stack.unary_deadline(DEADLINE));
        Self::of(stack, metrics, shutdown, Stub::default()).await
    }

    /// A server for services, which serves.
    pub(crate) async fn inner(credentials: Credentials, stub: Stub) -> Self {
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let shutdown = Shutdown::new(GRACE);
        // Whose methods they are does not matter to the door.
        let methods = Methods::standard().unwrap();
        let stack = Stack::inner(methods, &metrics, credentials, shutdown.clone());
        let this = Self::of(stack, metrics, shutdown, stub).await;
        this.health.set(true).await;
        this
    }

    async fn of(stack: Stack, metrics: Metrics, shutdown: Shutdown, stub: Stub) -> Self {
        let health = Health::new(&[CHAT]).await;
        let routes = Routes::new(ChatServiceServer::new(stub.clone()));
        let routes = add_reflection(health.add_to(routes)).unwrap();
        let (connections, incoming) = mpsc::channel(8);
        let served = task::spawn("server", async move {
            let incoming = guard(ReceiverStream::new(incoming), GuardConfig::default());
            serve(stack, routes, incoming).await.unwrap();
        });
        Self {
            metrics,
            shutdown,
            health,
            stub,
            served,
            connections,
        }
    }

    /// A connection on which the client has said nothing yet.
    pub(crate) async fn connect(&self) -> Option<DuplexStream> {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let peer = Peer::default();
        self.connections
            .send(Accepted { io: server, peer })
            .await
            .ok()?;
        Some(client)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let mut connection = self.connect().await;
        let connector = tower::service_fn(move |_| {
            let connection = connection.take().ok_or(io::ErrorKind::NotConnected);
            async { Ok::<_, io::Error>(TokioIo::new(connection?)) }
        });
        let endpoint = Endpoint::from_static("http://duologue.invalid");
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    pub(crate) async fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel().await)
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<wire::ConverseResponse, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<wire::SubscribeResponse, Status>> + Send>>;

/// Does what the request's only field says.
#[derive(Clone, Default)]
pub(crate) struct Stub {
    /// `get_presence` of "held" answers when this fires.
    pub(crate) release: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    /// How the request stream of `converse` ended, for who read on alone.
    pub(crate) input_ended: Arc<Mutex<Option<oneshot::Sender<Option<Code>>>>>,
    /// Who a caller without an identity is told that it is.
    pub(crate) name: &'static str,
    /// What the next calls of `get_presence` fail with, and those after them do not.
    pub(crate) failures: Arc<Mutex<VecDeque<Code>>>,
    /// The headers that `get_presence` was called with.
    pub(crate) seen: Arc<Mutex<Vec<HeaderMap>>>,
    /// Whom `get_presence` of "onward" asks for "slow".
    pub(crate) onward: Option<UpstreamChannel>,
}

impl Stub {
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// How often `get_presence` was called.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn fail_with(&self, codes: &[Code]) {
        self.failures.lock().unwrap().extend(codes);
    }

    async fn ask_onward(&self) -> Result<Response<wire::GetPresenceResponse>, Status> {
        let channel = self.onward.clone().unwrap();
        ChatServiceClient::new(channel)
            .get_presence(presence_of("slow"))
            .await
    }

    async fn held(&self) {
        let release = self.release.lock().unwrap().take();
        if let Some(release) = release {
            let _ = release.await;
        }
    }

    fn read_alone(&self, mut input: Streaming<wire::ConverseRequest>) {
        let ended = self.input_ended.lock().unwrap().take();
        task::spawn("reader", async move {
            let end = loop {
                match input.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(status.code()),
                }
            };
            if let Some(ended) = ended {
                let _ = ended.send(end);
            }
        });
    }
}

#[tonic::async_trait]
impl ChatService for Stub {
    type ConverseStream = Frames;
    type SubscribeStream = Events;

    /// Never answers, and reads on in a task of its own.
    async fn converse(
        &self,
        request: Request<Streaming<wire::ConverseRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.read_alone(request.into_inner());
        Ok(Response::new(Box::pin(stream::pending())))
    }

    /// Says one thing, then panics.
    async fn subscribe(
        &self,
        _request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Events>, Status> {
        let events = stream::iter([1, 2]).then(|number| async move {
            if number == 2 {
                // Lets the first one be sent.
                tokio::task::yield_now().await;
                panic!("a handler's stream panics");
            }
            Ok(wire::SubscribeResponse::default())
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_presence(
        &self,
        request: Request<wire::GetPresenceRequest>,
    ) -> Result<Response<wire::GetPresenceResponse>, Status> {
        let identity = request.extensions().get::<Identity>().cloned();
        let headers = request.metadata().clone().into_headers();
        self.seen.lock().unwrap().push(headers);
        let failure = self.failures.lock().unwrap().pop_front();
        if let Some(code) = failure {
            return Err(Status::new(code, "as the test wants it"));
        }
        match request.get_ref().user.as_str() {
            "slow" => std::future::pending().await,
            "held" => self.held().await,
            "panic" => panic!("a handler panics"),
            "onward" => return self.ask_onward().await,
            _ => {}
        }
        let user = identity.map(|identity| identity.user.to_string());
        Ok(Response::new(wire::GetPresenceResponse {
            presence: Some(wire::UserPresence {
                user: user.unwrap_or_else(|| self.name.to_owned()),
                ..Default::default()
            }),
        }))
    }

    async fn send_message(
        &self,
        _request: Request<wire::SendMessageRequest>,
    ) -> Result<Response<wire::SendMessageResponse>, Status> {
        Ok(Response::new(wire::SendMessageResponse::default()))
    }

    async fn advance_cursor(
        &self,
        _request: Request<wire::AdvanceCursorRequest>,
    ) -> Result<Response<wire::AdvanceCursorResponse>, Status> {
        Err(Status::failed_precondition("no"))
    }

    async fn list_messages(
        &self,
        _request: Request<wire::ListMessagesRequest>,
    ) -> Result<Response<wire::ListMessagesResponse>, Status> {
        Ok(Response::new(wire::ListMessagesResponse::default()))
    }

    async fn list_conversations(
        &self,
        _request: Request<wire::ListConversationsRequest>,
    ) -> Result<Response<wire::ListConversationsResponse>, Status> {
        Ok(Response::new(wire::ListConversationsResponse::default()))
    }

    async fn list_users(
        &self,
        _request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        Ok(Response::new(wire::ListUsersResponse::default()))
    }
}
