//! gRPC-Web over HTTP/1.1, as browsers have it where there is no TLS: as many
//! connections as there are calls at once.
//!
//! A response that ends without a status is none: what is read of it ends with an
//! error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::Status;
use tonic::body::Body;
use tonic_web::GrpcWebClientLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};

use super::Error;
use crate::driver::link::{Addresses, Gate, Gated, connector};

type Connector = BoxCloneSyncService<http::Uri, TokioIo<Gated>, io::Error>;
/// Makes plain requests.
pub(super) type Http = Client<Connector, Body>;

/// A client of its own, behind a gate.
pub(super) fn client(addresses: &Addresses, gate: &Gate) -> Http {
    let connector = connector(addresses.clone(), gate.clone());
    Client::builder(TokioExecutor::new()).build(BoxCloneSyncService::new(connector))
}

/// Carries calls by gRPC-Web.
pub(super) fn calls(
    client: Http,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let http = tower::service_fn(move |request: Request<_>| {
        let client = client.clone();
        async move {
            let request = request.map(Body::new);
            client.request(request).await.map_err(Error::from)
        }
    });
    GrpcWebClientLayer::new()
        .layer(http)
        .map_response(|response: Response<_>| {
            // An error without messages stands in the headers.
            let ended = response.headers().contains_key(Status::GRPC_STATUS);
            response.map(|body| {
                let body = Body::new(body);
                Body::new(Complete { body, ended })
            })
        })
}

impl Connection for Gated {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// A response that ends with a status or with an error.
struct Complete {
    body: Body,
    ended: bool,
}

impl http_body::Body for Complete {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.ended |= frame.is_trailers(),
            Some(Err(_)) => self.ended = true,
            None if !self.ended => {
                self.ended = true;
                let status = Status::data_loss("a response without a status");
                return Poll::Ready(Some(Err(status)));
            }
            None => {}
        }
        Poll::Ready(frame)
    }
}
