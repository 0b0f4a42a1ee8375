//! Counts what is asked of other services, and how many of their replicas can be
//! asked.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tonic::Code;

use crate::metrics::Metrics;
use crate::server::Method;
use crate::server::call_metrics::{BUCKETS, code_name};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    upstream: &'static str,
    method: Arc<str>,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    upstream: &'static str,
    method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: &'static str,
}

/// The families of all upstreams of a process.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    retries: Family<UpstreamLabels, Counter>,
    refused_retries: Family<UpstreamLabels, Counter>,
    known: Family<UpstreamLabels, Gauge>,
    up: Family<UpstreamLabels, Gauge>,
}

impl UpstreamMetrics {
    /// Registers the families. Made once per process.
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            retries: Family::default(),
            refused_retries: Family::default(),
            known: Family::default(),
            up: Family::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("upstream");
            registry.register(
                "calls",
                "Calls of other services that ended, streams that were opened",
                this.calls.clone(),
            );
            registry.register(
                "call_duration_seconds",
                "How long calls of other services took with their retries, of streams the opening",
                this.seconds.clone(),
            );
            registry.register(
                "retries",
                "Calls that were tried again",
                this.retries.clone(),
            );
            registry.register(
                "retries_over_budget",
                "Calls that were not tried again because too many were",
                this.refused_retries.clone(),
            );
            registry.register("replicas", "Replicas that are known", this.known.clone());
            registry.register(
                "replicas_up",
                "Replicas that can be called; none: calls fail at once",
                this.up.clone(),
            );
        });
        this
    }

    pub(super) fn begin(&self, upstream: &'static str, method: &Method) -> MeasuredCall {
        MeasuredCall {
            metrics: self.clone(),
            upstream,
            method: Arc::clone(&method.name),
            began: Instant::now(),
            code: Code::Cancelled,
        }
    }

    pub(super) fn retried(&self, upstream: &'static str) {
        self.retries
            .get_or_create(&UpstreamLabels { upstream })
            .inc();
    }

    pub(super) fn over_budget(&self, upstream: &'static str) {
        let labels = UpstreamLabels { upstream };
        self.refused_retries.get_or_create(&labels).inc();
    }

    pub(super) fn show(&self, upstream: &'static str, (up, known): (usize, usize)) {
        let set = |family: &Family<UpstreamLabels, Gauge>, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family
                .get_or_create(&UpstreamLabels { upstream })
                .set(count);
        };
        set(&self.up, up);
        set(&self.known, known);
    }
}

/// A call under way, which is counted when this is dropped.
#[derive(Debug)]
pub(super) struct MeasuredCall {
    metrics: UpstreamMetrics,
    upstream: &'static str,
    method: Arc<str>,
    began: Instant,
    /// Cancelled, unless it has ended otherwise.
    pub(super) code: Code,
}

impl Drop for MeasuredCall {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        let (upstream, method) = (self.upstream, Arc::clone(&self.method));
        let labels = MethodLabels { upstream, method };
        self.metrics.seconds.get_or_create(&labels).observe(seconds);
        let labels = CallLabels {
            upstream,
            method: labels.method,
            code: code_name(self.code),
        };
        self.metrics.calls.get_or_create(&labels).inc();
    }
}
