//! Counts what becomes of connections.

use std::sync::Arc;

use duologue_runtime::listener::ConnectionEvent;
use duologue_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Cause {
    TooMany,
    TooManyFromAddress,
    HandshakeFailed,
    HandshakeTimedOut,
    PrefaceTimedOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cause: Cause,
}

/// Registers the counters, and returns what to call for every event.
pub(super) fn counted(metrics: &Metrics) -> Arc<dyn Fn(ConnectionEvent) + Send + Sync> {
    let open = Gauge::<i64>::default();
    let refused = Family::<Labels, Counter>::default();
    metrics.register(|registry| {
        registry.register("connections", "Open connections", open.clone());
        registry.register(
            "connections_refused",
            "Connections closed before their first call, by cause",
            refused.clone(),
        );
    });
    let refuse = move |cause| {
        refused.get_or_create(&Labels { cause }).inc();
    };
    Arc::new(move |event| match event {
        ConnectionEvent::Opened => {
            open.inc();
        }
        ConnectionEvent::Closed => {
            open.dec();
        }
        ConnectionEvent::TooMany => refuse(Cause::TooMany),
        ConnectionEvent::TooManyFromAddress => refuse(Cause::TooManyFromAddress),
        ConnectionEvent::HandshakeFailed => refuse(Cause::HandshakeFailed),
        ConnectionEvent::HandshakeTimedOut => refuse(Cause::HandshakeTimedOut),
        ConnectionEvent::PrefaceTimedOut => refuse(Cause::PrefaceTimedOut),
    })
}
