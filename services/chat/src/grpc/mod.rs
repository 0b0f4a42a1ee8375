//! The eight calls of `duologue.chat.v1.ChatService`, by path.
//!
//! Routed by hand instead of by the generated server, so that the two streams can
//! use a codec that shares encoded envelopes. A test compares the table with the
//! contract. This module and those below only convert.

mod codec;
mod down;
mod plain;
mod streams;
mod unary;
mod up;

pub use self::up::MAX_ECHO_BYTES;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use duologue_proto::limits::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use duologue_runtime::auth::Identity;
use duologue_runtime::listener::Peer;
use duologue_runtime::refusal::{Reason, Refusal};
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::server::{Grpc, NamedService};
use tonic::{Extensions, Status};

use crate::core::Core;

/// The service, as a server takes it.
#[derive(Clone)]
pub struct ChatServer {
    core: Arc<Core>,
}

impl ChatServer {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl NamedService for ChatServer {
    const NAME: &'static str = "duologue.chat.v1.ChatService";
}

impl tower::Service<http::Request<Body>> for ChatServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let core = Arc::clone(&self.core);
        Box::pin(async move { Ok(with_details(route(core, request).await)) })
    }
}

async fn route(core: Arc<Core>, request: http::Request<Body>) -> http::Response<Body> {
    let method = request
        .uri()
        .path()
        .rsplit_once('/')
        .map_or("", |(_, method)| method)
        .to_owned();
    /// Calls one of the functions of `unary`.
    macro_rules! unary {
        ($call:path) => {
            grpc(codec::Unary::default())
                .unary(
                    tower::service_fn(move |request| $call(Arc::clone(&core), request)),
                    request,
                )
                .await
        };
    }
    match method.as_str() {
        "Converse" => streams::answer(streams::converse(&core, request)),
        "Subscribe" => streams::answer(streams::subscribe(&core, request).await),
        "SendMessage" => unary!(unary::send_message),
        "AdvanceCursor" => unary!(unary::advance_cursor),
        "ListMessages" => unary!(unary::list_messages),
        "ListConversations" => unary!(unary::list_conversations),
        "ListUsers" => unary!(unary::list_users),
        "GetPresence" => unary!(unary::get_presence),
        _ => Status::unimplemented("ChatService has no such call").into_http(),
    }
}

fn grpc<C: Codec>(codec: C) -> Grpc<C> {
    Grpc::new(codec)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES)
}

fn too_large(what: &str) -> Refusal {
    Refusal::field(what, format!("is longer than {MAX_REQUEST_BYTES} bytes"))
}

/// The codec refuses a request that is too large with a bare `OUT_OF_RANGE`, which
/// means something else here; ours always carry details.
fn with_details(response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers();
    let out_of_range = headers
        .get(Status::GRPC_STATUS)
        .is_some_and(|code| code == "11");
    if out_of_range && !headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return too_large("request").into_status().into_http();
    }
    response
}

/// The caller, as the server stack has verified.
fn caller(extensions: &Extensions) -> Result<Identity, Status> {
    extensions
        .get::<Identity>()
        .cloned()
        .ok_or_else(|| Refusal::new(Reason::TokenMissing, "a bearer token is needed").into_status())
}

fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().and_then(Peer::origin)
}
