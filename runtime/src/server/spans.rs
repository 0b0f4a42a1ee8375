//! One span per call, named and measured as OpenTelemetry's conventions for RPC
//! have it. It must not hold anything that a caller chose but the trace's id.

use std::sync::Arc;

use http::Request;
use tonic::Code;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::methods::{Method, Methods};
use super::observe::{ObservedCall, Observer};
use crate::telemetry::propagation;

/// Makes the spans.
#[derive(Debug, Clone)]
pub(super) struct Spans(pub(super) Arc<Methods>);

impl Observer for Spans {
    type Call = CallSpan;

    fn begin<B>(&self, request: &Request<B>) -> CallSpan {
        let span = span(self.0.at(request.uri().path()));
        if let Some(parent) = propagation::extract(request.headers()) {
            // It fails only where no traces are exported.
            let _ = span.set_parent(parent);
        }
        CallSpan(span)
    }
}

/// The span of one call.
#[derive(Debug)]
pub(super) struct CallSpan(Span);

impl ObservedCall for CallSpan {
    fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        self.0.in_scope(step)
    }

    fn end(&self, code: Code) {
        self.0.record("rpc.grpc.status_code", code as i32);
        if is_fault_of_server(code) {
            self.0.record("otel.status_code", "ERROR");
        }
        tracing::debug!(parent: &self.0, "call ended");
    }
}

fn span(method: &Method) -> Span {
    tracing::info_span!(
        "call",
        otel.name = %format_args!("{}/{}", method.service, method.name),
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system = "grpc",
        rpc.service = &*method.service,
        rpc.method = &*method.name,
        rpc.grpc.status_code = field::Empty,
    )
}

/// Which codes make a server's span an error; the others are the caller's.
fn is_fault_of_server(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
