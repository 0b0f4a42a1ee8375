//! The ways in: each makes, behind a gate, what the generated stubs call. To who
//! uses the stubs all are alike: what comes by a `WebSocket` or by gRPC-Web is gRPC
//! again when it is read.
//!
//! Nothing is tried again here, and nothing kept from one call to the next.

mod close;
mod frames;
mod json;
mod socket;
mod web;

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;
use tower::util::{BoxCloneSyncService, ServiceExt as _};

use self::json::Json;
use self::socket::{Protocol, Sockets};
use super::link::{self, Addresses, Gate};
use crate::event::Way;

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;
/// Whatever carries calls. A type of its own, since a future that holds the boxed
/// one is not known to be `Send`.
#[derive(Clone)]
pub(super) struct Carrier(BoxCloneSyncService<Request<Body>, Response<Body>, Error>);
/// The generated stubs, by any way.
pub(super) type Chat = ChatServiceClient<Carrier>;

/// A way in, and where it begins; cheap to clone.
#[derive(Clone)]
pub(super) struct WayIn {
    kind: Kind,
    pub(super) addresses: Addresses,
}

#[derive(Clone)]
enum Kind {
    Native,
    GrpcWeb,
    Socket(Protocol),
}

impl WayIn {
    /// These ways to servers that listen there: gRPC here, browsers there.
    pub(super) fn all(
        ways: &[Way],
        (native, web): (&[SocketAddr], &[SocketAddr]),
    ) -> Result<Vec<Self>> {
        let native = Addresses::new(native);
        let web = Addresses::new(web);
        let made = ways.iter().map(|way| {
            let (kind, addresses) = match way {
                Way::Native => (Kind::Native, &native),
                Way::GrpcWeb => (Kind::GrpcWeb, &web),
                Way::WebSocket => (Kind::Socket(Protocol::Proto), &web),
                Way::Json => (Kind::Socket(Protocol::Json(Json::load()?)), &web),
            };
            let missing = || format!("the way {} leads to no address", way.name());
            let addresses = addresses.clone().with_context(missing)?;
            Ok(Self { kind, addresses })
        });
        made.collect()
    }

    /// Which one it is.
    pub(super) fn way(&self) -> Way {
        match &self.kind {
            Kind::Native => Way::Native,
            Kind::GrpcWeb => Way::GrpcWeb,
            Kind::Socket(Protocol::Proto) => Way::WebSocket,
            Kind::Socket(Protocol::Json(_)) => Way::Json,
        }
    }

    /// The way, or one that begins at the same place and has `Converse`.
    pub(super) fn conversing(&self) -> Self {
        let mut way = self.clone();
        if !self.way().has_converse() {
            way.kind = Kind::Socket(Protocol::Proto);
        }
        way
    }

    /// The stubs, behind a gate. By the native way, of a stream so many bytes may be
    /// on their way to who does not read; by the others, what a socket holds.
    pub(super) fn open(&self, gate: &Gate, window_bytes: u32) -> Chat {
        let protocol = match &self.kind {
            Kind::Native => {
                let channel = link::channel(&self.addresses, gate, window_bytes);
                return ChatServiceClient::new(Carrier::new(channel));
            }
            Kind::GrpcWeb => None,
            Kind::Socket(protocol) => Some(protocol.clone()),
        };
        let client = web::client(&self.addresses, gate);
        let calls = Carrier::new(web::calls(client.clone()));
        let carrier = match protocol {
            None => calls,
            Some(protocol) => Carrier::new(Sockets::new(client, calls, protocol)),
        };
        ChatServiceClient::with_origin(carrier, link::uri(self.addresses.first()))
    }
}

impl Carrier {
    fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service.map_err(Into::into)))
    }
}

impl Service<Request<Body>> for Carrier {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
