//! One connection as the server sees it: plain or TLS, closed if it does not
//! begin to speak, and counted until it is dropped.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::Peer;
use super::guard::{ConnectionEvent, Seat};

/// How long a connection may take to send the HTTP/2 preface.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".
const PREFACE_BYTES: usize = 24;

/// A connection that was let in. Its place is given back when it is dropped.
#[derive(Debug)]
pub struct Connection<IO> {
    io: Channel<IO>,
    /// None once the preface has come, so that an idle connection has no timer.
    preface: Option<Preface>,
    seat: Seat,
}

#[derive(Debug)]
pub(super) enum Channel<IO> {
    Plain(IO),
    Tls(Box<TlsStream<IO>>),
}

/// What is still to come of the preface, and until when.
#[derive(Debug)]
struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<IO> Connection<IO> {
    /// Starts the deadline of the preface.
    pub(super) fn new(io: Channel<IO>, seat: Seat) -> Self {
        let preface = Preface {
            missing: PREFACE_BYTES,
            deadline: Box::pin(sleep(PREFACE_TIMEOUT)),
        };
        Self {
            io,
            preface: Some(preface),
            seat,
        }
    }

    /// Counts what was read towards the preface. What the bytes are is for
    /// HTTP/2 to judge; the end of the stream is too.
    fn count(&mut self, read: usize) {
        self.preface.take_if(|preface| {
            preface.missing = preface.missing.saturating_sub(read);
            preface.missing == 0
        });
    }

    /// Fails once the preface is overdue. To be asked wherever the connection
    /// waits, since it may be waiting to write.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(preface) = &mut self.preface else {
            return Poll::Pending;
        };
        ready!(preface.deadline.as_mut().poll(cx));
        self.preface = None;
        self.seat.tell(ConnectionEvent::PrefaceTimedOut);
        Poll::Ready(io::Error::new(
            ErrorKind::TimedOut,
            "the peer did not begin to speak HTTP/2",
        ))
    }
}

/// `$poll`, or the failure of an overdue preface while it is pending.
macro_rules! or_overdue {
    ($connection:expr, $cx:expr, $poll:expr) => {
        match $poll {
            Poll::Pending => $connection.poll_overdue($cx).map(Err),
            ready => ready,
        }
    };
}

/// The channel, whichever it is.
macro_rules! channel {
    ($connection:expr, $io:ident => $call:expr) => {
        match &mut $connection.io {
            Channel::Plain(io) => {
                let $io = Pin::new(io);
                $call
            }
            Channel::Tls(io) => {
                let $io = Pin::new(io);
                $call
            }
        }
    };
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = channel!(self, io => io.poll_read(cx, buf));
        self.count(buf.filled().len() - before);
        or_overdue!(self, cx, poll)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = channel!(self, io => io.poll_write(cx, buf));
        or_overdue!(self, cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = channel!(self, io => io.poll_write_vectored(cx, bufs));
        or_overdue!(self, cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Channel::Plain(io) => io.is_write_vectored(),
            Channel::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = channel!(self, io => io.poll_flush(cx));
        or_overdue!(self, cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = channel!(self, io => io.poll_shutdown(cx));
        or_overdue!(self, cx, poll)
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.seat.peer()
    }
}
