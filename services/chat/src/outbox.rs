//! What a session has to tell, on its way to the stream.
//!
//! The session's task pushes frames, which are encoded then and there, so that
//! what waits is counted in the bytes that it takes. The stream takes as fast as
//! the device reads. The session is told when enough was taken; how much may wait
//! is the session's rule.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use crate::frame::{Down, Ref};
use crate::session::OUTBOX_BYTES;
use crate::signal::Signal;

/// With fewer bytes waiting, there is room for whatever the session may wait to
/// push.
pub(crate) const LOW_BYTES: usize = OUTBOX_BYTES / 2;
/// A write to the connection takes frames up to so many bytes together.
pub const WRITE_BYTES: usize = 16 * 1024;

/// How a door writes a frame, with the number that it answers, behind others.
pub(crate) type Encode = fn(Ref, Down, &mut BytesMut);

/// The session's end.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    encode: Encode,
    /// Frames that are not pushed yet.
    unpushed: BytesMut,
}

/// The stream's end: the body of the call's response.
pub(crate) struct OutboxBody(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Raised when enough was taken, where that was asked for, or the stream was
    /// dropped.
    signal: Arc<Signal>,
    /// What the stream occupies until both ends are gone.
    _seat: Seat,
}

/// Anything that is given back when it is dropped.
pub(crate) type Seat = Box<dyn Send + Sync>;

#[derive(Default)]
struct State {
    /// Encoded frames.
    waiting: BytesMut,
    reader: Option<Waker>,
    /// The session waits to be told that there is room.
    awaited: bool,
    end: End,
    gone: bool,
}

/// Whether more frames follow what waits.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// None; then the call ends like this.
    Said(Result<(), Status>),
    /// The stream has taken that too.
    Taken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of an empty outbox. `signal` wakes the session's task; `seat` is kept
/// as long as either end is there: a stream that ended and is not read still takes
/// memory.
pub(crate) fn outbox(encode: Encode, signal: Arc<Signal>, seat: Seat) -> (Outbox, OutboxBody) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        signal,
        _seat: seat,
    });
    let outbox = Outbox {
        shared: Arc::clone(&shared),
        encode,
        unpushed: BytesMut::new(),
    };
    (outbox, OutboxBody(shared))
}

impl Outbox {
    /// Adds a frame, to be pushed with those that follow.
    pub(crate) fn add(&mut self, reference: Ref, down: Down) {
        (self.encode)(reference, down, &mut self.unpushed);
    }

    /// Hands what was added to the stream.
    pub(crate) fn push(&mut self) {
        if self.unpushed.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if state.gone {
            self.unpushed.clear();
            return;
        }
        if state.waiting.is_empty() {
            std::mem::swap(&mut state.waiting, &mut self.unpushed);
        } else {
            state.waiting.extend_from_slice(&self.unpushed);
            self.unpushed.clear();
        }
        let reader = state.reader.take();
        drop(state);
        wake(reader);
        // A burst is over: its memory goes too.
        if self.unpushed.capacity() > WRITE_BYTES {
            self.unpushed = BytesMut::new();
        }
    }

    /// Ends the stream after what waits.
    pub(crate) fn end(&mut self, end: Result<(), Status>) {
        self.push();
        let mut state = self.shared.lock();
        if matches!(state.end, End::Open) {
            state.end = End::Said(end);
        }
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// Whether the stream was dropped: the device is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.lock().gone
    }

    /// Raises the signal as soon as little waits: now, or when enough was taken. To
    /// be asked after every push that may have left much, since what was taken
    /// meanwhile is told to nobody.
    pub(crate) fn call_when_low(&self) {
        let mut state = self.shared.lock();
        if state.waiting.len() < LOW_BYTES {
            drop(state);
            self.shared.signal.raise();
        } else {
            state.awaited = true;
        }
    }

    /// Waits until the device has taken everything, or is gone, or `limit` has
    /// passed; then drops what is left.
    pub(crate) async fn finish(&self, limit: std::time::Duration) {
        let emptied = async {
            while !self.is_empty() {
                self.shared.signal.raised().await;
            }
        };
        let late = tokio::time::timeout(limit, emptied).await.is_err();
        if late {
            self.shared.lock().waiting = BytesMut::new();
        }
    }

    fn is_empty(&self) -> bool {
        let mut state = self.shared.lock();
        // Until it is, whoever takes the last one tells.
        state.awaited = !state.waiting.is_empty();
        state.waiting.is_empty()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // A session that ends without a word has failed.
        self.end(Err(Status::internal("the session failed")));
    }
}

impl State {
    /// Frames for one write; none if none wait.
    fn take(&mut self) -> Option<Bytes> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.waiting.len() <= WRITE_BYTES {
            // With its memory: between bursts there is none.
            return Some(std::mem::take(&mut self.waiting).freeze());
        }
        Some(self.waiting.split_to(WRITE_BYTES).freeze())
    }

    /// Whether the session is to be told what was taken.
    fn tells(&mut self) -> bool {
        let low = match self.end {
            End::Open => self.waiting.len() < LOW_BYTES,
            End::Said(_) | End::Taken => self.waiting.is_empty(),
        };
        let told = self.awaited && low;
        self.awaited &= !told;
        told
    }
}

impl Body for OutboxBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.0.lock();
        if let Some(bytes) = state.take() {
            let told = state.tells();
            drop(state);
            if told {
                self.0.signal.raise();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match std::mem::replace(&mut state.end, End::Taken) {
            End::Open => {
                state.end = End::Open;
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
            End::Said(end) => Poll::Ready(Some(trailers(end))),
            End::Taken => Poll::Ready(None),
        }
    }
}

/// How a call ends on the wire.
fn trailers(end: Result<(), Status>) -> Result<Frame<Bytes>, Status> {
    let status = end.err().unwrap_or_else(|| Status::ok(""));
    let mut trailers = HeaderMap::with_capacity(3);
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

impl Drop for OutboxBody {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        state.waiting = BytesMut::new();
        drop(state);
        self.0.signal.raise();
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
    use http_body_util::BodyExt as _;

    use super::*;

    /// What the frames of these tests take.
    const FRAME_BYTES: usize = 8;

    fn encode(reference: Ref, _: Down, bytes: &mut BytesMut) {
        bytes.extend_from_slice(&reference.to_be_bytes());
    }

    fn both_ends() -> (Outbox, OutboxBody, Arc<Signal>) {
        let signal = Arc::new(Signal::default());
        let (outbox, body) = outbox(encode, Arc::clone(&signal), Box::new(()));
        (outbox, body, signal)
    }

    fn push(outbox: &mut Outbox, references: impl IntoIterator<Item = Ref>) {
        for reference in references {
            outbox.add(reference, Down::Pong);
        }
        outbox.push();
    }

    async fn data(body: &mut OutboxBody) -> Bytes {
        let frame = body.frame().await.unwrap().unwrap();
        frame.into_data().unwrap()
    }

    async fn status(body: &mut OutboxBody) -> tonic::Code {
        let frame = body.frame().await.unwrap().unwrap();
        let trailers = frame.into_trailers().unwrap();
        Status::from_header_map(&trailers).unwrap().code()
    }

    #[tokio::test]
    async fn frames_come_in_order_and_before_the_end() {
        let (mut outbox, mut body, _) = both_ends();
        push(&mut outbox, [1, 2]);
        push(&mut outbox, [3]);
        outbox.end(Err(Status::aborted("over")));
        let expected: Vec<u8> = [1, 2, 3].into_iter().flat_map(u64::to_be_bytes).collect();
        assert_eq!(data(&mut body).await, expected);
        assert_eq!(status(&mut body).await, tonic::Code::Aborted);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_write_takes_no_more_than_its_limit_and_loses_nothing() {
        let (mut outbox, mut body, _) = both_ends();
        let frames = u64::try_from(3 * WRITE_BYTES / FRAME_BYTES / 2).unwrap();
        push(&mut outbox, 0..frames);
        outbox.end(Ok(()));
        let mut taken = Vec::new();
        while taken.len() < 3 * WRITE_BYTES / 2 {
            let bytes = data(&mut body).await;
            assert!(bytes.len() <= WRITE_BYTES);
            taken.extend_from_slice(&bytes);
        }
        let expected: Vec<u8> = (0..frames).flat_map(u64::to_be_bytes).collect();
        assert_eq!(taken, expected);
        assert_eq!(status(&mut body).await, tonic::Code::Ok);
    }

    #[tokio::test]
    async fn a_session_that_vanishes_is_never_an_ok() {
        let (outbox, mut body, _) = both_ends();
        drop(outbox);
        assert_eq!(status(&mut body).await, tonic::Code::Internal);
    }

    #[tokio::test]
    async fn a_dropped_stream_is_told_to_the_session_and_holds_nothing() {
        let (mut outbox, body, signal) = both_ends();
        push(&mut outbox, [0]);
        drop(body);
        signal.raised().await;
        push(&mut outbox, [0]);
        assert!(outbox.is_gone());
        assert_eq!(outbox.bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_outbox_tells_when_it_is_low() {
        let (mut outbox, mut body, signal) = both_ends();
        let frames = OUTBOX_BYTES / FRAME_BYTES;
        push(&mut outbox, std::iter::repeat_n(0, frames));
        outbox.call_when_low();
        while outbox.bytes() >= LOW_BYTES {
            assert!(signal.raised().now_or_never().is_none());
            data(&mut body).await;
        }
        signal.raised().await;
    }

    #[tokio::test]
    async fn what_was_taken_before_it_was_asked_for_is_told_too() {
        let (mut outbox, mut body, signal) = both_ends();
        push(&mut outbox, [0]);
        data(&mut body).await;
        outbox.call_when_low();
        signal.raised().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_after_the_end_is_dropped_in_time() {
        let (mut outbox, mut body, _) = both_ends();
        push(&mut outbox, [0]);
        outbox.end(Err(Status::aborted("over")));
        outbox.finish(std::time::Duration::from_secs(30)).await;
        assert_eq!(status(&mut body).await, tonic::Code::Aborted);
    }

    #[tokio::test]
    async fn a_stream_keeps_its_seat_until_both_ends_are_gone() {
        let seat = Arc::new(());
        let (outbox, body) = outbox(encode, Arc::default(), Box::new(Arc::clone(&seat)));
        drop(outbox);
        assert_eq!(Arc::strong_count(&seat), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&seat), 1);
    }
}
