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

/// With fewer bytes waiting, there is room for whatever the session may wait to
/// push.
pub(crate) const LOW_BYTES: usize = OUTBOX_BYTES / 2;

/// One frame down with the number that it answers.
pub(crate) type DownFrame = (Ref, Down);

/// The session's end.
pub(crate) struct Outbox(Arc<Shared>);

/// The stream's end.
pub(crate) struct OutboxStream(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// What the stream occupies until both ends are gone.
    _seat: Seat,
}

/// Anything that is given back when it is dropped.
pub(crate) type Seat = Box<dyn Send + Sync>;

#[derive(Default)]
struct State {
    frames: VecDeque<DownFrame>,
    bytes: usize,
    reader: Option<Waker>,
    /// The session waits to be told that there is room.
    awaited: bool,
    end: Option<Result<(), Status>>,
    gone: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of an empty outbox. `seat` is kept as long as either is there: a
/// stream that ended and is not read still takes memory.
pub(crate) fn outbox(seat: Seat) -> (Outbox, OutboxStream) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        changed: Notify::new(),
        _seat: seat,
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

    /// Wakes [`Outbox::changed`] as soon as little waits: now, or when enough was
    /// taken. To be asked after every push that may have left much, since what
    /// was taken meanwhile is told to nobody.
    pub(crate) fn call_when_low(&self) {
        let mut state = self.0.lock();
        if state.bytes < LOW_BYTES {
            drop(state);
            self.0.changed.notify_one();
        } else {
            state.awaited = true;
        }
    }

    /// Waits until the device has taken everything, or is gone, or `limit` has
    /// passed; then drops what is left.
    pub(crate) async fn finish(&self, limit: std::time::Duration) {
        let emptied = async {
            while !self.is_empty() {
                self.0.changed.notified().await;
            }
        };
        let late = tokio::time::timeout(limit, emptied).await.is_err();
        if late {
            let mut state = self.0.lock();
            state.frames = VecDeque::new();
            state.bytes = 0;
        }
    }

    fn is_empty(&self) -> bool {
        let mut state = self.0.lock();
        // Until it is, whoever takes the last one tells.
        state.awaited = !state.frames.is_empty();
        state.frames.is_empty()
    }

    /// Waits until little waits, where that was asked for, or the stream was
    /// dropped.
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
            state.bytes -= frame.1.cost();
            let low = if state.end.is_some() {
                state.frames.is_empty()
            } else {
                state.bytes < LOW_BYTES
            };
            let told = state.awaited && low;
            state.awaited &= !told;
            drop(state);
            if told {
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
    use futures_util::FutureExt as _;
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn frames_come_in_order_and_before_the_end() {
        let (outbox, mut stream) = outbox(Box::new(()));
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
        let (outbox, mut stream) = outbox(Box::new(()));
        drop(outbox);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().code(),
            tonic::Code::Internal
        );
    }

    #[tokio::test]
    async fn a_dropped_stream_is_told_to_the_session_and_holds_nothing() {
        let (outbox, stream) = outbox(Box::new(()));
        outbox.push([(0, Down::Pong)]);
        drop(stream);
        outbox.changed().await;
        outbox.push([(0, Down::Pong)]);
        assert!(outbox.is_gone());
        assert_eq!(outbox.bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_outbox_tells_when_it_is_low() {
        let (outbox, mut stream) = outbox(Box::new(()));
        let frames = OUTBOX_BYTES / Down::Pong.cost();
        outbox.push((0..frames).map(|_| (0, Down::Pong)));
        outbox.call_when_low();
        while outbox.bytes() >= LOW_BYTES {
            assert!(outbox.changed().now_or_never().is_none());
            stream.next().await;
        }
        outbox.changed().await;
    }

    #[tokio::test]
    async fn what_was_taken_before_it_was_asked_for_is_told_too() {
        let (outbox, mut stream) = outbox(Box::new(()));
        outbox.push([(0, Down::Pong)]);
        stream.next().await;
        outbox.call_when_low();
        outbox.changed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_after_the_end_is_dropped_in_time() {
        let (outbox, mut stream) = outbox(Box::new(()));
        outbox.push([(0, Down::Pong)]);
        outbox.end(Err(Status::aborted("over")));
        outbox.finish(std::time::Duration::from_secs(30)).await;
        let end = stream.next().await.unwrap();
        assert_eq!(end.unwrap_err().code(), tonic::Code::Aborted);
    }

    #[tokio::test]
    async fn a_stream_keeps_its_seat_until_both_ends_are_gone() {
        let seat = Arc::new(());
        let (outbox, stream) = outbox(Box::new(Arc::clone(&seat)));
        drop(outbox);
        assert_eq!(Arc::strong_count(&seat), 2);
        drop(stream);
        assert_eq!(Arc::strong_count(&seat), 1);
    }
}
