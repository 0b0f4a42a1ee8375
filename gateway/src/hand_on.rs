//! A stream of both directions when this gateway goes away, and what it calls does not:
//! nothing more is taken of its client, what is in flight is answered, and the end says
//! that another gateway is to be called.
//!
//! Where both go away together chat says so itself, and nothing here is needed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::server::COMES_BACK_AFTER;
use duologue_runtime::shutdown::Shutdown;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::body::{Messages, trailers};

/// Whether a call's client was cut short, as its response is to say.
pub(crate) struct HandOn(Arc<AtomicBool>);

impl HandOn {
    /// The call, whose request will end when draining begins.
    pub(crate) fn request(request: Request<Body>, shutdown: &Shutdown) -> (Self, Request<Body>) {
        let left = Arc::new(AtomicBool::new(false));
        let draining = Box::pin(shutdown.draining());
        let request = request.map(|inner| {
            Body::new(RequestBody {
                inner,
                messages: Messages::default(),
                draining: Some(draining),
                left: Arc::clone(&left),
            })
        });
        (Self(left), request)
    }

    /// What the call is answered: a success is none for a client that was cut short.
    pub(crate) fn response(self, response: Response<Body>) -> Response<Body> {
        let Self(left) = self;
        response.map(|inner| {
            Body::new(inner.map_frame(move |frame| {
                let status = frame.trailers_ref().and_then(Status::from_header_map);
                let is_success = status.is_some_and(|status| status.code() == Code::Ok);
                if is_success && left.load(Ordering::Acquire) {
                    trailers(&going_away())
                } else {
                    frame
                }
            }))
        })
    }
}

pin_project! {
    /// Ends between two messages when draining begins, and not before the first: half of
    /// one would be an error, and without `Hello` nothing can be answered.
    struct RequestBody {
        #[pin]
        inner: Body,
        messages: Messages,
        draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
        left: Arc<AtomicBool>,
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if this.messages.are_whole() && this.messages.has_one() {
            let draining = this.draining.take_if(|it| it.as_mut().poll(cx).is_ready());
            if draining.is_some() {
                this.left.store(true, Ordering::Release);
                this.inner.set(Body::empty());
            }
        }
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.messages.hear(data);
        }
        Poll::Ready(frame)
    }
}

fn going_away() -> Status {
    let text = "the gateway is shutting down: call another one";
    Refusal::new(Reason::ShuttingDown, text)
        .retry_after(COMES_BACK_AFTER)
        .into_status()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Sender = mpsc::Sender<Result<Frame<Bytes>, Status>>;

    fn body() -> (Sender, Body) {
        let (sender, frames) = mpsc::channel(8);
        (
            sender,
            Body::new(StreamBody::new(ReceiverStream::new(frames))),
        )
    }

    /// What a client says, and chat hears.
    struct Call {
        shutdown: Shutdown,
        client: Sender,
        request: Body,
        hand_on: HandOn,
    }

    impl Call {
        fn new() -> Self {
            let shutdown = Shutdown::new(Duration::from_secs(20));
            let (client, request) = body();
            let (hand_on, request) = HandOn::request(Request::new(request), &shutdown);
            Self {
                shutdown,
                client,
                request: request.into_body(),
                hand_on,
            }
        }

        async fn say(&self, bytes: &'static [u8]) {
            let frame = Frame::data(Bytes::from_static(bytes));
            self.client.send(Ok(frame)).await.unwrap();
        }

        /// What has come by now.
        fn heard(&mut self) -> Poll<Option<Bytes>> {
            match self.request.frame().now_or_never() {
                None => Poll::Pending,
                Some(frame) => Poll::Ready(frame.map(|it| it.unwrap().into_data().unwrap())),
            }
        }

        /// How many bytes have come.
        fn heard_bytes(&mut self) -> Poll<usize> {
            self.heard().map(|data| data.map_or(0, |data| data.len()))
        }

        /// The status that the client is told where chat says this one.
        async fn ends_with(self, status: Status) -> Status {
            let (chat, response) = body();
            let answer = Frame::data(Bytes::from_static(b"\0\0\0\0\x01a"));
            chat.send(Ok(answer)).await.unwrap();
            chat.send(Ok(trailers(&status))).await.unwrap();
            drop(chat);
            let response = self.hand_on.response(Response::new(response));
            let collected = response.into_body().collect().await.unwrap();
            let told: HeaderMap = collected.trailers().unwrap().clone();
            assert_eq!(collected.to_bytes(), b"\0\0\0\0\x01a"[..]);
            Status::from_header_map(&told).unwrap()
        }
    }

    #[tokio::test]
    async fn whoever_is_cut_short_is_answered_and_told_to_call_another() {
        let mut call = Call::new();
        call.say(b"\0\0\0\0\x01h").await;
        assert_eq!(call.heard_bytes(), Poll::Ready(6));
        assert_eq!(call.heard(), Poll::Pending);
        call.shutdown.trigger();
        call.say(b"\0\0\0\0\x01m").await;
        assert_eq!(
            call.heard(),
            Poll::Ready(None),
            "it ends, and nothing more is taken"
        );
        assert!(call.client.is_closed());
        assert_eq!(call.heard(), Poll::Ready(None));
        let told = call.ends_with(Status::ok("")).await;
        assert_eq!(told.code(), Code::Unavailable);
        assert!(told.message().contains("another"), "{told}");
    }

    #[tokio::test]
    async fn a_message_is_not_cut_nor_the_first_one_left_out() {
        let mut call = Call::new();
        call.shutdown.trigger();
        assert_eq!(call.heard(), Poll::Pending, "it waits for Hello");
        call.say(b"\0\0\0\0\x01h\0\0").await;
        assert_eq!(call.heard_bytes(), Poll::Ready(8));
        assert_eq!(call.heard(), Poll::Pending, "it waits for the rest");
        call.say(b"\0\0\x01m").await;
        assert_eq!(call.heard_bytes(), Poll::Ready(4));
        assert_eq!(call.heard(), Poll::Ready(None));
    }

    #[tokio::test]
    async fn draining_wakes_who_waits_for_a_silent_client() {
        let mut call = Call::new();
        call.say(b"\0\0\0\0\0").await;
        assert_eq!(call.heard_bytes(), Poll::Ready(5));
        let (ended, ()) = tokio::join!(call.request.frame(), async { call.shutdown.trigger() });
        assert!(ended.is_none());
    }

    #[tokio::test]
    async fn every_other_end_stays_what_it_is() {
        // Nobody was cut short.
        let call = Call::new();
        call.shutdown.trigger();
        assert_eq!(call.ends_with(Status::ok("")).await.code(), Code::Ok);
        // It failed by itself.
        let mut call = Call::new();
        call.say(b"\0\0\0\0\0").await;
        assert_eq!(call.heard_bytes(), Poll::Ready(5));
        call.shutdown.trigger();
        assert_eq!(call.heard(), Poll::Ready(None));
        let told = call.ends_with(Status::aborted("superseded")).await;
        assert_eq!((told.code(), told.message()), (Code::Aborted, "superseded"));
    }
}
