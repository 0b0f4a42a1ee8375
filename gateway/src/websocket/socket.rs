//! One connection as a WebSocket: its buffers, and whether the other end lives.
//!
//! It knows nothing of calls. An idle connection keeps no buffer.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::close::{Close, CloseCode};
use super::frame::{self, Decoder, Event, Fault, Kind};

/// A client that is silent for this long is asked whether it lives.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A client that does not answer for this long is given up.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a message may take from its first byte to its last.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// With so many bytes waiting for the client, no more are taken from the call.
pub const DOWN_BYTES: usize = 16 * 1024;
/// How long what is left may take to be sent, the close frame last.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the client's close frame is waited for.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// One read takes so many bytes at most.
const READ_BYTES: usize = 8 * 1024;
/// Events and reads of one turn: who floods must not keep its own timers from running out.
const MAX_READS: usize = 32;

/// Why nothing more is to be had from a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The client is gone, or does not answer.
    Gone,
    /// It is to be closed.
    Close(Close),
}

impl From<Fault> for Lost {
    fn from(fault: Fault) -> Self {
        Self::Close(fault.into())
    }
}

impl From<std::io::Error> for Lost {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A connection.
pub(super) struct Socket<IO> {
    io: IO,
    kind: Kind,
    decoder: Decoder,
    /// What was read and is not decoded.
    input: BytesMut,
    /// What is to be written.
    out: BytesMut,
    /// The last ping that is not answered yet: only that one needs to be.
    pong: Option<Vec<u8>>,
    /// The client has said that nothing follows.
    has_closed: bool,
    /// Nothing that follows can be decoded.
    is_broken: bool,
    life: Life,
}

/// What is known of the other end's life.
struct Life {
    timer: Pin<Box<Sleep>>,
    /// When something was last heard.
    heard: Instant,
    /// It was asked for a sign since.
    is_pinged: bool,
    /// When the message began that is being read.
    began: Option<Instant>,
    /// The client does not take what is written.
    is_stalled: bool,
    /// Nothing is read, for lack of room: what is not heard means nothing.
    is_paused: bool,
    /// When it ends whatever is heard, and how.
    limit: Option<(Instant, Close)>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Socket<IO> {
    /// A connection whose handshake is over. It ends at the limit, if that is not
    /// lifted.
    pub(super) fn new(io: IO, kind: Kind, limit: (Instant, Close)) -> Self {
        Self {
            io,
            kind,
            decoder: Decoder::new(kind),
            input: BytesMut::new(),
            out: BytesMut::new(),
            pong: None,
            has_closed: false,
            is_broken: false,
            life: Life {
                timer: Box::pin(sleep_until(limit.0)),
                heard: Instant::now(),
                is_pinged: false,
                began: None,
                is_stalled: false,
                is_paused: false,
                limit: Some(limit),
            },
        }
    }

    /// Lifts the limit.
    pub(super) fn is_under_way(&mut self) {
        self.life.limit = None;
        self.life.rearm();
    }

    /// Nothing is read for now.
    pub(super) fn pause(&mut self) {
        self.life.is_paused = true;
    }

    /// The next message, or none for the client's end; pings are answered. Behind
    /// its end, the client can only vanish.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Lost>> {
        if std::mem::take(&mut self.life.is_paused) {
            self.life.hear();
        }
        for _ in 0..MAX_READS {
            if self.has_closed {
                self.input.clear();
            } else if let Some(event) = self.decode()? {
                match event {
                    Event::Message(message) => return Poll::Ready(Ok(Some(message))),
                    Event::Ping(payload) => self.pong = Some(payload),
                    Event::Pong => {}
                    Event::Close => {
                        self.has_closed = true;
                        return Poll::Ready(Ok(None));
                    }
                }
                continue;
            }
            ready!(self.poll_read(cx))?;
        }
        // Others have their turn, and so have this connection's timers.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn decode(&mut self) -> Result<Option<Event>, Lost> {
        let decoded = self.decoder.next(&mut self.input);
        self.is_broken |= decoded.is_err();
        let event = decoded?;
        let is_within = self.decoder.is_within_message() || !self.input.is_empty();
        if event.is_some() && !self.decoder.is_within_message() {
            self.life.began = None;
        }
        if event.is_none() {
            if !is_within {
                self.life.began = None;
                self.input = BytesMut::new();
            } else if self.life.began.is_none() {
                self.life.began = Some(Instant::now());
            }
        }
        Ok(event)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        // Not a buffer of the connection: most of them are idle.
        let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(Lost::Gone));
        }
        self.input.extend_from_slice(buffer.filled());
        self.life.hear();
        Poll::Ready(Ok(()))
    }

    /// Whether more may be written.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < DOWN_BYTES
    }

    /// Writes a message; it goes out when the socket is polled.
    pub(super) fn write(&mut self, message: &[u8]) {
        frame::write_message(self.kind, message, &mut self.out);
    }

    /// Sends all that is to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        loop {
            if self.has_room()
                && let Some(payload) = self.pong.take()
            {
                frame::write_pong(&payload, &mut self.out);
            }
            if self.out.is_empty() {
                self.out = BytesMut::new();
                return Pin::new(&mut self.io).poll_flush(cx).map_err(Lost::from);
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.out) {
                Poll::Pending => {
                    self.life.is_stalled = true;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Lost::Gone)),
                Poll::Ready(Ok(count)) => {
                    self.out.advance(count);
                    // It took something, so somebody reads.
                    if std::mem::take(&mut self.life.is_stalled) {
                        self.life.hear();
                    }
                }
            }
        }
    }

    /// Says when the connection is to end because nothing, or too little, is heard.
    /// Whatever it asks for must be flushed.
    pub(super) fn poll_life(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        loop {
            ready!(self.life.timer.as_mut().poll(cx));
            match self.life.judge(Instant::now()) {
                Verdict::Wait => {}
                Verdict::Ask => frame::write_ping(&mut self.out),
                Verdict::End(lost) => return Poll::Ready(lost),
            }
            self.life.rearm();
        }
    }

    /// Says goodbye, and waits a moment for the client to do so.
    pub(super) async fn close(&mut self, close: &Close) {
        // Nothing may follow a close frame.
        self.pong = None;
        frame::write_close(close.code as u16, &close.reason, &mut self.out);
        let flushed = timeout(FLUSH_TIMEOUT, poll_fn(|cx| self.poll_flush(cx))).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return;
        }
        // Were the connection closed with bytes unread, the client might lose the
        // close frame.
        let _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| self.poll_closed(cx))).await;
        let shutdown = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        let _ = timeout(CLOSE_TIMEOUT, shutdown).await;
    }

    /// Drops what the client says until it says that it ends.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let heard = if self.is_broken {
                self.input.clear();
                ready!(self.poll_read(cx))
            } else if self.has_closed {
                return Poll::Ready(());
            } else {
                ready!(self.poll_message(cx)).map(drop)
            };
            match heard {
                Ok(()) => {}
                Err(Lost::Gone) => return Poll::Ready(()),
                Err(Lost::Close(_)) => self.is_broken = true,
            }
        }
    }
}

/// What is to be done at a time.
enum Verdict {
    Wait,
    Ask,
    End(Lost),
}

impl Life {
    fn hear(&mut self) {
        self.heard = Instant::now();
        self.is_pinged = false;
    }

    /// When there is something to judge.
    fn deadline(&self) -> Instant {
        let silence = if self.is_pinged {
            PING_INTERVAL + PING_TIMEOUT
        } else {
            PING_INTERVAL
        };
        let message = self.began.map(|began| began + MESSAGE_TIMEOUT);
        let limit = self.limit.as_ref().map(|(limit, _)| *limit);
        let others = message.into_iter().chain(limit);
        others.fold(self.heard + silence, Instant::min)
    }

    fn rearm(&mut self) {
        let deadline = self.deadline();
        self.timer.as_mut().reset(deadline);
    }

    fn judge(&mut self, now: Instant) -> Verdict {
        if let Some((_, close)) = self.limit.take_if(|(limit, _)| *limit <= now) {
            return Verdict::End(Lost::Close(close));
        }
        if self.is_paused && !self.is_stalled {
            self.heard = now;
            self.began = self.began.map(|_| now);
        }
        if self.deadline() > now {
            return Verdict::Wait;
        }
        if self
            .began
            .is_some_and(|began| began + MESSAGE_TIMEOUT <= now)
        {
            let why = "a message was begun and not finished in time";
            return Verdict::End(Lost::Close(Close::plain(CloseCode::Policy, why)));
        }
        if self.is_pinged {
            return Verdict::End(Lost::Gone);
        }
        self.is_pinged = true;
        Verdict::Ask
    }
}
