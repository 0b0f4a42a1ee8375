//! W3C trace context, given and taken: in the metadata of calls, and as [`Trace`]
//! with what one stream carries of many traces.
//!
//! Only `traceparent` is taken: `tracestate` and baggage are text that a caller
//! chose, and would be exported with the span.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TRACED;

const TRACEPARENT: &str = "traceparent";
/// Longer than any that is known; in a message, a longer one is none.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// A place in a trace that is recorded, apart from its span: what is done for it later
/// or elsewhere becomes part of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace: TraceId,
    span: SpanId,
}

impl Trace {
    /// Where we are. None, for nothing, where no traces are exported, or not this one.
    pub fn current() -> Option<Self> {
        if !tracing::span_enabled!(target: TRACED, tracing::Level::INFO) {
            return None;
        }
        Self::of(&Span::current())
    }

    /// The place of a span, if it is recorded.
    pub fn of(span: &Span) -> Option<Self> {
        if span.is_disabled() {
            return None;
        }
        Self::at(&span.context())
    }

    /// From the value of a `traceparent`, if it is recorded.
    pub fn parse(traceparent: &str) -> Option<Self> {
        if traceparent.is_empty() || traceparent.len() > MAX_TRACEPARENT_BYTES {
            return None;
        }
        let parent = Parent(traceparent);
        Self::at(&TraceContextPropagator::new().extract_with_context(&Context::new(), &parent))
    }

    /// Makes `span`, which must not have been entered, part of the trace.
    pub fn adopt(self, span: &Span) {
        let (flags, state) = (TraceFlags::SAMPLED, opentelemetry::trace::TraceState::NONE);
        let parent = SpanContext::new(self.trace, self.span, flags, true, state);
        // It fails only where no traces are exported.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }

    fn at(context: &Context) -> Option<Self> {
        let span = context.span();
        let at = span.span_context();
        (at.is_valid() && at.is_sampled()).then(|| Self {
            trace: at.trace_id(),
            span: at.span_id(),
        })
    }
}

/// As the value of a `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

/// As a field of a message: empty for none.
pub fn traceparent(trace: Option<Trace>) -> String {
    trace.map_or_else(String::new, |trace| trace.to_string())
}

/// A span for what belongs to a trace; none, for nothing, if it belongs to none. It is
/// made by [`tracing::info_span!`] with the target [`TRACED`] and no parent.
pub fn within(trace: Option<Trace>, span: impl FnOnce() -> Span) -> Span {
    trace.map_or_else(Span::none, |trace| {
        let span = span();
        trace.adopt(&span);
        span
    })
}

/// The trace that a call belongs to, if its headers name exactly one.
pub fn extract(headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let parent = Parent(values.next()?.to_str().ok()?);
    if values.next().is_some() {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &parent);
    context.has_active_span().then_some(context)
}

/// Puts the trace of a span into the headers of a call that a client makes.
/// Without exported traces, it adds nothing.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Headers(headers));
}

struct Parent<'a>(&'a str);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        headers.append("tracestate", "vendor=chosen-by-the-caller".parse().unwrap());
        headers
    }

    #[test]
    fn a_trace_parent_is_taken_and_a_trace_state_is_not() {
        let context = extract(&headers(&[VALID])).unwrap();
        let span = context.span().span_context().clone();
        assert_eq!(
            span.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(span.span_id().to_string(), "b7ad6b7169203331");
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(span.trace_state().header(), "");
    }

    #[test]
    fn what_is_no_trace_parent_is_ignored() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for wrong in [&[][..], &[""], &["garbled"], &[zero], &[VALID, VALID]] {
            assert!(extract(&headers(wrong)).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn without_exported_traces_nothing_is_given() {
        let mut headers = HeaderMap::new();
        inject(&Span::none(), &mut headers);
        assert!(!headers.contains_key(TRACEPARENT), "{headers:?}");
        assert_eq!(Trace::current(), None);
        assert_eq!(traceparent(Trace::of(&Span::none())), "");
    }

    #[test]
    fn a_trace_is_carried_if_it_is_recorded() {
        assert_eq!(traceparent(Trace::parse(VALID)), VALID);
        let unrecorded = VALID.replace("-01", "-00");
        let zero = VALID.replace("b7ad6b7169203331", "0000000000000000");
        for none in ["", "garbled", &unrecorded, &zero, &"x".repeat(100_000)] {
            assert_eq!(Trace::parse(none), None, "{none:?}");
        }
    }
}
