//! Bodies that end when something else does: a deadline, or the server.
//!
//! The response then ends with trailers that say why, and the request, for a
//! handler that still reads it, with an error. What was cut off is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::refusal::Refusal;

/// Ends with the reason for a cut.
pub(super) type Cut = Pin<Box<dyn Future<Output = Refusal> + Send>>;

/// A body that may be cut off.
pub(super) struct Cuttable<B> {
    inner: Option<B>,
    cut: Option<Cut>,
}

impl<B> Cuttable<B> {
    pub(super) fn new(inner: B, cut: Option<Cut>) -> Self {
        Self {
            inner: Some(inner),
            cut,
        }
    }

    /// The reason, if the body is cut off. Asked before every frame: a body that
    /// always has one must not outlive its deadline.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let Some(cut) = &mut self.cut else {
            return Poll::Pending;
        };
        cut.as_mut().poll(cx).map(|refusal| {
            self.inner = None;
            self.cut = None;
            refusal
        })
    }

    fn is_over(&self) -> bool
    where
        B: Body,
    {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn hint(&self) -> SizeHint
    where
        B: Body,
    {
        let hint = self.inner.as_ref().map(Body::size_hint);
        // A cut may come before what was promised.
        match (&self.cut, hint) {
            (None, Some(hint)) => hint,
            (Some(_), _) | (None, None) => SizeHint::default(),
        }
    }
}

/// An empty body, for responses that are a status only.
impl<B> Default for Cuttable<B> {
    fn default() -> Self {
        Self {
            inner: None,
            cut: None,
        }
    }
}

impl<B: Body + Unpin> Body for Cuttable<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(refusal) = this.poll_cut(cx) {
            return Poll::Ready(Some(Ok(trailers(refusal))));
        }
        match &mut this.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint()
    }
}

/// A request's body that may be cut off.
pub(super) struct CuttableRequest<B>(pub(super) Cuttable<B>);

impl<B> Body for CuttableRequest<B>
where
    B: Body<Error = Status> + Unpin,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let this = &mut self.get_mut().0;
        if let Poll::Ready(refusal) = this.poll_cut(cx) {
            return Poll::Ready(Some(Err(refusal.into_status())));
        }
        match &mut this.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.hint()
    }
}

/// The last frame of a response that is refused after its headers were sent.
pub(super) fn trailers<D>(refusal: Refusal) -> Frame<D> {
    let mut trailers = HeaderMap::new();
    if refusal.into_status().add_header(&mut trailers).is_err() {
        // It fails only if a message cannot be written as a header.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}
