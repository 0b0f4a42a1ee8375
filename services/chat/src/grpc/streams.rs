//! The two calls that are sessions.
//!
//! Their frames down are encoded where they are pushed, and the outbox is the
//! response's body: nothing is done per frame between it and the connection. So
//! these calls are taken from the request by hand, and not by tonic's `Grpc`.

use std::sync::Arc;

use duologue_proto::chat::v1 as wire;
use duologue_proto::limits::{HELLO_TIMEOUT, MAX_REQUEST_BYTES};
use duologue_runtime::refusal::{Reason, Refusal};
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::Decoder;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataValue};
use tonic::{Code, Extensions, Status, Streaming};

use super::codec::{self, RequestDecoder, SessionDecoder};
use super::{address, caller, too_large, up};
use crate::connection::{Gone, UpStream};
use crate::core::Core;
use crate::door;
use crate::frame::{Ref, Up};
use crate::outbox::OutboxBody;

/// Requests say here how they are compressed; no compression is known.
const ENCODING: &str = "grpc-encoding";
/// What is said to one that is.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const IDENTITY: &str = "identity";

/// `Converse`.
pub(super) fn converse(
    core: &Arc<Core>,
    request: http::Request<Body>,
) -> Result<OutboxBody, Status> {
    let caller = caller(request.extensions())?;
    let decoder = SessionDecoder::new(Arc::clone(core), caller.user.clone());
    let (extensions, frames) = messages(request, decoder)?;
    let up = frames.map(|frame| frame.or_else(|status| broken(&status)));
    let address = address(&extensions);
    Ok(door::open(
        core,
        caller,
        address,
        Box::pin(up),
        codec::write,
    )?)
}

/// `Subscribe`.
pub(super) async fn subscribe(
    core: &Arc<Core>,
    request: http::Request<Body>,
) -> Result<OutboxBody, Status> {
    let decoder = RequestDecoder::<wire::SubscribeRequest>::default();
    let (extensions, mut messages) = messages(request, decoder)?;
    let asked = async {
        let request = messages.message().await?;
        // The request ends with them.
        messages.trailers().await?;
        request.ok_or_else(|| Status::internal("the request has no message"))
    };
    let late = |_| Refusal::new(Reason::HelloTimeout, "no request came in time").into_status();
    let request = timeout(HELLO_TIMEOUT, asked).await.map_err(late)??;
    let caller = caller(&extensions)?;
    let hello = up::hello("", up::hello_of(request))?;
    let hello = stream::once(async { Ok((0, Up::Hello(Ok(Box::new(hello))))) });
    let up: UpStream = Box::pin(hello.chain(stream::pending()));
    let address = address(&extensions);
    Ok(door::open(core, caller, address, up, codec::write)?)
}

/// The response of a call that has become a session, or has not.
pub(super) fn answer(opened: Result<OutboxBody, Status>) -> http::Response<Body> {
    let body = match opened {
        Ok(body) => body,
        Err(status) => return status.into_http(),
    };
    let mut response = http::Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// The messages of a request, and what the server stack knows of it.
fn messages<D>(
    request: http::Request<Body>,
    decoder: D,
) -> Result<(Extensions, Streaming<D::Item>), Status>
where
    D: Decoder<Error = Status> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    if parts
        .headers
        .get(ENCODING)
        .is_some_and(|encoding| encoding != IDENTITY)
    {
        let mut status = Status::unimplemented("messages must not be compressed");
        let identity = MetadataValue::from_static(IDENTITY);
        status.metadata_mut().insert(ACCEPT_ENCODING, identity);
        return Err(status);
    }
    let messages = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST_BYTES));
    Ok((parts.extensions, messages))
}

/// A frame that cannot be read breaks the contract. What the transport reports
/// means that the stream broke off.
fn broken(status: &Status) -> Result<(Ref, Up), Gone> {
    if status.code() == Code::Cancelled || std::error::Error::source(status).is_some() {
        return Err(Gone);
    }
    let refusal = if status.code() == Code::OutOfRange {
        too_large("frame")
    } else {
        Refusal::field(
            "frame",
            "is not a whole protobuf message of this call's kind",
        )
    };
    Ok((0, Up::Broken(refusal)))
}
