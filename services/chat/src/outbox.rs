//! What a session has to tell, on its way to the stream.
//!
//! The session's task pushes, the stream takes as fast as the device reads. The
//! session is told when enough was taken; how much may wait is the session's rule.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

use crate::frame::{Down, Ref};
use crate::session::OUTBOX_BYTES;

/// Falling below so many waiting bytes is told to the session.
const LOW_BYTES: usize = OUTBOX_BYTES / 2;

/// One frame down with the number that it answers.
pub(crate) type DownFrame = (Ref, Down);

/// The session's end.
pub(crate) struct Outbox(Arc<Shared>);

/// The stream's end.
pub(crate) struct OutboxStream(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    frames: VecDeque<DownFrame>,
    bytes: usize,
    reader: Option<Waker>,
    end: Option<Result<(), Status>>,
    gone: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of an empty outbox.
pub(crate) fn outbox() -> (Outbox, OutboxStream) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        changed: Notify::new(),
    });
    (Outbox(Arc::clone(&shared)), OutboxStream(shared))
}

impl Outbox {
    /// Adds frames, in their order.
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = DownFrame>) {
        let mut state = self.0.lock();
        if state.gone {
            return;
        }
        for frame in frames {
            state.bytes += frame.1.cost();
            state.frames.push_back(frame);
        }
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Ends the stream after what waits.
    pub(crate) fn end(&self, end: Result<(), Status>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// Whether the stream was dropped: the device is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.lock().gone
    }

    /// Waits until much was taken or the stream was dropped.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // A session that ends without a word has failed.
        self.end(Err(Status::internal("the session failed")));
    }
}

impl Stream for OutboxStream {
    type Item = Result<DownFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        if let Some(frame) = state.frames.pop_front() {
            let before = state.bytes;
            state.bytes -= frame.1.cost();
            let low = before >= LOW_BYTES && state.bytes < LOW_BYTES;
            drop(state);
            if low {
                self.0.changed.notify_one();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        // A burst is over: its memory goes too.
        if state.frames.capacity() > 16 {
            state.frames = VecDeque::new();
        }
        match state.end.as_mut() {
            Some(Ok(())) => Poll::Ready(None),
            Some(end) => match std::mem::replace(end, Ok(())) {
                Ok(()) => Poll::Ready(None),
                Err(status) => Poll::Ready(Some(Err(status))),
            },
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for OutboxStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        state.frames = VecDeque::new();
        state.bytes = 0;
        drop(state);
        self.0.changed.notify_one();
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn frames_come_in_order_and_before_the_end() {
        let (outbox, mut stream) = outbox();
        outbox.push([(1, Down::Pong), (2, Down::Pong)]);
        outbox.end(Err(Status::aborted("over")));
        assert_eq!(stream.next().await.unwrap().unwrap(), (1, Down::Pong));
        assert_eq!(stream.next().await.unwrap().unwrap(), (2, Down::Pong));
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().code(),
            tonic::Code::Aborted
        );
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_session_that_vanishes_is_never_an_ok() {
        let (outbox, mut stream) = outbox();
        drop(outbox);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().code(),
            tonic::Code::Internal
        );
    }

    #[tokio::test]
    async fn a_dropped_stream_is_told_to_the_session_and_holds_nothing() {
        let (outbox, stream) = outbox();
        outbox.push([(0, Down::Pong)]);
        drop(stream);
        outbox.changed().await;
        outbox.push([(0, Down::Pong)]);
        assert!(outbox.is_gone());
        assert_eq!(outbox.bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_outbox_tells_when_it_is_low() {
        let (outbox, mut stream) = outbox();
        let frames = OUTBOX_BYTES / Down::Pong.cost();
        outbox.push((0..frames).map(|_| (0, Down::Pong)));
        while outbox.bytes() >= LOW_BYTES {
            stream.next().await;
        }
        outbox.changed().await;
    }
}
