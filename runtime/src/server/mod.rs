//! The gRPC server: one stack around every call, explicit limits on every
//! connection, and an orderly end.
//!
//! It knows nothing of what the services do.

mod access;
pub(crate) mod call_metrics;
mod connection;
mod connection_metrics;
mod cut;
pub(crate) mod deadline;
mod health;
mod methods;
mod observe;
mod panics;
mod reflection;
mod spans;
mod stack;

use std::io;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Error, Server};

use crate::inner::{
    INNER_CONNECTION_WINDOW_BYTES, INNER_MAX_STREAMS_PER_CONNECTION, INNER_STREAM_WINDOW_BYTES,
};

use crate::listener::Peer;
pub use access::{AdmitCall, Authenticate, admit_by_rate, authenticate_by_token};
pub use connection::Connection;
pub use connection_metrics::count_connections;
pub use deadline::{DEFAULT_UNARY_DEADLINE, MAX_TIMEOUT};
pub use health::Health;
pub use methods::{Method, Methods, OTHER};
pub use reflection::add_reflection;
pub use stack::{CallService, Stack};

/// Calls at the same time on one connection.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 100;
/// Bytes of headers that one call may have, as HTTP/2 counts them.
pub const MAX_HEADER_LIST_BYTES: u32 = 8 * 1024;
/// Bytes that one stream may have in flight towards the server.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes that one connection may have in flight towards the server. h2 takes more unread
/// small frames than half of this, each counted as 256 bytes, for an attack and closes the
/// connection: a stream full of the smallest ones, of 9 bytes, is less.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Calls at the same time on one connection of a trusted proxy: as many as there are
/// users behind it.
pub const PROXY_MAX_STREAMS_PER_CONNECTION: u32 = 16_384;
/// Bytes that one connection of a trusted proxy may have in flight, in either direction:
/// so many that a user who does not read stops nobody else.
pub const PROXY_CONNECTION_WINDOW_BYTES: u32 =
    PROXY_MAX_STREAMS_PER_CONNECTION * STREAM_WINDOW_BYTES;
/// Calls on a connection of a trusted proxy that may be given up before they are looked
/// at: a proxy gives up those of all users who leave at once.
pub const PROXY_MAX_PENDING_RESETS: usize = 1_024;
/// Connections of trusted proxies that may wait to be served.
pub const MAX_WAITING_PROXIES: usize = 64;
/// When a caller may come again who is sent to another server, since this one ends.
pub const COMES_BACK_AFTER: Duration = Duration::from_millis(500);
/// A connection that is silent for this long is asked whether it lives.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A connection that does not answer for this long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves calls until the server has drained.
///
/// When draining begins, `incoming` is dropped, no connection gets new calls, and
/// those under way may end. When it stops, whatever is left is cut off. A
/// connection that fails ends alone.
pub async fn serve<I, IO, E>(stack: Stack, routes: Routes, incoming: I) -> Result<(), Error>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<tonic::codegen::StdError>,
{
    let shutdown = stack.shutdown().clone();
    let draining = shutdown.draining();
    let incoming =
        incoming.map(move |connection| connection.map(|io| Connection::new(io, &shutdown)));
    limits(stack.door())
        .serve_with_incoming_shutdown(stack.around(routes.prepare()), incoming, draining)
        .await
}

/// Serves calls as [`serve`] does; connections of the proxies that the stack believes
/// get the limits of one who calls for many.
pub async fn serve_behind<I, IO>(stack: Stack, routes: Routes, incoming: I) -> Result<(), Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected<ConnectInfo = Peer> + Unpin + Send + 'static,
{
    let (hand, handed) = mpsc::channel(MAX_WAITING_PROXIES);
    let proxies = stack.proxies().clone();
    let direct = incoming.filter_map(move |connection| match connection {
        Ok(io) if proxies.contains(io.connect_info()) => {
            // One that does not fit is closed, and comes again.
            if hand.try_send(Ok(io)).is_err() {
                tracing::warn!("a connection of a proxy was closed: too many wait");
            }
            None
        }
        other => Some(other),
    });
    let handed = ReceiverStream::<io::Result<IO>>::new(handed);
    let through = serve(stack.for_proxies(), routes.clone(), handed);
    tokio::try_join!(serve(stack, routes, direct), through)?;
    Ok(())
}

/// Which listener of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The one for users.
    Public,
    /// The one for browsers, which is public too.
    Web,
    /// The public one, for connections of trusted proxies.
    Proxies,
    /// The one for other services.
    Inner,
}

impl Door {
    /// Where the numbers of this door are registered.
    fn registry(self, registry: &mut Registry) -> &mut Registry {
        match self {
            Self::Public | Self::Proxies => registry,
            Self::Web => registry.sub_registry_with_prefix("web"),
            Self::Inner => registry.sub_registry_with_prefix("inner"),
        }
    }
}

/// A service calls for all of its users over one connection.
fn limits(door: Door) -> Server {
    let (streams, stream_window, connection_window) = match door {
        Door::Public | Door::Web => (
            MAX_STREAMS_PER_CONNECTION,
            STREAM_WINDOW_BYTES,
            CONNECTION_WINDOW_BYTES,
        ),
        Door::Proxies => (
            PROXY_MAX_STREAMS_PER_CONNECTION,
            STREAM_WINDOW_BYTES,
            PROXY_CONNECTION_WINDOW_BYTES,
        ),
        Door::Inner => (
            INNER_MAX_STREAMS_PER_CONNECTION,
            INNER_STREAM_WINDOW_BYTES,
            INNER_CONNECTION_WINDOW_BYTES,
        ),
    };
    let resets = (door == Door::Proxies).then_some(PROXY_MAX_PENDING_RESETS);
    Server::builder()
        .http2_max_pending_accept_reset_streams(resets)
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        // It would override both windows.
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}
