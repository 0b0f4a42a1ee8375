//! What every call of one chat node shares.

use std::net::IpAddr;
use std::sync::Arc;

use duologue_proto::ids::{HistoryId, Incarnation, NodeId, UserId};
use duologue_proto::limits::MAX_TEXT_BYTES;
use duologue_runtime::clock::{Clock, Random};
use duologue_runtime::metrics::Metrics;
use duologue_runtime::rate::{RateLimit, RateLimiter, Slots};

use crate::hints::Hints;
use crate::metrics::ChatMetrics;
use crate::node::Tenure;
use crate::ports::{Dial, History, Nodes, Presence};
use crate::registry::Registry;
use crate::relay::{Relay, RelayParts};
use crate::router::Router;

/// Who may see whether a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Users who share a conversation.
    Shared,
    /// Everyone.
    Everyone,
}

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct ChatConfig {
    /// The node's name.
    pub node: NodeId,
    /// The longest text, in bytes; at most [`MAX_TEXT_BYTES`].
    pub max_text_bytes: usize,
    /// Who may see whether a user is online.
    pub visibility: Visibility,
    /// Sends of one user.
    pub sends: RateLimit,
    /// Streams opened by one user.
    pub connects: RateLimit,
    /// Streams of one user at a time.
    pub sessions_per_user: usize,
    /// Streams from one address at a time.
    pub sessions_per_address: usize,
}

/// What a chat node is made of.
pub struct Parts {
    /// History.
    pub history: Arc<dyn History>,
    /// Presence.
    pub presence: Arc<dyn Presence>,
    /// The other nodes; none where there is one.
    pub relay: Option<OtherNodes>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids and jitter.
    pub random: Arc<dyn Random>,
    /// Where metrics are registered.
    pub metrics: Metrics,
}

/// How a node lives beside others.
#[derive(Clone)]
pub struct OtherNodes {
    /// Leases, and where the nodes are.
    pub nodes: Arc<dyn Nodes>,
    /// Where the others reach this node's [`RelayServer`](crate::RelayServer).
    pub address: String,
    /// How this node reaches the others.
    pub dial: Dial,
}

/// The shared state of one chat node.
pub(crate) struct Core {
    pub(crate) config: ChatConfig,
    pub(crate) history_id: HistoryId,
    pub(crate) tenure: Tenure,
    pub(crate) hints: Hints,
    pub(crate) history: Arc<dyn History>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) router: Router,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) sends: RateLimiter<UserId>,
    pub(crate) connects: RateLimiter<UserId>,
    pub(crate) sessions: Slots<UserId>,
    pub(crate) addresses: Slots<IpAddr>,
    pub(crate) metrics: ChatMetrics,
}

impl Core {
    pub(crate) fn new(
        mut config: ChatConfig,
        history_id: HistoryId,
        incarnation: Incarnation,
        parts: Parts,
    ) -> Self {
        config.max_text_bytes = config.max_text_bytes.clamp(1, MAX_TEXT_BYTES);
        let registry = Arc::new(Registry::default());
        let metrics = match parts.relay {
            None => ChatMetrics::register(&parts.metrics),
            Some(_) => ChatMetrics::register_many(&parts.metrics),
        };
        let relay = parts.relay.map(|others| {
            Relay::start(RelayParts {
                node: config.node.clone(),
                presence: Arc::clone(&parts.presence),
                nodes: others.nodes,
                dial: others.dial,
                random: Arc::clone(&parts.random),
                metrics: metrics.relay.clone(),
            })
        });
        Self {
            history_id,
            tenure: Tenure::new(incarnation),
            hints: Hints::default(),
            history: parts.history,
            presence: parts.presence,
            router: Router::new(Arc::clone(&registry), relay),
            metrics,
            registry,
            clock: parts.clock,
            random: parts.random,
            sends: RateLimiter::new(config.sends),
            connects: RateLimiter::new(config.connects),
            sessions: Slots::new(config.sessions_per_user),
            addresses: Slots::new(config.sessions_per_address),
            config,
        }
    }
}
