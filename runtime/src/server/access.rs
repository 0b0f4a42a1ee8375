//! Who may call what, and how often.
//!
//! A call without a valid token learns nothing of what lies behind, not even
//! whether a method exists. Behind this, the [`Identity`] in the request's
//! extensions is the caller.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use duologue_proto::ids::UserId;
use futures_util::future::Either;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::methods::Methods;
use crate::auth::{AuthError, Identity, Verifier, bearer};
use crate::inner::Credentials;
use crate::listener::{Peer, Proxies};
use crate::rate::RateLimiter;
use crate::refusal::{Reason, Refusal};

/// Tells who calls, from the headers of the call.
pub type Authenticate = Arc<dyn Fn(&HeaderMap) -> Result<Identity, AuthError> + Send + Sync>;

/// Admits one call of a user, or says how long to wait.
pub type AdmitCall = Arc<dyn Fn(&UserId) -> Result<(), Duration> + Send + Sync>;

/// Takes the caller from a verified bearer token.
pub fn authenticate_by_token(verifier: Verifier) -> Authenticate {
    Arc::new(move |headers| verifier.verify(bearer(headers)?))
}

/// Admits calls at a rate per user.
pub fn admit_by_rate(limiter: RateLimiter<UserId>) -> AdmitCall {
    Arc::new(move |user| limiter.take(user, Instant::now()))
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let reason = if error == AuthError::Missing {
            Reason::TokenMissing
        } else if error == AuthError::Expired {
            Reason::TokenExpired
        } else {
            Reason::TokenInvalid
        };
        Self::new(reason, error.to_string())
    }
}

/// Decides on a call by its head alone, and may note what it found there.
pub(super) trait Check: Clone {
    /// Lets the call through, or refuses it.
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Refusal>;
}

/// Notes for whom a trusted proxy calls.
#[derive(Clone)]
pub(super) struct ClientCheck(pub(super) Proxies);

impl Check for ClientCheck {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        if let Some(peer) = request.extensions().get::<Peer>() {
            let client = self.0.client(*peer, request.headers());
            request.extensions_mut().insert(client);
        }
        Ok(())
    }
}

/// Who may call a server.
#[derive(Clone)]
pub(super) enum Callers {
    /// Users, by their tokens; anybody, where a method is public.
    Users(Authenticate),
    /// Services, by their credentials. No method is public to them: a caller that
    /// asks for health learns whether it would be let in.
    Services(Credentials),
    /// Whoever is let in further on, where all calls are sent.
    Passed,
}

/// Lets only calls of those who may call through.
#[derive(Clone)]
pub(super) struct CallerCheck {
    pub(super) methods: Arc<Methods>,
    pub(super) callers: Callers,
}

impl Check for CallerCheck {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        let authenticate = match &self.callers {
            Callers::Services(credentials) => return credentials.admit(request.headers()),
            Callers::Users(authenticate) => authenticate,
            Callers::Passed => return Ok(()),
        };
        if self.methods.at(request.uri().path()).is_public() {
            return Ok(());
        }
        let identity = authenticate(request.headers())?;
        request.extensions_mut().insert(identity);
        Ok(())
    }
}

/// Bounds how often one user calls.
#[derive(Clone)]
pub(super) struct RateCheck(pub(super) AdmitCall);

impl Check for RateCheck {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        let Some(identity) = request.extensions().get::<Identity>() else {
            return Ok(());
        };
        (self.0)(&identity.user).map_err(|wait| {
            Refusal::new(
                Reason::RateLimited,
                "too many calls: wait as long as the details say, then call less often",
            )
            .retry_after(wait)
        })
    }
}

/// Lets only calls of known methods through: what the router says of others has
/// neither a reason nor a message.
#[derive(Clone)]
pub(super) struct KnownCheck(pub(super) Arc<Methods>);

impl Check for KnownCheck {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        if self.0.is_known(request.uri().path()) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::UnknownMethod,
            "this server has no such method: see what reflection lists",
        ))
    }
}

/// Puts a check before a service.
#[derive(Clone)]
pub(super) struct CheckLayer<C>(pub(super) C);

impl<C: Clone, S> Layer<S> for CheckLayer<C> {
    type Service = Checked<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Checked {
            check: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
pub(super) struct Checked<C, S> {
    check: C,
    inner: S,
}

impl<C, S, Req, Res> Service<Request<Req>> for Checked<C, S>
where
    C: Check,
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
    Res: Default,
{
    type Response = Response<Res>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Res>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Req>) -> Self::Future {
        match self.check.check(&mut request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refusal) => Either::Left(ready(Ok(refusal.into_status().into_http()))),
        }
    }
}
