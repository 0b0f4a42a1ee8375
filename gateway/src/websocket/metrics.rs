//! The numbers of this door.

use duologue_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::handshake::Protocol;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    subprotocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabels {
    code: &'static str,
}

/// The families.
#[derive(Debug, Clone, Default)]
pub(super) struct SocketMetrics {
    sessions: Family<SessionLabels, Gauge>,
    closes: Family<CloseLabels, Counter>,
}

/// One connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl SocketMetrics {
    /// Registers the families.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register(
                "websocket_sessions",
                "Open WebSockets, those that wait for their Hello included",
                this.sessions.clone(),
            );
            registry.register(
                "websocket_closes",
                "WebSockets that have ended, by close code; 1006: without a close frame",
                this.closes.clone(),
            );
        });
        this
    }

    /// Counts a connection.
    pub(super) fn opened(&self, protocol: Protocol) -> Counted {
        let labels = SessionLabels {
            subprotocol: protocol.name(),
        };
        let sessions = self.sessions.get_or_create_owned(&labels);
        sessions.inc();
        Counted(sessions)
    }

    /// Counts an end.
    pub(super) fn closed(&self, code: &'static str) {
        self.closes.get_or_create(&CloseLabels { code }).inc();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
