//! A connection as the server drives it: one that can be cut off.
//!
//! At the end of the grace period, reads and writes fail, which ends every call
//! on it. A client that has not even said hello is not waited for at all: nothing
//! tells it to go away.

use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::listener::preface::Preface;
use crate::shutdown::Shutdown;

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection, and what ends it.
pub struct Connection<IO> {
    inner: IO,
    shutdown: Shutdown,
    // What the client has said to begin with.
    preface: Preface,
    draining: Ending,
    stopped: Ending,
    // Whom the endings wake.
    waker: Option<Waker>,
    is_over: bool,
}

impl<IO> Connection<IO> {
    /// It is cut off when the process stops.
    pub fn new(inner: IO, shutdown: &Shutdown) -> Self {
        Self {
            inner,
            shutdown: shutdown.clone(),
            preface: Preface::default(),
            draining: Box::pin(shutdown.draining()),
            stopped: Box::pin(shutdown.stopped()),
            waker: None,
            is_over: false,
        }
    }

    /// Whether the connection is cut off; registers to be woken when it is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_watched(cx) && !self.shutdown.is_draining() {
            return Ok(());
        }
        if !self.is_over {
            self.waker = Some(cx.waker().clone());
            self.is_over = self.poll_over(cx).is_ready();
        }
        if self.is_over {
            return Err(io::Error::new(
                ErrorKind::ConnectionAborted,
                "the server ends",
            ));
        }
        Ok(())
    }

    /// Whether the endings know whom to wake. It spares every read and write of a
    /// running server the locks that all connections share.
    fn is_watched(&self, cx: &Context<'_>) -> bool {
        let is_same = |waker: &Waker| waker.will_wake(cx.waker());
        self.waker.as_ref().is_some_and(is_same)
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.preface.is_over() && self.draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.stopped.as_mut().poll(cx)
    }
}

impl<IO> fmt::Debug for Connection<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buffer);
        this.preface
            .hear(buffer.filled().get(before..).unwrap_or_default());
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<IO: Connected> Connected for Connection<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> IO::ConnectInfo {
        self.inner.connect_info()
    }
}
