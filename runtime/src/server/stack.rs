//! The stack around every call, read from top to bottom.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt as _};

use super::Door;
use super::access::{
    AdmitCall, Authenticate, CallerCheck, Callers, CheckLayer, ClientCheck, KnownCheck, RateCheck,
};
use super::call_metrics::CallMetrics;
use super::deadline::DeadlineLayer;
use super::methods::Methods;
use super::observe::ObserveLayer;
use super::panics::CatchPanicLayer;
use super::spans::Spans;
use crate::inner::Credentials;
use crate::listener::Proxies;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// A stack around routes, for whoever makes calls without a connection of gRPC.
pub type CallService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What the stack needs to know.
#[derive(Clone)]
pub struct Stack {
    methods: Arc<Methods>,
    metrics: CallMetrics,
    callers: Callers,
    admit: AdmitCall,
    unary_deadline: Duration,
    shutdown: Shutdown,
    door: Door,
    proxies: Proxies,
}

impl Stack {
    /// The stack of the public door, for these methods. Made once per process: it
    /// registers metrics.
    pub fn new(
        methods: Methods,
        metrics: &Metrics,
        authenticate: Authenticate,
        shutdown: Shutdown,
    ) -> Self {
        Self::of(methods, metrics, Callers::Users(authenticate), shutdown)
    }

    /// The stack of the inner door. Made once per process: it registers metrics.
    pub fn inner(
        methods: Methods,
        metrics: &Metrics,
        credentials: Credentials,
        shutdown: Shutdown,
    ) -> Self {
        Self::of(methods, metrics, Callers::Services(credentials), shutdown)
    }

    /// The stack of a gateway, which sends calls on as they are: who calls, and how
    /// often, is decided there. Made once per process: it registers metrics.
    pub fn passing(methods: Methods, metrics: &Metrics, shutdown: Shutdown) -> Self {
        Self::of(methods, metrics, Callers::Passed, shutdown)
    }

    fn of(methods: Methods, metrics: &Metrics, callers: Callers, shutdown: Shutdown) -> Self {
        let methods = Arc::new(methods);
        let door = match callers {
            Callers::Users(_) => Door::Public,
            Callers::Services(_) => Door::Inner,
            Callers::Passed => Door::Web,
        };
        Self {
            metrics: CallMetrics::new(Arc::clone(&methods), metrics, door),
            methods,
            door,
            callers,
            admit: Arc::new(|_| Ok(())),
            unary_deadline: super::DEFAULT_UNARY_DEADLINE,
            shutdown,
            proxies: Proxies::default(),
        }
    }

    /// Bounds how often each user calls; without it, nothing does.
    #[must_use]
    pub fn admit(mut self, admit: AdmitCall) -> Self {
        self.admit = admit;
        self
    }

    /// Sets how long a unary call may last.
    #[must_use]
    pub fn unary_deadline(mut self, deadline: Duration) -> Self {
        self.unary_deadline = deadline;
        self
    }

    /// Believes these proxies for whom they call; without it, none is believed.
    #[must_use]
    pub fn behind(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// The same stack, for connections of proxies.
    pub(super) fn for_proxies(&self) -> Self {
        Self {
            door: Door::Proxies,
            ..self.clone()
        }
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(super) fn door(&self) -> Door {
        self.door
    }

    pub(super) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The stack around the routes, to be called directly: what is behind it sees
    /// no difference to a call that came to [`super::serve`], and the same numbers
    /// count both.
    pub fn service(&self, routes: Routes) -> CallService {
        let stack = self.around(routes.prepare());
        BoxCloneSyncService::new(stack.map_response(|response| response.map(Body::new)))
    }

    /// The stack around the routes.
    pub(super) fn around(
        &self,
        routes: Routes,
    ) -> impl Service<
        Request<Body>,
        Response = Response<
            impl http_body::Body<Data = bytes::Bytes, Error = tonic::Status> + Send + use<>,
        >,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + use<> {
        ServiceBuilder::new()
            // First, so that whatever happens below is in the call's span.
            .layer(ObserveLayer(Spans(Arc::clone(&self.methods))))
            // Counts what the caller gets, so above all that refuses.
            .layer(ObserveLayer(self.metrics.clone()))
            // Below the two that record: a panic is a result like any other.
            .layer(CatchPanicLayer)
            // Before anything counts by address.
            .layer(CheckLayer(ClientCheck(self.proxies.clone())))
            // Before anything that costs: nobody unknown gets further.
            .layer(CheckLayer(CallerCheck {
                methods: Arc::clone(&self.methods),
                callers: self.callers.clone(),
            }))
            // Needs to know the user, and protects everything below. Services are none.
            .layer(CheckLayer(RateCheck(Arc::clone(&self.admit))))
            // Behind the rate limit, so that methods cannot be guessed for free.
            .layer(CheckLayer(KnownCheck(Arc::clone(&self.methods))))
            // Last: what it bounds is the handler and both bodies.
            .layer(DeadlineLayer {
                methods: Arc::clone(&self.methods),
                unary: self.unary_deadline,
                shutdown: self.shutdown.clone(),
                passes: matches!(self.callers, Callers::Passed),
            })
            .service(routes)
    }
}
