//! A panic of a handler ends its own call with INTERNAL, and nothing else.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::cut::trailers;
use crate::refusal::Refusal;

/// Catches panics.
#[derive(Debug, Clone)]
pub(super) struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic(inner)
    }
}

#[derive(Debug, Clone)]
pub(super) struct CatchPanic<S>(S);

impl<S, Req, Res> Service<Request<Req>> for CatchPanic<S>
where
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
    Res: Default,
{
    type Response = Response<CaughtBody<Res>>;
    type Error = Infallible;
    type Future = CaughtFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        CaughtFuture {
            inner: caught(|| self.0.call(request)),
        }
    }
}

pin_project! {
    pub(super) struct CaughtFuture<F> {
        // None after a panic.
        #[pin]
        inner: Option<F>,
    }
}

impl<F, B> Future for CaughtFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<CaughtBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project().inner.as_pin_mut() {
            Some(inner) => caught(|| inner.poll(cx)),
            None => None,
        };
        Poll::Ready(match response {
            Some(poll) => ready!(poll).map(|response| response.map(CaughtBody::new)),
            None => Ok(Refusal::internal().into_status().into_http()),
        })
    }
}

/// A body whose panic becomes trailers.
#[derive(Debug, Default)]
pub(super) struct CaughtBody<B> {
    // None after a panic.
    inner: Option<B>,
}

impl<B> CaughtBody<B> {
    fn new(inner: B) -> Self {
        Self { inner: Some(inner) }
    }
}

impl<B: Body + Unpin> Body for CaughtBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        caught(|| Pin::new(inner).poll_frame(cx)).unwrap_or_else(|| {
            this.inner = None;
            Poll::Ready(Some(Ok(trailers(Refusal::internal()))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.inner.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

/// The result, or none after a panic. What panicked is dropped by the caller and
/// never used again; its text is not logged, since it may hold a message.
fn caught<T>(step: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(step));
    if result.is_err() {
        tracing::error!("handler panicked");
    }
    result.ok()
}
