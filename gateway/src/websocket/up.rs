//! What a client said, on its way to the call: the body of the call's request.
//!
//! The connection puts messages in as long as there is room; the call takes them
//! all together. What waits is bounded, so a flood waits in the network.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::Status;

use super::proto;

/// With so many bytes waiting, no more messages are read from the client.
pub const UP_BYTES: usize = 16 * 1024;

/// The connection's end.
#[derive(Debug)]
pub(super) struct Up(Arc<Mutex<State>>);

/// The call's end.
#[derive(Debug)]
pub(super) struct UpBody(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    reader: Option<Waker>,
    writer: Option<Waker>,
    end: End,
    /// The call takes nothing any more.
    gone: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The client said that nothing follows.
    Closed,
    /// The client is gone.
    Broken,
}

/// Both ends of an empty body.
pub(super) fn up() -> (Up, UpBody) {
    let state = Arc::default();
    (Up(Arc::clone(&state)), UpBody(state))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is whole between any two statements.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Up {
    /// Whether there is room for a message; wakes the task when there is.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.gone || state.waiting.len() < UP_BYTES {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Adds a message.
    pub(super) fn push(&self, message: &[u8]) {
        self.change(|state| {
            if !state.gone {
                proto::write(message, &mut state.waiting);
            }
        });
    }

    /// Nothing follows, and all that was said is to be answered.
    pub(super) fn close(&self) {
        self.change(|state| state.end = End::Closed);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.0);
        change(&mut state);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }
}

/// Without a word before, the client is gone.
impl Drop for Up {
    fn drop(&mut self) {
        self.change(|state| {
            if state.end == End::Open {
                state.end = End::Broken;
            }
        });
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = lock(&self.0);
        if !state.waiting.is_empty() {
            // With its memory: between bursts there is none.
            let bytes = std::mem::take(&mut state.waiting).freeze();
            let writer = state.writer.take();
            drop(state);
            writer.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match state.end {
            End::Open => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Closed => Poll::Ready(None),
            End::Broken => Poll::Ready(Some(Err(Status::cancelled("the client is gone")))),
        }
    }
}

impl Drop for UpBody {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.gone = true;
        state.waiting = BytesMut::new();
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use std::future::poll_fn;

    use super::*;

    fn has_room(up: &Up) -> bool {
        poll_fn(|cx| up.poll_room(cx)).now_or_never().is_some()
    }

    #[tokio::test]
    async fn what_waits_is_taken_together_and_then_there_is_room() {
        let (up, mut body) = up();
        up.push(b"a");
        assert!(has_room(&up));
        up.push(&[7; UP_BYTES]);
        assert!(!has_room(&up));
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data.len(), 5 + 1 + 5 + UP_BYTES);
        assert!(has_room(&up));
    }

    #[tokio::test]
    async fn an_end_that_was_said_is_an_end_and_a_loss_is_an_error() {
        let (closing, mut body) = up();
        closing.push(b"last");
        closing.close();
        drop(closing);
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.is_none());
        let (lost, mut body) = up();
        drop(lost);
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::Cancelled);
    }

    #[tokio::test]
    async fn a_call_that_ended_holds_nothing_and_stops_nobody() {
        let (up, body) = up();
        up.push(&[7; UP_BYTES]);
        drop(body);
        up.push(&[7; UP_BYTES]);
        assert!(has_room(&up));
        assert!(lock(&up.0).waiting.is_empty());
    }
}
