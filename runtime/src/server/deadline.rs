//! No call lasts longer than it may: it ends with `DEADLINE_EXCEEDED`.
//!
//! The deadline bounds the whole call: reading the request, the handler, and
//! writing the response. A unary call has one by default, and `grpc-timeout` can
//! only shorten it; a stream has the one it asks for, if any. Public streams
//! (health, reflection) also end when the server drains: nobody else ends them,
//! and they would hold it up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use super::cut::{Cut, Cuttable, CuttableRequest};
use super::methods::{Method, Methods};
use crate::refusal::{Reason, Refusal};
use crate::shutdown::Shutdown;

/// How long a unary call may last, unless configured otherwise.
pub const DEFAULT_UNARY_DEADLINE: Duration = Duration::from_secs(30);

/// A `grpc-timeout` longer than this is the same as none: timers go no further.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(365 * 24);

const TIMEOUT_HEADER: &str = "grpc-timeout";

/// Puts deadlines on calls.
#[derive(Debug, Clone)]
pub(super) struct DeadlineLayer {
    pub(super) methods: Arc<Methods>,
    pub(super) unary: Duration,
    pub(super) shutdown: Shutdown,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            rules: self.clone(),
            inner,
        }
    }
}

impl DeadlineLayer {
    /// How long the call may last; none: as long as it likes.
    fn timeout(&self, method: &Method, headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
        let asked = asked_timeout(headers)?;
        if method.is_streaming() {
            return Ok(asked);
        }
        Ok(Some(
            asked.map_or(self.unary, |asked| asked.min(self.unary)),
        ))
    }

    /// What ends a call early, if anything does.
    fn cut(&self, method: &Method, deadline: Option<(Instant, Duration)>) -> Option<Cut> {
        let draining = (method.is_public() && method.is_streaming())
            .then(|| Box::pin(drained(self.shutdown.clone())) as Cut);
        let deadline = deadline.map(|(at, after)| Box::pin(exceeded(at, after)) as Cut);
        match (deadline, draining) {
            (Some(deadline), Some(draining)) => Some(Box::pin(async move {
                tokio::select! {
                    biased;
                    refusal = deadline => refusal,
                    refusal = draining => refusal,
                }
            })),
            (one, other) => one.or(other),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    rules: DeadlineLayer,
    inner: S,
}

impl<S, Res> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<Res>, Error = Infallible>,
{
    type Response = Response<Cuttable<Res>>;
    type Error = Infallible;
    type Future = Either<
        std::future::Ready<Result<Response<Cuttable<Res>>, Infallible>>,
        DeadlineFuture<S::Future>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = self.rules.methods.at(request.uri().path());
        let timeout = match self.rules.timeout(method, request.headers()) {
            Ok(timeout) => timeout,
            Err(refusal) => {
                let response = refusal.into_status().into_http();
                return Either::Left(std::future::ready(Ok(response)));
            }
        };
        let deadline = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        let request = if method.client_streaming {
            // A handler may read on in a task of its own, past its response.
            bounded(request, self.rules.cut(method, deadline))
        } else {
            request
        };
        Either::Right(DeadlineFuture {
            cut: self.rules.cut(method, deadline),
            inner: self.inner.call(request),
        })
    }
}

pin_project! {
    pub(super) struct DeadlineFuture<F> {
        cut: Option<Cut>,
        #[pin]
        inner: F,
    }
}

impl<F, B> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Cuttable<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.inner.poll(cx) {
            let cut = this.cut.take();
            return Poll::Ready(
                response.map(|response| response.map(|body| Cuttable::new(body, cut))),
            );
        }
        match this.cut {
            Some(cut) => cut
                .as_mut()
                .poll(cx)
                .map(|refusal| Ok(refusal.into_status().into_http())),
            None => Poll::Pending,
        }
    }
}

fn bounded(request: Request<Body>, cut: Option<Cut>) -> Request<Body> {
    if cut.is_none() {
        return request;
    }
    request.map(|body| Body::new(CuttableRequest(Cuttable::new(body, cut)).boxed_unsync()))
}

async fn exceeded(at: Instant, after: Duration) -> Refusal {
    tokio::time::sleep_until(at).await;
    Refusal::new(
        Reason::DeadlineExceeded,
        format!(
            "the call did not end within its deadline of {after:?}: \
             it may have taken effect; repeat it as it was"
        ),
    )
}

async fn drained(shutdown: Shutdown) -> Refusal {
    shutdown.draining().await;
    Refusal::new(
        Reason::ShuttingDown,
        "the server is shutting down: call another one, or wait until it is back",
    )
    .retry_after(shutdown.grace())
}

fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else {
        return Ok(None);
    };
    let timeout = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
        Refusal::field(
            TIMEOUT_HEADER,
            "must be 1 to 8 digits and one of H, M, S, m, u, n",
        )
    })?;
    Ok((timeout <= MAX_TIMEOUT).then_some(timeout))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse_timeout("1H"), Some(Duration::from_hours(1)));
        assert_eq!(parse_timeout("2M"), Some(Duration::from_mins(2)));
        assert_eq!(
            parse_timeout("99999999S"),
            Some(Duration::from_secs(99_999_999))
        );
        assert_eq!(parse_timeout("0m"), Some(Duration::ZERO));
        assert_eq!(parse_timeout("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse_timeout("5n"), Some(Duration::from_nanos(5)));
        for wrong in [
            "",
            "S",
            "1",
            "+1S",
            "-1S",
            "1.5S",
            "123456789S",
            "1h",
            "1 S",
            "1é",
        ] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }

    /// How long a call lasts whose handler never answers.
    async fn lasts(path: &str, timeout: &str) -> Duration {
        let layer = DeadlineLayer {
            methods: Arc::new(Methods::standard().unwrap()),
            unary: Duration::from_secs(30),
            shutdown: Shutdown::new(Duration::ZERO),
        };
        let never = |_| std::future::pending::<Result<Response<Body>, Infallible>>();
        let request = Request::post(path).header(TIMEOUT_HEADER, timeout);
        let began = Instant::now();
        let call = layer.layer(tower::service_fn(never));
        let response = call.oneshot(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.unwrap().headers()["grpc-status"], "4");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_unary_call_may_ask_for_less_time_but_not_for_more() {
        let path = "/duologue.chat.v1.ChatService/SendMessage";
        assert_eq!(lasts(path, "1S").await.as_secs(), 1);
        assert_eq!(lasts(path, "2H").await.as_secs(), 30);
        assert_eq!(lasts(path, "0m").await.as_secs(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_ask_for_any_time() {
        let path = "/duologue.chat.v1.ChatService/Converse";
        assert_eq!(lasts(path, "2H").await.as_secs(), 7_200);
    }

    #[test]
    fn a_timeout_beyond_the_reach_of_timers_is_none() {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT_HEADER, "99999999H".parse().unwrap());
        assert_eq!(asked_timeout(&headers), Ok(None));
    }
}
