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
    pub(crate) relay: RelayMetrics,
}

/// What became of a look-up of routes or nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum LookUp {
    Ok,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookUpLabels {
    outcome: LookUp,
}

/// The counters of the relay to other nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct RelayMetrics {
    lookups: Family<LookUpLabels, Counter>,
    answered: Counter,
    widened: Counter,
    not_here: Counter,
}

impl RelayMetrics {
    pub(crate) fn looked_up(&self, ok: bool) {
        let outcome = if ok { LookUp::Ok } else { LookUp::Failed };
        self.lookups.get_or_create(&LookUpLabels { outcome }).inc();
    }

    pub(crate) fn answered(&self, not_here: usize) {
        self.answered.inc();
        self.not_here
            .inc_by(u64::try_from(not_here).unwrap_or(u64::MAX));
    }

    pub(crate) fn widened(&self, widened: bool) {
        self.widened.inc_by(u64::from(widened));
    }

    fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("chat_relay");
            registry.register(
                "lookups",
                "Look-ups of routes and nodes for a relay",
                self.lookups.clone(),
            );
            registry.register(
                "batches",
                "Batches that other nodes have acknowledged",
                self.answered.clone(),
            );
            registry.register(
                "widened",
                "News that found no room and were replaced by a hint to read",
                self.widened.clone(),
            );
            registry.register(
                "not_here",
                "Routes that their node did not know",
                self.not_here.clone(),
            );
        });
    }
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
            relay: RelayMetrics::default(),
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

    /// The same, with the counters of the relay, which one node alone does not have.
    pub(crate) fn register_many(metrics: &Metrics) -> Self {
        let chat = Self::register(metrics);
        chat.relay.register(metrics);
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
