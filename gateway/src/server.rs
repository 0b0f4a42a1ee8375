//! The server: HTTP/1.1 and HTTP/2 on one listener, with explicit limits on every
//! connection, and an orderly end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;

use duologue_runtime::listener::{Peer, Proxies};
use duologue_runtime::server::{
    CONNECTION_WINDOW_BYTES, Connection, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MAX_HEADER_LIST_BYTES, MAX_STREAMS_PER_CONNECTION, STREAM_WINDOW_BYTES,
};
use duologue_runtime::shutdown::Shutdown;
use futures_util::{Stream, StreamExt as _};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tonic::transport::server::Connected;

use crate::limits::{HEADER_READ_TIMEOUT, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::router::{Gateway, Paths};
use crate::stall::Stalling;

/// Serves requests until the process has drained.
///
/// When draining begins, `incoming` is dropped, no connection gets new requests, and
/// those under way may end. When the process stops, whatever is left is cut off.
pub async fn serve<I, IO>(gateway: Gateway, incoming: I, shutdown: Shutdown)
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected<ConnectInfo = Peer> + Unpin + Send + 'static,
{
    let server = Server {
        paths: gateway.paths(),
        proxies: gateway.proxies().clone(),
        http: http(),
        shutdown: shutdown.clone(),
    };
    let sockets = gateway.sockets().clone();
    // No more than the listener lets in.
    let mut connections = JoinSet::new();
    {
        let mut incoming = pin!(incoming);
        let mut draining = pin!(shutdown.draining());
        loop {
            tokio::select! {
                biased;
                () = &mut draining => break,
                Some(ended) = connections.join_next() => note(ended),
                next = incoming.next() => match next {
                    Some(Ok(io)) => {
                        connections.spawn(server.clone().connection(io));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "a connection failed"),
                    None => break,
                },
            }
        }
    }
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
    // They are connections no more.
    sockets.ended().await;
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(panicked = error.is_panic(), "a web connection broke off");
    }
}

/// HTTP as it is spoken here: over HTTP/2 as on the listener for gRPC.
fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    http
}

#[derive(Clone)]
struct Server {
    paths: Paths,
    proxies: Proxies,
    http: Builder<TokioExecutor>,
    shutdown: Shutdown,
}

impl Server {
    /// Serves one connection to its end.
    async fn connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Connected<ConnectInfo = Peer> + Unpin + Send + 'static,
    {
        let peer = io.connect_info();
        let Self { paths, proxies, .. } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = proxies.client(peer, request.headers());
            request.extensions_mut().insert(client);
            let paths = paths.clone();
            async move { Ok::<_, Infallible>(paths.answer(request).await) }
        });
        let io = TokioIo::new(Connection::new(Stalling::new(io), &self.shutdown));
        let connection = self.http.serve_connection_with_upgrades(io, service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = self.shutdown.draining() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a web connection ended early");
        }
    }
}
