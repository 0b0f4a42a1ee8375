//! Turmoil's network, where the server and the driver have the system's.
//!
//! A machine that crashes takes its connections down one by one, in the order in
//! which they were made. By itself, turmoil drops them with the tasks of the machine,
//! in an order that depends on what other threads of this process do.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use conformance::driver::Io;
use duologue_runtime::listener::{Accepted, Peer};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Where the server listens.
pub(crate) const PORT: u16 = 50_051;
/// Segments that one connection has on its way in each direction, and connections
/// that wait to be accepted; more of these is more than turmoil bears.
pub(crate) const SEGMENTS: usize = 256;

/// Makes a connection from the machine that asks.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<Box<dyn Io>> {
    Ok(Box::new(TcpStream::connect(address).await?))
}

/// The connections of the server's machine. Clones are one table.
#[derive(Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, TcpStream>,
}

impl Sockets {
    /// The connections that a listener accepts. It never ends.
    pub(crate) fn accepted(
        &self,
        listener: TcpListener,
    ) -> impl Stream<Item = Accepted<Socket>> + Send + use<> {
        unfold((listener, self.clone()), |(listener, sockets)| async move {
            // It fails only outside of a simulation.
            let (stream, addr) = listener.accept().await.ok()?;
            let io = sockets.enter(stream);
            let peer = Peer { addr: Some(addr) };
            Some((Accepted { io, peer }, (listener, sockets)))
        })
    }

    /// Takes all down. To be called on the machine.
    pub(crate) fn tear(&self) {
        let open = std::mem::take(&mut self.lock().open);
        open.into_values().for_each(drop);
    }

    fn enter(&self, stream: TcpStream) -> Socket {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        table.open.insert(number, stream);
        Socket {
            number,
            sockets: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of the server's machine.
pub(crate) struct Socket {
    number: u64,
    sockets: Sockets,
}

impl Socket {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.sockets.lock().open.get_mut(&self.number) {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let stream = self.sockets.lock().open.remove(&self.number);
        drop(stream);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
