//! The way to an address: names, sockets, TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Addresses};
use super::{CONNECT_TIMEOUT, UPSTREAM_KEEPALIVE_INTERVAL, UPSTREAM_KEEPALIVE_TIMEOUT};
use crate::inner::{INNER_CONNECTION_WINDOW_BYTES, INNER_STREAM_WINDOW_BYTES};
use crate::server::MAX_HEADER_LIST_BYTES;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What replicas are reached over: the system's sockets, or those of a simulation.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Connects.
    async fn connect(&self, address: &Address) -> io::Result<Box<dyn Io>>;

    /// All addresses of `name:port`.
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The system's sockets and names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, address: &Address) -> io::Result<Box<dyn Io>> {
        let io = TcpStream::connect(address.as_str()).await?;
        io.set_nodelay(true)?;
        Ok(Box::new(io))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host(name).await?.collect())
    }
}

/// Bytes that may be in flight towards us: of one stream, and of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of one stream.
    pub stream: u32,
    /// Of all streams of a connection together.
    pub connection: u32,
}

impl Default for Windows {
    /// Those between services.
    fn default() -> Self {
        Self {
            stream: INNER_STREAM_WINDOW_BYTES,
            connection: INNER_CONNECTION_WINDOW_BYTES,
        }
    }
}

/// How connections are made.
pub(super) struct Way {
    tls: Option<Arc<ClientConfig>>,
    /// The name that the other side must have, if it is not what is dialled.
    name: Option<String>,
    windows: Windows,
}

impl Way {
    /// Replicas of a name are dialled by their addresses, which no certificate has.
    pub(super) fn of(
        addresses: &Addresses,
        tls: Option<Arc<ClientConfig>>,
        windows: Windows,
    ) -> Self {
        Self {
            tls,
            name: addresses.name().map(str::to_owned),
            windows,
        }
    }
}

/// A connection that is there, until `gone`.
pub(super) struct Link {
    pub(super) channel: Channel,
    /// Done once the connection takes no more calls, whoever ended it.
    pub(super) gone: CancellationToken,
}

/// Opens a connection; the text says why it cannot be.
pub(super) async fn open(
    network: &dyn Network,
    way: &Way,
    address: &Address,
) -> Result<Link, String> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, async {
        let io = network.connect(address).await?;
        let io = match &way.tls {
            None => io,
            Some(config) => secure(config, way.name.as_deref(), address, io).await?,
        };
        Ok::<_, io::Error>(io)
    });
    let io = match opened.await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("does not answer".to_owned()),
    };
    let gone = CancellationToken::new();
    let mut once = Some(Watched {
        io,
        _gone: gone.clone().drop_guard(),
    });
    let again = gone.clone();
    // A channel would connect again by itself, and hide that it has to.
    let connector = tower::service_fn(move |_| {
        let io = once.take();
        if io.is_none() {
            again.cancel();
        }
        async move {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            io.map(TokioIo::new).ok_or_else(gone)
        }
    });
    let endpoint = endpoint(address, way.windows).map_err(|error| error.to_string())?;
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| error.to_string())?;
    Ok(Link { channel, gone })
}

async fn secure(
    config: &Arc<ClientConfig>,
    name: Option<&str>,
    address: &Address,
    io: Box<dyn Io>,
) -> io::Result<Box<dyn Io>> {
    let host = address.as_str().rsplit_once(':').map(|(host, _)| host);
    let host = name
        .or(host)
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(config));
    Ok(Box::new(connector.connect(name, io).await?))
}

fn endpoint(address: &Address, windows: Windows) -> Result<Endpoint, tonic::transport::Error> {
    // TLS is done below, with certificates that may change.
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(UPSTREAM_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(UPSTREAM_KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(false)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection))
}

/// Tells when it is dropped, which HTTP/2 does when the connection has ended.
struct Watched {
    io: Box<dyn Io>,
    _gone: DropGuard,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
