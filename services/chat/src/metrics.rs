//! What an operator sees of a chat node. No label names a user.

use duologue_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::frame::Down;

/// What became of a send of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Stored,
    Duplicate,
    Deferred,
    Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SendLabels {
    outcome: Outcome,
}

/// The counters of one chat node.
#[derive(Debug)]
pub(crate) struct ChatMetrics {
    sends: Family<SendLabels, Counter>,
    /// That of `sends` which nearly every send counts: found once.
    stored: Counter,
    delivered: Counter,
    pub(crate) sessions: Gauge,
}

impl ChatMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let sends = Family::<SendLabels, Counter>::default();
        let stored = SendLabels {
            outcome: Outcome::Stored,
        };
        let chat = Self {
            stored: sends.get_or_create_owned(&stored),
            sends,
            delivered: Counter::default(),
            sessions: Gauge::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("chat");
            registry.register("sends", "Answers to sends of streams", chat.sends.clone());
            registry.register(
                "delivered",
                "Messages pushed to devices",
                chat.delivered.clone(),
            );
            registry.register("sessions", "Open streams", chat.sessions.clone());
        });
        chat
    }

    /// Counts a frame that is pushed.
    pub(crate) fn pushed(&self, down: &Down) {
        let outcome = match down {
            Down::Stored {
                duplicate: false, ..
            } => {
                self.stored.inc();
                return;
            }
            Down::Stored {
                duplicate: true, ..
            } => Outcome::Duplicate,
            Down::Deferred { .. } => Outcome::Deferred,
            Down::Rejected(_) => Outcome::Rejected,
            Down::Delivered(_) => {
                self.delivered.inc();
                return;
            }
            Down::Welcome(_)
            | Down::CursorStored { .. }
            | Down::CursorRejected(_)
            | Down::Receipt { .. }
            | Down::Presence(_)
            | Down::PresenceReset
            | Down::CaughtUp { .. }
            | Down::Pong
            | Down::Heartbeat
            | Down::Goodbye { .. } => return,
        };
        self.sends.get_or_create(&SendLabels { outcome }).inc();
    }
}
