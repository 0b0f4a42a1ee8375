//! One call of another service: which replica, until when, how often.
//!
//! A unary call is read to its end here, so that its deadline covers all of it and
//! a try that breaks in the middle can be told from an answer. A stream is opened
//! once and handed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};
use tracing::{Instrument as _, Span, field};

use super::address::Address;
use super::retry::{MAX_TRIES, retry_delay};
use super::view::{By, Choice};
use super::{MAX_MESSAGE_BYTES, RECONNECT_MAX, Shared, Target};
use crate::refusal::{Reason, Refusal};
use crate::server::Method;
use crate::server::deadline::{asked_timeout, of_this_call, set_timeout};
use crate::telemetry::propagation;

/// How a call is to be made.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Target,
    /// Whether it may be made more than once.
    pub(super) idempotent: bool,
}

/// How a try ended: with the answer of a replica, whatever it says, or without.
type Tried = Result<Response<Body>, Status>;

impl Call {
    pub(super) async fn run(self, request: Request<Body>) -> Tried {
        let method = Arc::clone(self.shared.methods.at(request.uri().path()));
        let mut measured = self.shared.metrics.begin(self.shared.name, &method);
        let span = span(&method);
        let tried = async {
            let deadline = self.deadline(&method, request.headers())?;
            if method.is_streaming() {
                return self.open(request, deadline).await;
            }
            // Every unary call has a deadline.
            let deadline = deadline.unwrap_or_else(Instant::now);
            self.unary(request, deadline).await
        };
        let tried = tried.instrument(span.clone()).await;
        measured.code = code(&tried);
        span.record("rpc.grpc.status_code", measured.code as i32);
        tried
    }

    /// The earliest of: what the caller asks for, what a unary call may take, when
    /// the call ends on whose behalf this one is made.
    fn deadline(&self, method: &Method, headers: &HeaderMap) -> Result<Option<Instant>, Status> {
        let now = Instant::now();
        let own = (!method.is_streaming()).then_some(self.shared.deadline);
        let asked = asked_timeout(headers).map_err(Refusal::into_status)?;
        let ends = [own, asked].into_iter().flatten().map(|after| now + after);
        let deadline = ends.chain(of_this_call()).min();
        match deadline {
            Some(at) if at <= now => Err(self.too_late()),
            deadline => Ok(deadline),
        }
    }

    async fn open(&self, request: Request<Body>, deadline: Option<Instant>) -> Tried {
        let opening = async {
            let (address, channel) = self.choose(self.shared.next_turn(), None).await?;
            self.send(request, deadline, &address, channel).await
        };
        match deadline {
            None => opening.await,
            Some(at) => timeout_at(at, opening)
                .await
                .unwrap_or_else(|_| Err(self.too_late())),
        }
    }

    async fn unary(&self, request: Request<Body>, deadline: Instant) -> Tried {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_MESSAGE_BYTES).collect().await;
        let body = body.map_err(|_| self.refusal("the request cannot be sent").into_status())?;
        let body = body.to_bytes();
        self.shared.budget.earn();
        // One turn for all tries, or a call's retries would take those of others.
        let turn = self.shared.next_turn();
        let mut not = None;
        let mut failures = 0;
        loop {
            let trying = self.try_once(turn, &head, body.clone(), deadline, &mut not);
            let tried = timeout_at(deadline, trying).await;
            // It may have been given up by the layer below, at the same time.
            let tried = match tried {
                Ok(Err(_)) if deadline <= Instant::now() => Err(self.too_late()),
                Ok(tried) => tried,
                Err(_) => return Err(self.too_late()),
            };
            failures += 1;
            let delay = retry_delay(&*self.shared.random, failures - 1);
            if not.is_none() || !self.may_try_again(&tried, failures, deadline, delay) {
                return tried;
            }
            sleep_until(Instant::now() + delay).await;
        }
    }

    /// One try. Notes which replica it went to, for the next to go elsewhere; none
    /// if there was nobody to ask.
    async fn try_once(
        &self,
        turn: usize,
        head: &request::Parts,
        body: Bytes,
        deadline: Instant,
        not: &mut Option<Address>,
    ) -> Tried {
        let (address, channel) = self.choose(turn, not.take().as_ref()).await?;
        *not = Some(address.clone());
        let request = Request::from_parts(head.clone(), Body::new(Full::new(body)));
        let response = self
            .send(request, Some(deadline), &address, channel)
            .await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_MESSAGE_BYTES).collect().await;
        let body = body.map_err(|error| self.broken(&address, &*error))?;
        let mut response = Response::from_parts(head, Body::empty());
        if let Some(code) = body.trailers().and_then(of_headers) {
            response.extensions_mut().insert(AnsweredWith(code));
        }
        Ok(response.map(|_| Body::new(body)))
    }

    /// A replica to ask. With nobody up it waits only while one may come up.
    async fn choose(
        &self,
        turn: usize,
        not: Option<&Address>,
    ) -> Result<(Address, tonic::transport::Channel), Status> {
        let by = match &self.target {
            Target::Any => By::Turn(turn, not),
            Target::One(address) => By::Address(address),
        };
        let mut view = self.shared.view.clone();
        loop {
            match view.borrow_and_update().choose(by) {
                Choice::Call(address, channel) => return Ok((address, channel)),
                Choice::Fail => return Err(self.shared.unreachable()),
                Choice::Wait => {}
            }
            if view.changed().await.is_err() {
                return Err(self.shared.unreachable());
            }
        }
    }

    async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
        address: &Address,
        mut channel: tonic::transport::Channel,
    ) -> Tried {
        if let Some(at) = deadline {
            let remaining = at.saturating_duration_since(Instant::now());
            set_timeout(request.headers_mut(), remaining);
        }
        self.shared.credentials.authorize(request.headers_mut());
        propagation::inject(&Span::current(), request.headers_mut());
        let ready = channel.ready().await;
        let ready = ready.map_err(|error| self.broken(address, &error))?;
        let response = ready.call(request).await;
        response.map_err(|error| self.broken(address, &error))
    }

    fn may_try_again(
        &self,
        tried: &Tried,
        failures: u32,
        deadline: Instant,
        delay: Duration,
    ) -> bool {
        let is_worth_it = self.idempotent
            && code(tried) == Code::Unavailable
            && failures < MAX_TRIES
            && Instant::now() + delay < deadline;
        if !is_worth_it {
            return false;
        }
        let may = self.shared.budget.spend();
        if may {
            self.shared.metrics.retried(self.shared.name);
        } else {
            self.shared.metrics.over_budget(self.shared.name);
        }
        may
    }

    /// Whether it took effect is not known.
    fn broken(&self, address: &Address, error: &(dyn std::error::Error + 'static)) -> Status {
        let (upstream, error) = (self.shared.name, field::debug(error));
        tracing::debug!(upstream, %address, error, "call broke off");
        self.refusal("broke off").into_status()
    }

    fn too_late(&self) -> Status {
        let name = self.shared.name;
        let text = format!("{name} did not answer in time: the call may have taken effect");
        Refusal::new(Reason::DeadlineExceeded, text).into_status()
    }

    fn refusal(&self, what: &str) -> Refusal {
        let text = format!("the call of {} failed: {what}", self.shared.name);
        Refusal::new(Reason::Unavailable, text)
    }
}

impl Shared {
    /// Nobody is asked: it would only take time.
    pub(super) fn unreachable(&self) -> Status {
        let text = format!("{} cannot be reached now", self.name);
        let refusal = Refusal::new(Reason::Unavailable, text);
        refusal.retry_after(RECONNECT_MAX / 2).into_status()
    }
}

/// The code in the headers of an answer without body, or in its trailers, which
/// have been read with the body.
fn code(tried: &Tried) -> Code {
    match tried {
        Err(status) => status.code(),
        Ok(response) => response.extensions().get::<AnsweredWith>().map_or_else(
            || of_headers(response.headers()).unwrap_or(Code::Ok),
            |it| it.0,
        ),
    }
}

fn of_headers(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// The code in the trailers of an answer.
#[derive(Debug, Clone, Copy)]
struct AnsweredWith(Code);

fn span(method: &Method) -> Span {
    tracing::info_span!(
        "upstream call",
        otel.name = %format_args!("{}/{}", method.service, method.name),
        otel.kind = "client",
        rpc.system = "grpc",
        rpc.service = &*method.service,
        rpc.method = &*method.name,
        rpc.grpc.status_code = field::Empty,
    )
}
