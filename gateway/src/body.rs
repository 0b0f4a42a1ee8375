//! Bodies of calls by gRPC-Web, which may not end in silence on either side.
//!
//! A request has one message: it comes whole, in time, and nothing behind it. A
//! response ends with a status, whatever happens behind the gateway.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use duologue_proto::limits::MAX_REQUEST_BYTES;
use duologue_runtime::refusal::{Reason, Refusal};
use http::{HeaderMap, Response};
use http_body::Frame;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::limits::BODY_TIMEOUT;

/// Before a message of gRPC: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

pin_project! {
    /// A request: a prefix, and as many bytes as it says.
    pub(crate) struct RequestBody {
        #[pin]
        inner: Body,
        #[pin]
        deadline: Sleep,
        message: Message,
        is_over: bool,
    }
}

impl RequestBody {
    /// Starts the deadline.
    pub(crate) fn new(inner: Body) -> Self {
        Self {
            inner,
            deadline: sleep(BODY_TIMEOUT),
            message: Message::default(),
            is_over: false,
        }
    }
}

/// How much has come of a message: a prefix, and as many bytes as it says.
#[derive(Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    heard: usize,
}

impl Message {
    /// How long it is with its prefix, once that is there.
    fn promised(&self) -> Option<usize> {
        let [_, length @ ..] = self.prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        (self.heard >= PREFIX_BYTES).then(|| length.saturating_add(PREFIX_BYTES))
    }

    /// Takes what belongs to it; returns what does not.
    fn hear<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let at = self.heard.min(PREFIX_BYTES);
        let (of_prefix, data) = data.split_at((PREFIX_BYTES - at).min(data.len()));
        self.prefix[at..at + of_prefix.len()].copy_from_slice(of_prefix);
        self.heard += of_prefix.len();
        let missing = self.promised().map_or(0, |bytes| bytes - self.heard);
        let (taken, rest) = data.split_at(missing.min(data.len()));
        self.heard += taken.len();
        rest
    }

    fn is_whole(&self) -> bool {
        self.promised() == Some(self.heard)
    }
}

/// Where a body stands that is messages one after the other.
#[derive(Default)]
pub(crate) struct Messages {
    last: Message,
    has_one: bool,
}

impl Messages {
    /// Goes on by what came.
    pub(crate) fn hear(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            data = self.last.hear(data);
            if self.last.is_whole() {
                self.last = Message::default();
                self.has_one = true;
            }
        }
    }

    /// Whether no message has come in part.
    pub(crate) fn are_whole(&self) -> bool {
        self.last.heard == 0
    }

    /// Whether a whole one has come.
    pub(crate) fn has_one(&self) -> bool {
        self.has_one
    }
}

fn refuse(what: impl std::fmt::Display) -> Status {
    Refusal::field("request", what).into_status()
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if *this.is_over {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            ready!(this.deadline.as_mut().poll(cx));
            *this.is_over = true;
            let late = Refusal::new(Reason::DeadlineExceeded, "the request did not come in time");
            return Poll::Ready(Some(Err(late.into_status())));
        };
        let result = match frame {
            Some(Ok(frame)) => hear(this.message, &frame).map(|()| Some(frame)),
            // Whatever it was, it is not what was sent here; the client is told if it
            // is still there.
            Some(Err(_)) => Err(refuse("cannot be read: it is cut off or not in base64")),
            None if this.message.is_whole() => Ok(None),
            None => Err(refuse("is shorter than its prefix says")),
        };
        *this.is_over = !matches!(result, Ok(Some(_)));
        Poll::Ready(result.transpose())
    }
}

/// Takes what came, and refuses what is too much.
fn hear(message: &mut Message, frame: &Frame<Bytes>) -> Result<(), Status> {
    let rest = message.hear(frame.data_ref().map_or(&[][..], |data| data));
    if message.heard > 0 && message.prefix[0] != 0 {
        return Err(refuse("must begin with a message that is not compressed"));
    }
    match message.promised() {
        Some(bytes) if bytes - PREFIX_BYTES > MAX_REQUEST_BYTES => {
            Err(refuse(format!("is longer than {MAX_REQUEST_BYTES} bytes")))
        }
        _ if !rest.is_empty() => Err(refuse("is longer than its prefix says")),
        Some(_) | None => Ok(()),
    }
}

pin_project! {
    /// A response that ends with trailers, or in the middle of a message with an error:
    /// trailers are bytes like any other here, and would be taken for the rest of it.
    pub(crate) struct ResponseBody {
        #[pin]
        inner: Body,
        messages: Messages,
        is_over: bool,
    }
}

impl ResponseBody {
    /// Sees to it that a response ends with a status.
    pub(crate) fn complete(response: Response<Body>) -> Response<Body> {
        // Nothing but its headers is left to say.
        if response.headers().contains_key(Status::GRPC_STATUS) {
            return response;
        }
        response.map(|inner| {
            Body::new(Self {
                inner,
                messages: Messages::default(),
                is_over: false,
            })
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if *this.is_over {
            return Poll::Ready(None);
        }
        let frame = match ready!(this.inner.poll_frame(cx)) {
            Some(Ok(frame)) if frame.trailers_ref().is_some_and(is_without_status) => {
                trailers(&broken_off())
            }
            Some(Ok(frame)) => frame,
            Some(Err(status)) => trailers(&status),
            None => trailers(&broken_off()),
        };
        *this.is_over = frame.is_trailers();
        match frame.data_ref() {
            Some(data) => this.messages.hear(data),
            None if this.messages.are_whole() => {}
            None => return Poll::Ready(Some(Err(broken_off()))),
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

fn is_without_status(trailers: &HeaderMap) -> bool {
    !trailers.contains_key(Status::GRPC_STATUS)
}

fn broken_off() -> Status {
    let text = "the answer broke off: call again";
    Refusal::new(Reason::Unavailable, text).into_status()
}

/// How a response ends with this status.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // It fails only if a message cannot be written as a header.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    fn body(parts: &[&[u8]]) -> Body {
        let frames: Vec<_> = parts
            .iter()
            .map(|part| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    async fn read(parts: &[&[u8]]) -> Result<Bytes, Status> {
        let read = RequestBody::new(body(parts)).collect().await;
        read.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_whole_message_passes_however_it_is_cut() {
        let whole = b"\0\0\0\0\x03abc";
        for at in 0..=whole.len() {
            let (first, rest) = whole.split_at(at);
            assert_eq!(read(&[first, rest]).await.unwrap(), whole[..]);
        }
        assert_eq!(read(&[b"\0\0\0\0\0"]).await.unwrap(), b"\0\0\0\0\0"[..]);
    }

    #[tokio::test]
    async fn what_is_no_single_message_is_refused() {
        for parts in [
            &[&b""[..]][..],
            &[b"\0\0\0"],
            &[b"\0\0\0\0\x03ab"],
            &[b"\0\0\0\0\x03abcd"],
            &[b"\0\0\0\0\x03abc", b"\x80\0\0\0\x01x"],
            &[b"\0\xff\xff\xff\xff"],
            &[b"garbage, which names a length"],
            &[b"\x01\0\0\0\x03abc"],
            &[b"\x80\0\0\0\x03abc"],
        ] {
            let status = read(parts).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{parts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_not_waited_for() {
        let silent = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let silent = RequestBody::new(Body::new(StreamBody::new(silent)));
        let started = tokio::time::Instant::now();
        let status = silent.collect().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }

    async fn ends_with(body: Body) -> HeaderMap {
        let response = ResponseBody::complete(Response::new(body));
        let collected = response.into_body().collect().await.unwrap();
        collected.trailers().unwrap().clone()
    }

    #[tokio::test]
    async fn a_response_that_breaks_off_ends_with_a_status() {
        let trailers = ends_with(body(&[b"\0\0\0\0\x01x"])).await;
        assert_eq!(trailers["grpc-status"], "14");
        assert!(trailers.contains_key("grpc-status-details-bin"));

        let nothing = stream::iter([Ok::<_, Infallible>(Frame::trailers(HeaderMap::new()))]);
        let trailers = ends_with(Body::new(StreamBody::new(nothing))).await;
        assert_eq!(trailers["grpc-status"], "14");

        let failed = stream::iter([Err::<Frame<Bytes>, _>(Status::aborted("gone"))]);
        let trailers = ends_with(Body::new(StreamBody::new(failed))).await;
        assert_eq!(trailers["grpc-status"], "10");
    }

    #[tokio::test]
    async fn no_trailers_follow_a_part_of_a_message() {
        let messages = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de";
        for end in 0..=messages.len() {
            for cut in 0..=end {
                let parts = [&messages[..cut], &messages[cut..end]];
                let response = ResponseBody::complete(Response::new(body(&parts)));
                let ended = response.into_body().collect().await;
                let is_whole = [0, 8, 13, 20].contains(&end);
                assert_eq!(ended.is_ok(), is_whole, "{cut} of {end}");
            }
        }
    }

    #[tokio::test]
    async fn a_response_with_a_status_keeps_it() {
        let mut status = HeaderMap::new();
        status.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"))),
            Ok(Frame::trailers(status.clone())),
        ];
        let trailers = ends_with(Body::new(StreamBody::new(stream::iter(frames)))).await;
        assert_eq!(trailers, status);
    }
}
