//! A gateway with a stub behind it, and a browser that is not one: requests and
//! answers as bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use duologue_gateway::websocket::{DEFAULT_MAX_WAITING_PER_ADDRESS, WebSocketConfig, WebSockets};
use duologue_gateway::{DevTokens, Gateway, GatewayParts, Origins, Upstream};
use duologue_proto::chat::v1::chat_service_server::ChatServiceServer;
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_runtime::auth::{DevKey, TokenRules, Verifier};
use duologue_runtime::clock::{ManualClock, SeededRandom};
use duologue_runtime::listener::{GuardConfig, Tls, accepted, bind, guard};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::server::{Methods, Stack, authenticate_by_token};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use http::request::Builder;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::stub::Stub;

/// Where pages come from that may call.
pub(crate) const ORIGIN: &str = "https://chat.example.com";
pub(crate) const SERVICE: &str = "/duologue.chat.v1.ChatService/";

/// The page's style sheet, whose name changes with it.
pub(crate) fn style() -> &'static str {
    const PAGE: &str = include_str!("../../assets/index.html");
    let (_, behind) = PAGE.split_once("rel=\"stylesheet\" href=\"").unwrap();
    behind.split_once('"').unwrap().0
}
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) served: JoinHandle<()>,
    /// Streams of the stub that were dropped.
    pub(crate) dropped: mpsc::Receiver<()>,
    key: Arc<DevKey>,
    clock: ManualClock,
}

/// How a gateway is made, where it differs.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) requests: Option<RateLimit>,
    pub(crate) no_dev_key: bool,
    /// Its own origins instead of [`ORIGIN`].
    pub(crate) own_origins: bool,
    pub(crate) tls: Option<Tls>,
}

impl Web {
    pub(crate) async fn open() -> Self {
        Self::open_with(Setup::default()).await
    }

    pub(crate) async fn open_with(setup: Setup) -> Self {
        let key = Arc::new(DevKey::ephemeral(&SeededRandom::new(1)));
        let clock = ManualClock::at(NOW);
        let keys = vec![key.verifier_key()];
        let verifier = Verifier::new(keys, TokenRules::default(), Arc::new(clock.clone()));
        let metrics = Metrics::new(BuildInfo::of("test"), NOW);
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let methods = Methods::standard().unwrap();
        let authenticate = authenticate_by_token(verifier);
        let stack = Stack::new(methods, &metrics, authenticate, shutdown.clone());
        let (dropping, dropped) = mpsc::channel(16);
        let routes = Routes::new(ChatServiceServer::new(Stub(dropping)));

        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let dev_tokens = DevTokens::new(Arc::clone(&key), Arc::new(clock.clone()));
        let usual = RateLimit {
            per_second: 1_000,
            burst: 1_000,
        };
        let upstream = Upstream::new(stack.service(routes));
        let sockets = WebSockets::new(WebSocketConfig {
            upstream: upstream.clone(),
            metrics: metrics.clone(),
            max_waiting_per_address: DEFAULT_MAX_WAITING_PER_ADDRESS,
        });
        let gateway = Gateway::new(GatewayParts {
            upstream,
            sockets: sockets.unwrap(),
            origins: if setup.own_origins {
                Origins::own(address, false)
            } else {
                Origins::of([ORIGIN.parse().unwrap()])
            },
            proxies: duologue_runtime::listener::Proxies::default(),
            requests_per_address: setup.requests.unwrap_or(usual),
            dev_tokens: (!setup.no_dev_key).then_some(dev_tokens),
        });
        let config = GuardConfig {
            tls: setup.tls,
            ..GuardConfig::default()
        };
        let incoming = guard(accepted(listener), config);
        let serving = duologue_gateway::serve(gateway, incoming, shutdown.clone());
        Self {
            address,
            metrics,
            shutdown,
            served: task::spawn("gateway", serving),
            dropped,
            key,
            clock,
        }
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let user = UserId::parse(user).unwrap();
        self.key.sign(&user, Duration::from_mins(1), &self.clock)
    }

    /// A call by gRPC-Web of this form, without its body.
    pub(crate) fn call(&self, method: &str, form: &str, user: &str) -> Builder {
        let kind = format!("application/grpc-web{form}");
        Request::post(format!("{SERVICE}{method}"))
            .header("content-type", &kind)
            .header("accept", &kind)
            .header("origin", ORIGIN)
            .header("x-grpc-web", "1")
            .header("authorization", format!("Bearer {}", self.token(user)))
    }

    /// Sends a request on a connection of its own, and reads the head of the answer.
    pub(crate) async fn begin(&self, request: Builder, body: impl Into<Bytes>) -> Begun {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = task::spawn("connection", async move {
            // That it breaks off shows at the body.
            let _ = connection.await;
        });
        let named = request.headers_ref().unwrap().contains_key("host");
        let request = if named {
            request
        } else {
            request.header("host", self.address.to_string())
        };
        let request = request.body(Full::new(body.into())).unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        let (head, body) = response.into_parts();
        Begun {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            connection,
        }
    }

    pub(crate) async fn send(&self, request: Builder, body: impl Into<Bytes>) -> Answer {
        let begun = self.begin(request, body).await;
        let body = soon(begun.body.collect()).await.unwrap().to_bytes();
        Answer {
            status: begun.status,
            headers: begun.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    /// Writes bytes as they are, and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut text = Vec::new();
        // A reset after what was read is an end, too.
        let _ = soon(stream.read_to_end(&mut text)).await;
        String::from_utf8(text).unwrap()
    }
}

/// An answer under way.
pub(crate) struct Begun {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    pub(crate) connection: JoinHandle<()>,
}

impl Begun {
    /// Goes away in the middle, as a closed tab does.
    pub(crate) async fn abort(self) {
        drop(self.body);
        self.connection.abort();
        let _ = self.connection.await;
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The code of an error that is JSON.
    pub(crate) fn error(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert!(json["error"]["message"].is_string(), "{json}");
        json["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Messages and trailers of a call in its binary form.
    pub(crate) fn frames(&self) -> (Vec<Bytes>, Option<HeaderMap>) {
        frames(self.body.clone())
    }

    /// The status of a call that was refused before its answer began.
    pub(crate) fn status_in_head(&self) -> tonic::Status {
        tonic::Status::from_header_map(&self.headers).expect("the head has no grpc-status")
    }
}

/// A message as calls carry it.
pub(crate) fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}

/// Messages, and the trailers behind them, which must be the last.
pub(crate) fn frames(mut body: Bytes) -> (Vec<Bytes>, Option<HeaderMap>) {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let prefix = body.split_to(5);
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
        let frame = body.split_to(usize::try_from(length).unwrap());
        if prefix[0] & 0x80 != 0 {
            assert!(body.is_empty(), "something follows the trailers");
            return (messages, Some(trailers(&frame)));
        }
        messages.push(frame);
    }
    (messages, None)
}

fn trailers(frame: &[u8]) -> HeaderMap {
    let lines = std::str::from_utf8(frame).unwrap().split_terminator("\r\n");
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        (name, value.trim_start().parse().unwrap())
    });
    pairs.collect()
}

/// Base64 in pieces, each padded for itself, as the text form has it.
pub(crate) fn decoded(text: &[u8]) -> Bytes {
    let pieces = text.chunks(4).map(|piece| STANDARD.decode(piece).unwrap());
    pieces.flatten().collect()
}

pub(crate) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("what was awaited did not happen")
}
