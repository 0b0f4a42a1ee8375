//! A connection whose peer must take what is written to it.
//!
//! HTTP/2 asks whether the peer lives; HTTP/1.1, and what follows an upgrade, have
//! nobody else who would notice a peer that lives and takes nothing. One that is gone is
//! noticed below, by the same time: what little is written waits in the system's buffers.

use std::future::Future as _;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use duologue_runtime::listener::{self, Accepted};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

use crate::limits::STALL_TIMEOUT;

/// The connections of a listener, each given up if its peer is gone.
pub fn accepted(listener: TcpListener) -> impl Stream<Item = Accepted<TcpStream>> + Send {
    listener::accepted_and_watched(listener, STALL_TIMEOUT)
}

/// Fails once a write has waited for too long.
#[derive(Debug)]
pub(crate) struct Stalling<IO> {
    inner: IO,
    /// While a write waits, so that an idle connection has no timer.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<IO> Stalling<IO> {
    pub(crate) fn new(inner: IO) -> Self {
        Self {
            inner,
            deadline: None,
        }
    }

    /// The result of a write, or the failure of one that waits for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.deadline = None;
            return poll;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        let stalled = || io::Error::new(ErrorKind::TimedOut, "the peer takes nothing");
        deadline.as_mut().poll(cx).map(|()| Err(stalled()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Stalling<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Stalling<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (_near, far) = duplex(8);
        let mut io = Stalling::new(far);
        let started = Instant::now();
        let error = io
            .write_all(b"more than there is room for")
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), STALL_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_in_time_is_not() {
        let (mut near, far) = duplex(8);
        let mut io = Stalling::new(far);
        let write = io.write_all(&[7; 32]);
        let read = async {
            for _ in 0..4 {
                advance(STALL_TIMEOUT / 2).await;
                near.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(write, read);
        written.unwrap();
    }
}
