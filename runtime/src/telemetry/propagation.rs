//! W3C trace context in the metadata of calls, given and taken.
//!
//! Only `traceparent` is taken: `tracestate` and baggage are text that a caller
//! chose, and would be exported with the span.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

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
    }
}
