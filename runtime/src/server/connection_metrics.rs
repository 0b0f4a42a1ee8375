//! Counts connections by what became of them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Door;
use crate::listener::ConnectionEvent;
use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// What [`crate::listener::GuardConfig::on_event`] calls to have its events
/// counted. Made once per server and door: it registers metrics.
pub fn count_connections(
    metrics: &Metrics,
    door: Door,
) -> Arc<dyn Fn(ConnectionEvent) + Send + Sync> {
    let events: Family<EventLabels, Counter> = Family::default();
    let open: Gauge = Gauge::default();
    metrics.register(|registry| {
        let registry = door.registry(registry);
        registry.register(
            "connections",
            "Connections by what became of them",
            events.clone(),
        );
        registry.register("connections_open", "Connections now", open.clone());
    });
    Arc::new(move |event| {
        if event == ConnectionEvent::Opened {
            open.inc();
        } else if event == ConnectionEvent::Closed {
            open.dec();
        }
        let labels = EventLabels {
            event: event_name(event),
        };
        events.get_or_create(&labels).inc();
    })
}

fn event_name(event: ConnectionEvent) -> &'static str {
    match event {
        ConnectionEvent::Opened => "opened",
        ConnectionEvent::Closed => "closed",
        ConnectionEvent::TooMany => "too_many",
        ConnectionEvent::TooManyFromAddress => "too_many_from_address",
        ConnectionEvent::HandshakeFailed => "handshake_failed",
        ConnectionEvent::HandshakeTimedOut => "handshake_timed_out",
        ConnectionEvent::PrefaceTimedOut => "preface_timed_out",
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::UnixMillis;

    use super::*;
    use crate::metrics::BuildInfo;

    #[test]
    fn connections_are_counted_by_event_and_while_they_are_open() {
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let count = count_connections(&metrics, Door::Public);
        for event in [
            ConnectionEvent::Opened,
            ConnectionEvent::Opened,
            ConnectionEvent::Closed,
            ConnectionEvent::TooMany,
        ] {
            count(event);
        }
        let text = metrics.encode().unwrap();
        assert!(text.contains("duologue_connections_open 1\n"), "{text}");
        let opened = "duologue_connections_total{event=\"opened\"} 2\n";
        assert!(text.contains(opened), "{text}");
        let too_many = "duologue_connections_total{event=\"too_many\"} 1\n";
        assert!(text.contains(too_many), "{text}");
    }
}
