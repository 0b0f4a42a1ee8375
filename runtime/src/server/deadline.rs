//! No call lasts longer than it may: it ends with `DEADLINE_EXCEEDED`.
//!
//! The deadline bounds the whole call: reading the request, the handler, and
//! writing the response. A unary call has one by default, and `grpc-timeout` can
//! only shorten it; a stream has the one it asks for, if any. Public streams
//! (health, reflection), and those that a gateway passes on, also end when the server
//! drains: nobody else ends them, and they would hold it up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use super::COMES_BACK_AFTER;
use super::cut::{Cut, Cuttable, CuttableRequest};
use super::methods::{Method, Methods};
use crate::refusal::{Reason, Refusal};
use crate::shutdown::Shutdown;

/// How long a unary call may last, unless configured otherwise.
pub const DEFAULT_UNARY_DEADLINE: Duration = Duration::from_secs(30);

/// A `grpc-timeout` longer than this is the same as none: timers go no further.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(365 * 24);

const TIMEOUT_HEADER: &str = "grpc-timeout";

tokio::task_local! {
    /// When the call ends that is being handled.
    static WITHIN: Option<Instant>;
}

/// When the call ends that is being handled here, at the latest; for the calls
/// that its handler makes. A task that the handler spawned is not bound by it.
pub(crate) fn of_this_call() -> Option<Instant> {
    WITHIN.try_with(|at| *at).ok().flatten()
}

/// Tells the server that is called how long it has. Rounded down: it must not
/// work for a caller who is gone.
pub(crate) fn set_timeout(headers: &mut HeaderMap, timeout: Duration) {
    const MAX: u128 = 99_999_999;
    let (micros, millis) = (timeout.as_micros(), timeout.as_millis());
    let text = if micros <= MAX {
        format!("{micros}u")
    } else if millis <= MAX {
        format!("{millis}m")
    } else {
        format!("{}S", u128::from(timeout.as_secs()).min(MAX))
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(TIMEOUT_HEADER, value);
    }
}

/// Puts deadlines on calls.
#[derive(Debug, Clone)]
pub(super) struct DeadlineLayer {
    pub(super) methods: Arc<Methods>,
    pub(super) unary: Duration,
    pub(super) shutdown: Shutdown,
    /// What is called does not go away together with this server.
    pub(super) passes: bool,
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

    /// Whether nobody else ends such a call when the server drains. A stream of two
    /// directions ends when its caller is told to end it.
    fn ends_with_server(&self, method: &Method) -> bool {
        method.is_public() && method.is_streaming()
            || self.passes && method.server_streaming && !method.client_streaming
    }

    /// When a caller may come again.
    fn comes_back(&self) -> Duration {
        if self.passes {
            // To another one, at once.
            return COMES_BACK_AFTER;
        }
        self.shutdown.grace()
    }

    /// What ends a call early, if anything does.
    fn cut(&self, method: &Method, deadline: Option<(Instant, Duration)>) -> Option<Cut> {
        let draining = self
            .ends_with_server(method)
            .then(|| Box::pin(drained(self.shutdown.clone(), self.comes_back())) as Cut);
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
        let at = deadline.map(|(at, _)| at);
        Either::Right(DeadlineFuture {
            cut: self.rules.cut(method, deadline),
            at,
            inner: WITHIN.sync_scope(at, || self.inner.call(request)),
        })
    }
}

pin_project! {
    pub(super) struct DeadlineFuture<F> {
        cut: Option<Cut>,
        at: Option<Instant>,
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
        let inner = this.inner;
        if let Poll::Ready(response) = WITHIN.sync_scope(*this.at, || inner.poll(cx)) {
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

async fn drained(shutdown: Shutdown, comes_back: Duration) -> Refusal {
    shutdown.draining().await;
    Refusal::new(
        Reason::ShuttingDown,
        "the server is shutting down: call another one, or wait until it is back",
    )
    .retry_after(comes_back)
}

pub(crate) fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
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
            passes: false,
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
    fn a_timeout_is_told_as_it_is_read_never_longer() {
        for (nanos, told) in [
            (0, "0u"),
            (1_999, "1u"),
            (99_999_999_000, "99999999u"),
            (100_000_000_000, "100000m"),
            (100_000_000_000_000, "100000S"),
        ] {
            let mut headers = HeaderMap::new();
            set_timeout(&mut headers, Duration::from_nanos(nanos));
            assert_eq!(headers[TIMEOUT_HEADER], told);
            let read = asked_timeout(&headers).unwrap().unwrap();
            assert!(read <= Duration::from_nanos(nanos));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_knows_when_its_call_ends_and_nobody_else_does() {
        let layer = DeadlineLayer {
            methods: Arc::new(Methods::standard().unwrap()),
            unary: Duration::from_secs(30),
            shutdown: Shutdown::new(Duration::ZERO),
            passes: false,
        };
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let inside = Arc::clone(&seen);
        let handler = tower::service_fn(move |_| {
            let (inside, at_once) = (Arc::clone(&inside), of_this_call());
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let spawned = crate::task::spawn("child", async { of_this_call() });
                let spawned = spawned.await.unwrap();
                inside
                    .lock()
                    .unwrap()
                    .extend([at_once, of_this_call(), spawned]);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let request = Request::post("/duologue.chat.v1.ChatService/SendMessage");
        let request = request.header(TIMEOUT_HEADER, "7S").body(Body::empty());
        let until = Instant::now() + Duration::from_secs(7);
        layer
            .layer(handler)
            .oneshot(request.unwrap())
            .await
            .unwrap();
        assert_eq!(*seen.lock().unwrap(), [Some(until), Some(until), None]);
        assert_eq!(of_this_call(), None);
    }

    #[test]
    fn a_timeout_beyond_the_reach_of_timers_is_none() {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT_HEADER, "99999999H".parse().unwrap());
        assert_eq!(asked_timeout(&headers), Ok(None));
    }
}
