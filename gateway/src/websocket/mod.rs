//! The WebSocket door: `GET /ws`.
//!
//! A WebSocket is a `Converse` call whose frames are messages, so that what holds
//! for native clients holds here. Origins and tokens in addresses are the router's
//! matter, and were looked at before.

mod bridge;
mod close;
mod frame;
mod handshake;
mod json;
mod metrics;
mod proto;
mod socket;
mod up;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use duologue_proto::limits::HELLO_TIMEOUT;
use duologue_runtime::listener::Peer;
use duologue_runtime::metrics::Metrics;
use duologue_runtime::rate::Slots;
use duologue_runtime::refusal::Reason;
use duologue_runtime::task;
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use self::bridge::{Bridge, Head};
use self::close::{Close, CloseCode};
pub use self::frame::MAX_MESSAGE_BYTES;
use self::handshake::{Handshake, Refused};
pub use self::json::BadDescriptors;
use self::json::Json;
use self::metrics::SocketMetrics;
use self::socket::Socket;
pub use self::socket::{
    CLOSE_TIMEOUT, DOWN_BYTES, FLUSH_TIMEOUT, MESSAGE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT,
};
pub use self::up::UP_BYTES;
use crate::Upstream;

/// WebSockets from one address that wait for their first message.
pub const DEFAULT_MAX_WAITING_PER_ADDRESS: usize = 100;

/// What the door needs.
#[derive(Debug)]
pub struct WebSocketConfig {
    /// What is called.
    pub upstream: Upstream,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// WebSockets from one address that wait for their first message.
    pub max_waiting_per_address: usize,
}

/// The door. Made once per process: it registers metrics. Clones share it.
#[derive(Clone)]
pub struct WebSockets(Arc<Shared>);

/// What all WebSockets share.
struct Shared {
    upstream: Upstream,
    json: Json,
    metrics: SocketMetrics,
    waiting: Slots<IpAddr>,
    open: TaskTracker,
}

impl WebSockets {
    /// A door without anybody.
    pub fn new(config: WebSocketConfig) -> Result<Self, BadDescriptors> {
        Ok(Self(Arc::new(Shared {
            upstream: config.upstream,
            json: Json::load()?,
            metrics: SocketMetrics::new(&config.metrics),
            waiting: Slots::new(config.max_waiting_per_address),
            open: TaskTracker::new(),
        })))
    }

    /// Answers a request: with an upgrade, or with why there is none. The connection
    /// must be served with upgrades, and its [`Peer`] be among the extensions.
    pub fn upgrade<B>(&self, mut request: Request<B>) -> Response<String> {
        let handshake = match Handshake::of(request.method(), request.headers()) {
            Ok(handshake) => handshake,
            Err(refused) => return refused.response(),
        };
        let peer = request.extensions().get::<Peer>();
        let waiting = match peer.and_then(Peer::origin) {
            None => None,
            Some(address) => match self.0.waiting.acquire(&address) {
                None => return too_many().response(),
                taken => taken,
            },
        };
        let head = Box::new(Head::new(&request, waiting));
        let upgraded = hyper::upgrade::on(&mut request);
        let shared = Arc::clone(&self.0);
        let counted = shared.metrics.opened(handshake.protocol);
        let (protocol, limit) = (handshake.protocol, Instant::now() + HELLO_TIMEOUT);
        let session = async move {
            let Ok(Ok(io)) = timeout_at(limit, upgraded).await else {
                return;
            };
            let socket = Socket::new(TokioIo::new(io), protocol.kind(), (limit, no_hello()));
            let mut bridge = Bridge::new(shared, protocol, socket, head, counted);
            bridge.run().await;
        };
        task::spawn("websocket", self.0.open.track_future(session));
        handshake.response()
    }

    /// Ends when there is no WebSocket left. New ones may come until then.
    pub async fn ended(&self) {
        self.0.open.close();
        self.0.open.wait().await;
    }
}

impl fmt::Debug for WebSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSockets")
            .field("open", &self.0.open.len())
            .finish_non_exhaustive()
    }
}

fn no_hello() -> Close {
    let text = "no hello within 5 seconds";
    Close::of(CloseCode::HelloTimeout, Reason::HelloTimeout, text)
}

fn too_many() -> Refused {
    Refused {
        status: StatusCode::TOO_MANY_REQUESTS,
        text: "too many WebSockets of this address wait for their Hello: send it, or close some",
    }
}
