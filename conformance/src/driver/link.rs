//! A connection that can be cut or frozen. A frozen one neither reads nor writes
//! and is not closed: to the server it is half-open.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::surroundings::{Dial, Io};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked whether it lives, and given
/// up if it does not answer for as long: as every client should do, since nothing
/// else tells that the way to the server has lost something for good.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    Frozen,
    Cut,
}

/// Governs the connections of one channel; cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    dial: Dial,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    wakers: Vec<Waker>,
}

impl Gate {
    /// An open gate, behind which connections are made in this way.
    pub(super) fn new(dial: Dial) -> Self {
        let inner = Inner {
            mode: Mode::Open,
            wakers: Vec::new(),
        };
        Self {
            dial,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(super) fn set(&self, mode: Mode) {
        let mut inner = self.lock();
        inner.mode = mode;
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready while open. Whoever polls is woken by every change of the mode.
    fn poll(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if !inner
            .wakers
            .iter()
            .any(|waker| waker.will_wake(context.waker()))
        {
            inner.wakers.push(context.waker().clone());
        }
        match inner.mode {
            Mode::Open => Poll::Ready(Ok(())),
            Mode::Frozen => Poll::Pending,
            Mode::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Makes the next connection behind this gate.
    pub(super) async fn connect(self, address: SocketAddr) -> io::Result<TokioIo<Gated>> {
        if self.lock().mode == Mode::Cut {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let stream = (self.dial)(address).await?;
        Ok(TokioIo::new(Gated { stream, gate: self }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where servers listen, any of which may be connected to: each connection is made to
/// the next one, as behind a balancer.
#[derive(Clone)]
pub(super) struct Addresses {
    all: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
}

impl Addresses {
    /// None if there are none.
    pub(super) fn new(all: &[SocketAddr]) -> Option<Self> {
        (!all.is_empty()).then(|| Self {
            all: all.into(),
            turn: Arc::default(),
        })
    }

    /// How all of them are named together.
    pub(super) fn first(&self) -> SocketAddr {
        self.all[0]
    }

    pub(super) fn next(&self) -> SocketAddr {
        self.all[self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}

/// A channel to `addresses`, behind a gate. Of a stream so many bytes may be on
/// their way to who does not read.
pub(super) fn channel(addresses: &Addresses, gate: &Gate, window_bytes: u32) -> Channel {
    endpoint(addresses.first())
        .initial_stream_window_size(window_bytes)
        .connect_with_connector_lazy(connector(addresses.clone(), gate.clone()))
}

/// As [`channel`], with the settings of an endpoint made elsewhere.
pub(super) fn channel_of(endpoint: &Endpoint, addresses: &Addresses, gate: &Gate) -> Channel {
    endpoint.connect_with_connector_lazy(connector(addresses.clone(), gate.clone()))
}

/// Makes connections to `addresses`, behind a gate.
pub(super) fn connector(
    addresses: Addresses,
    gate: Gate,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<Gated>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<Gated>>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |_| gate.clone().connect(addresses.next()))
}

/// The root of who listens there.
pub(super) fn uri(address: SocketAddr) -> http::Uri {
    http::Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build()
        // An address and a port are an authority.
        .unwrap_or_default()
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from(uri(address))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
}

/// A TCP connection behind a gate.
pub(super) struct Gated {
    stream: Box<dyn Io>,
    gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(context))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gate.poll(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn gate() -> Gate {
        Gate::new(Arc::new(|address| {
            Box::pin(async move {
                let stream: Box<dyn Io> = Box::new(TcpStream::connect(address).await?);
                Ok(stream)
            })
        }))
    }

    async fn pair(gate: &Gate) -> (Gated, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let near = gate.clone().connect(address).await.unwrap().into_inner();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_frozen_connection_stands_still_and_goes_on_when_it_is_thawed() {
        let gate = gate();
        let (mut near, mut far) = pair(&gate).await;
        gate.set(Mode::Frozen);
        far.write_all(b"x").await.unwrap();
        let mut byte = [0];
        {
            let read = near.read_exact(&mut byte);
            tokio::pin!(read);
            assert!(read.as_mut().now_or_never().is_none());
            gate.set(Mode::Open);
            read.await.unwrap();
        }
        assert_eq!(byte, *b"x");
    }

    #[tokio::test]
    async fn a_cut_wakes_who_waits_and_refuses_new_connections() {
        let gate = gate();
        let (mut near, far) = pair(&gate).await;
        let mut byte = [0];
        {
            let read = near.read_exact(&mut byte);
            tokio::pin!(read);
            assert!(read.as_mut().now_or_never().is_none());
            gate.set(Mode::Cut);
            let error = read.await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        let again = gate.clone().connect(far.local_addr().unwrap()).await;
        assert!(again.is_err());
    }
}
