//! A server that does what the test says: every stream is handed to the test,
//! which reads its frames and writes the answers.

#![expect(clippy::unwrap_used, reason = "part of a test")]

use std::sync::atomic::{AtomicU64, Ordering};

use duologue_client::{Builder, Client, Environment, Event, Events, UnixMillis};
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_server::{ChatService, ChatServiceServer};
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// The server, for as long as it lives.
pub struct Fake {
    calls: mpsc::Receiver<Call>,
    endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

enum Endpoint {
    Socket(String),
    Memory(mpsc::Sender<DuplexStream>),
}

/// One stream.
pub struct Call {
    pub token: String,
    up: Streaming<wire::ConverseRequest>,
    down: mpsc::Sender<Result<wire::ConverseResponse, Status>>,
}

struct Service(mpsc::Sender<Call>);

impl Fake {
    /// Over a real socket.
    pub async fn on_socket() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let (sender, calls) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(sender, TcpListenerStream::new(listener)));
        Self {
            calls,
            endpoint: Endpoint::Socket(uri),
            _tasks: tasks,
        }
    }

    /// In memory, so that time may be paused.
    pub fn in_memory() -> Self {
        let (connections, incoming) = mpsc::channel(8);
        let (sender, calls) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        let incoming = ReceiverStream::new(incoming).map(Ok);
        tasks.spawn(serve(sender, incoming));
        Self {
            calls,
            endpoint: Endpoint::Memory(connections),
            _tasks: tasks,
        }
    }

    /// A client of this server, without jitter.
    pub fn client(&self) -> Builder {
        let connections = match &self.endpoint {
            Endpoint::Socket(uri) => {
                return Client::builder(uri.clone()).environment(Fixed::default());
            }
            Endpoint::Memory(connections) => connections.clone(),
        };
        Client::builder("http://in.memory")
            .environment(Fixed::default())
            .channel(move |endpoint| {
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                    let connections = connections.clone();
                    async move {
                        let (near, far) = tokio::io::duplex(64 * 1024);
                        let refused =
                            |_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                        connections.send(far).await.map_err(refused)?;
                        Ok::<_, std::io::Error>(TokioIo::new(near))
                    }
                }))
            })
    }

    /// The next stream that a client opens.
    pub async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// The next stream, welcomed.
    pub async fn session(&mut self) -> (wire::Hello, Call) {
        let mut call = self.call().await;
        let hello = call.hello().await;
        call.welcome().await;
        (hello, call)
    }

    pub fn no_call_is_waiting(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }
}

impl Call {
    /// The next frame up; none when the client says no more.
    pub async fn frame(&mut self) -> Option<Up> {
        self.up.message().await.ok()??.frame
    }

    pub async fn hello(&mut self) -> wire::Hello {
        match self.frame().await {
            Some(Up::Hello(hello)) => hello,
            other => panic!("{other:?} instead of Hello"),
        }
    }

    pub async fn message(&mut self) -> wire::SendMessage {
        match self.frame().await {
            Some(Up::SendMessage(message)) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    pub async fn cursor(&mut self) -> wire::AdvanceCursor {
        match self.frame().await {
            Some(Up::AdvanceCursor(cursor)) => cursor,
            other => panic!("{other:?} instead of a cursor"),
        }
    }

    pub async fn send(&self, frame: Down) {
        let frame = wire::ConverseResponse {
            r#ref: 0,
            frame: Some(frame),
        };
        self.down.send(Ok(frame)).await.unwrap();
    }

    pub async fn welcome(&self) {
        self.send(Down::Welcome(wire::Welcome {
            user: "alice".into(),
            history_id: "h-1".into(),
            ..Default::default()
        }))
        .await;
    }

    pub async fn deliver(&self, seq: u64, text: &str) {
        let envelope = Some(wire::Envelope {
            seq,
            message_id: format!("bob-{seq}"),
            sender: "bob".into(),
            recipient: "alice".into(),
            body: Some(wire::Body {
                kind: Some(wire::body::Kind::Text(text.into())),
            }),
            ..Default::default()
        });
        self.send(Down::MessageDelivered(wire::MessageDelivered { envelope }))
            .await;
    }

    pub async fn caught_up(&self, sync_token: &str) {
        let sync_token = sync_token.into();
        self.send(Down::CaughtUp(wire::CaughtUp { sync_token }))
            .await;
    }

    pub async fn stored(&self, message: &wire::SendMessage, seq: u64) {
        self.send(Down::Stored(wire::Stored {
            message_id: message.message_id.clone().unwrap(),
            peer: message.peer.clone(),
            seq,
            duplicate: false,
            accepted_at: None,
        }))
        .await;
    }

    pub async fn goodbye(&self, reason: wire::GoodbyeReason, retry_after_seconds: i64) {
        self.send(Down::Goodbye(wire::Goodbye {
            reason: reason.into(),
            detail: String::new(),
            retry_after: Some(prost_types::Duration {
                seconds: retry_after_seconds,
                nanos: 0,
            }),
        }))
        .await;
    }

    pub async fn fail(&self, status: Status) {
        self.down.send(Err(status)).await.unwrap();
    }
}

/// The first event that `pick` takes.
pub async fn event<T>(events: &mut Events, pick: impl Fn(&Event) -> Option<T>) -> T {
    loop {
        let event = events.next().await.expect("the client lives");
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

/// A clock that stands, ids that count, and no jitter.
#[derive(Default)]
struct Fixed(AtomicU64);

impl Environment for Fixed {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        // Eight bytes are a number for jitter; more are an id.
        if bytes.len() > 8 {
            let count = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            bytes[..8].copy_from_slice(&count);
        }
    }
}

async fn serve<I, IO>(calls: mpsc::Sender<Call>, incoming: I)
where
    I: tokio_stream::Stream<Item = Result<IO, std::io::Error>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let service = ChatServiceServer::new(Service(calls));
    let server = Server::builder().add_service(service);
    server.serve_with_incoming(incoming).await.unwrap();
}

type Frames<T> = ReceiverStream<Result<T, Status>>;
type Answer<T> = Result<Response<T>, Status>;

fn unscripted<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of the script"))
}

#[tonic::async_trait]
impl ChatService for Service {
    type ConverseStream = Frames<wire::ConverseResponse>;
    type SubscribeStream = Frames<wire::SubscribeResponse>;

    async fn converse(
        &self,
        request: Request<Streaming<wire::ConverseRequest>>,
    ) -> Answer<Self::ConverseStream> {
        let token = request.metadata().get("authorization");
        let token = token.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let token = token.trim_start_matches("Bearer ").to_owned();
        let (down, frames) = mpsc::channel(8);
        let up = request.into_inner();
        let call = Call { token, up, down };
        self.0
            .send(call)
            .await
            .map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    async fn subscribe(&self, _: Request<wire::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        unscripted()
    }

    async fn send_message(
        &self,
        _: Request<wire::SendMessageRequest>,
    ) -> Answer<wire::SendMessageResponse> {
        unscripted()
    }

    async fn advance_cursor(
        &self,
        _: Request<wire::AdvanceCursorRequest>,
    ) -> Answer<wire::AdvanceCursorResponse> {
        unscripted()
    }

    async fn list_messages(
        &self,
        request: Request<wire::ListMessagesRequest>,
    ) -> Answer<wire::ListMessagesResponse> {
        let peer = request.into_inner().peer;
        Ok(Response::new(wire::ListMessagesResponse {
            messages: vec![wire::Envelope {
                seq: 3,
                message_id: "m-3".into(),
                sender: peer,
                recipient: "alice".into(),
                ..Default::default()
            }],
            next_page_token: "more".into(),
            head: 3,
        }))
    }

    async fn list_conversations(
        &self,
        _: Request<wire::ListConversationsRequest>,
    ) -> Answer<wire::ListConversationsResponse> {
        unscripted()
    }

    async fn list_users(
        &self,
        _: Request<wire::ListUsersRequest>,
    ) -> Answer<wire::ListUsersResponse> {
        unscripted()
    }

    async fn get_presence(
        &self,
        _: Request<wire::GetPresenceRequest>,
    ) -> Answer<wire::GetPresenceResponse> {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let mut details = ErrorDetails::with_error_info("PRESENCE_UNKNOWN", "duologue", []);
        details.set_retry_info(Some(std::time::Duration::from_secs(2)));
        let code = tonic::Code::Unavailable;
        Err(Status::with_error_details(code, "not known", details))
    }
}
