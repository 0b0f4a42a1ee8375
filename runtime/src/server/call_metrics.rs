//! Counts calls and measures how long they take, by method and code.

use std::sync::Arc;

use http::Request;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tonic::Code;

use super::Door;
use super::methods::{Method, Methods};
use super::observe::{ObservedCall, Observer};
use crate::metrics::Metrics;

/// Upper bounds in seconds: from a read in memory to the longest deadline;
/// streams lie beyond the last.
pub(crate) const BUCKETS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    service: Arc<str>,
    method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    service: Arc<str>,
    method: Arc<str>,
    code: &'static str,
}

/// The families of every call.
#[derive(Debug, Clone)]
pub(super) struct CallMetrics {
    methods: Arc<Methods>,
    calls: Family<CallLabels, Counter>,
    open: Family<MethodLabels, Gauge>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
}

impl CallMetrics {
    /// Registers the families; those of the inner door under names of their own.
    pub(super) fn new(methods: Arc<Methods>, metrics: &Metrics, door: Door) -> Self {
        let this = Self {
            methods,
            calls: Family::default(),
            open: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        metrics.register(|registry| {
            let registry = door.registry(registry);
            registry.register("grpc_calls", "Calls that have ended", this.calls.clone());
            registry.register("grpc_calls_open", "Calls under way", this.open.clone());
            registry.register(
                "grpc_call_duration_seconds",
                "How long calls took, to their last byte",
                this.seconds.clone(),
            );
        });
        this
    }
}

impl Observer for CallMetrics {
    type Call = MeasuredCall;

    fn begin<B>(&self, request: &Request<B>) -> MeasuredCall {
        let method = Arc::clone(self.methods.at(request.uri().path()));
        self.open.get_or_create(&method_labels(&method)).inc();
        MeasuredCall {
            metrics: self.clone(),
            method,
            began: Instant::now(),
        }
    }
}

/// One call under way.
#[derive(Debug)]
pub(super) struct MeasuredCall {
    metrics: CallMetrics,
    method: Arc<Method>,
    began: Instant,
}

impl ObservedCall for MeasuredCall {
    fn end(&self, code: Code) {
        let labels = method_labels(&self.method);
        self.metrics.open.get_or_create(&labels).dec();
        let seconds = self.began.elapsed().as_secs_f64();
        self.metrics.seconds.get_or_create(&labels).observe(seconds);
        let MethodLabels { service, method } = labels;
        let labels = CallLabels {
            service,
            method,
            code: code_name(code),
        };
        self.metrics.calls.get_or_create(&labels).inc();
    }
}

fn method_labels(method: &Method) -> MethodLabels {
    MethodLabels {
        service: Arc::clone(&method.service),
        method: Arc::clone(&method.name),
    }
}

/// The code as gRPC spells it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
