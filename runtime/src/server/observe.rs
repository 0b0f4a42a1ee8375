//! Sees how a call ends, whoever ends it.
//!
//! A call has ended when its status is known: from the headers of a response
//! without a body, from the trailers behind a body, or because the caller went
//! away, in which case future or body are dropped (CANCELLED).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Observes the calls of a server.
pub(super) trait Observer: Clone {
    /// What is kept for one call.
    type Call: ObservedCall;

    /// A call begins.
    fn begin<B>(&self, request: &Request<B>) -> Self::Call;
}

/// Observes one call.
pub(super) trait ObservedCall: Unpin {
    /// Runs a step of the call.
    fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        step()
    }

    /// The call has ended; said once.
    fn end(&self, code: Code);
}

/// Puts an observer around a service.
#[derive(Debug, Clone)]
pub(super) struct ObserveLayer<O>(pub(super) O);

impl<O: Clone, S> Layer<S> for ObserveLayer<O> {
    type Service = Observe<O, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe {
            observer: self.0.clone(),
            inner,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Observe<O, S> {
    observer: O,
    inner: S,
}

impl<O, S, Req, Res> Service<Request<Req>> for Observe<O, S>
where
    O: Observer,
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
{
    type Response = Response<ObservedBody<O::Call, Res>>;
    type Error = Infallible;
    type Future = ObservedFuture<O::Call, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let call = self.observer.begin(&request);
        let inner = call.step(|| self.inner.call(request));
        ObservedFuture {
            call: Some(Open { call, ended: false }),
            inner,
        }
    }
}

/// A call that will be told its end, at the latest when it is dropped.
#[derive(Debug)]
struct Open<C: ObservedCall> {
    call: C,
    ended: bool,
}

impl<C: ObservedCall> Open<C> {
    fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            self.call.end(code);
        }
    }
}

impl<C: ObservedCall> Drop for Open<C> {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

pin_project! {
    pub(super) struct ObservedFuture<C, F>
    where
        C: ObservedCall,
    {
        call: Option<Open<C>>,
        #[pin]
        inner: F,
    }
}

impl<C, F, B> Future for ObservedFuture<C, F>
where
    C: ObservedCall,
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<ObservedBody<C, B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let response = match this.call {
            Some(open) => ready!(open.call.step(|| inner.poll(cx))),
            None => ready!(inner.poll(cx)),
        };
        let mut open = this.call.take();
        Poll::Ready(response.map(|response| {
            if let (Some(open), Some(code)) = (&mut open, code_in(response.headers())) {
                open.end(code);
            }
            response.map(|inner| ObservedBody { open, inner })
        }))
    }
}

#[derive(Debug)]
pub(super) struct ObservedBody<C: ObservedCall, B> {
    open: Option<Open<C>>,
    inner: B,
}

impl<C: ObservedCall, B: Body + Unpin> Body for ObservedBody<C, B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        let Some(open) = &mut this.open else {
            return inner.poll_frame(cx);
        };
        let frame = ready!(open.call.step(|| inner.poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    open.end(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(_)) | None => open.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tower::ServiceExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Ends(Arc<Mutex<Vec<Code>>>);

    impl Ends {
        fn seen(&self) -> Vec<Code> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Observer for Ends {
        type Call = Self;

        fn begin<B>(&self, _request: &Request<B>) -> Self {
            self.clone()
        }
    }

    impl ObservedCall for Ends {
        fn end(&self, code: Code) {
            self.0.lock().unwrap().push(code);
        }
    }

    async fn call<B>(
        ends: &Ends,
        answer: impl Future<Output = Response<B>>,
    ) -> Response<ObservedBody<Ends, B>> {
        let mut answer = Some(answer.map(Ok));
        let service = tower::service_fn(move |_: Request<()>| answer.take().unwrap());
        let service = ObserveLayer(ends.clone()).layer(service);
        service.oneshot(Request::new(())).await.unwrap()
    }

    #[tokio::test]
    async fn a_response_without_a_body_ends_the_call_with_its_headers() {
        let ends = Ends::default();
        let response: Response<Full<&[u8]>> = Status::not_found("no").into_http();
        let response = call(&ends, async { response }).await;
        assert_eq!(ends.seen(), [Code::NotFound]);
        drop(response);
        assert_eq!(ends.seen(), [Code::NotFound], "said once");
    }

    #[tokio::test]
    async fn a_body_ends_the_call_with_its_trailers() {
        let ends = Ends::default();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "9".parse().unwrap());
        let frames = [Frame::data(&b"x"[..]), Frame::trailers(trailers)];
        let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
        let body = Response::new(StreamBody::new(frames));
        let mut response = call(&ends, async { body }).await;
        response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(ends.seen(), []);
        response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(ends.seen(), [Code::FailedPrecondition]);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_cancels_the_call() {
        let ends = Ends::default();
        let waiting = call(&ends, std::future::pending::<Response<Full<&[u8]>>>());
        assert!(waiting.now_or_never().is_none());
        assert_eq!(ends.seen(), [Code::Cancelled]);

        let body = Response::new(Full::new(&b"x"[..]));
        drop(call(&ends, async { body }).await);
        assert_eq!(ends.seen(), [Code::Cancelled, Code::Cancelled]);
    }
}
