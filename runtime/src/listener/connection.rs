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
use super::preface::Preface;

/// How long a connection may take to send the HTTP/2 preface, or to speak otherwise.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was let in. Its place is given back when it is dropped.
#[derive(Debug)]
pub struct Connection<IO> {
    io: Channel<IO>,
    /// None once the preface has come, so that an idle connection has no timer.
    beginning: Option<Beginning>,
    seat: Seat,
}

#[derive(Debug)]
pub(super) enum Channel<IO> {
    Plain(IO),
    Tls(Box<TlsStream<IO>>),
}

/// What has come of the preface, and until when the rest must.
#[derive(Debug)]
struct Beginning {
    preface: Preface,
    deadline: Pin<Box<Sleep>>,
}

impl<IO> Connection<IO> {
    /// Starts the deadline of the preface.
    pub(super) fn new(io: Channel<IO>, seat: Seat) -> Self {
        let beginning = Beginning {
            preface: Preface::default(),
            deadline: Box::pin(sleep(PREFACE_TIMEOUT)),
        };
        Self {
            io,
            beginning: Some(beginning),
            seat,
        }
    }

    /// Takes note of what was read. What follows of it, and of the end of the
    /// stream, is for the server to judge.
    fn hear(&mut self, read: &[u8]) {
        self.beginning.take_if(|beginning| {
            beginning.preface.hear(read);
            beginning.preface.is_over()
        });
    }

    /// Fails once the preface is overdue. To be asked wherever the connection
    /// waits, since it may be waiting to write.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(beginning) = &mut self.beginning else {
            return Poll::Pending;
        };
        ready!(beginning.deadline.as_mut().poll(cx));
        self.beginning = None;
        self.seat.tell(ConnectionEvent::PrefaceTimedOut);
        Poll::Ready(io::Error::new(
            ErrorKind::TimedOut,
            "the peer did not begin to speak",
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
        self.hear(buf.filled().get(before..).unwrap_or_default());
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
