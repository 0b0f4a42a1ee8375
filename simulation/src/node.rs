//! The server's machine: what the program wires, over a simulated disk, clock and
//! network. Whatever is in memory ends with the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use duologue::ports::{LocalHistory, LocalPresence};
use duologue_chat::{Chat, ChatConfig, Parts, Visibility};
use duologue_history::history::History;
use duologue_history::memory::MemoryStore;
use duologue_presence::Presence;
use duologue_proto::ids::{HistoryId, NodeId};
use duologue_runtime::auth::{TokenRules, VerificationKey, Verifier};
use duologue_runtime::clock::{Clock as _, RandomExt as _, SeededRandom};
use duologue_runtime::listener::{self, GuardConfig};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::server::{self, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tonic::service::Routes;
use turmoil::net::TcpListener;

use crate::clock::SimulatedClock;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::network::{PORT, Sockets};
use crate::presence::SlowPresence;
use crate::store::{Pace, SlowStore};

/// What outlives a start of the server.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) seed: u64,
    pub(crate) disk: Disk,
    pub(crate) clock: SimulatedClock,
    pub(crate) key: VerificationKey,
    pub(crate) call_millis: u64,
    pub(crate) sends_per_second: u32,
    /// Starts so far: each draws ids of its own.
    pub(crate) starts: Arc<AtomicU64>,
    pub(crate) sockets: Sockets,
    /// Takes the machine off the network, before it crashes.
    pub(crate) unplug: Arc<Notify>,
}

impl Machine {
    /// One start of the server: it runs until the machine crashes.
    pub(crate) async fn run(self) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::SeqCst);
        let metrics = Metrics::new(BuildInfo::of("simulation"), self.clock.now());
        let random = SeededRandom::new(self.dice("ids", start).between((0, u64::MAX - 1)));
        let parts = Parts {
            history: Arc::new(LocalHistory(self.history(start)?)),
            presence: Arc::new(self.presence(start)),
            relay: None,
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(random),
            metrics: metrics.clone(),
        };
        let chat = Chat::start(config(self.sends_per_second)?, parts).await?;
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let accepted = self.sockets.accepted(listener);
        let guarded = listener::guard(accepted, GuardConfig::default());
        let served = server::serve(self.stack(&metrics)?, Routes::new(chat.server()), guarded);
        tokio::select! {
            biased;
            () = self.unplug.notified() => {
                self.sockets.tear();
                // The rest of the machine goes on for as long as it is let.
                std::future::pending().await
            }
            served = served => Ok(served?),
        }
    }

    fn history(&self, start: u64) -> anyhow::Result<History> {
        let clock = Arc::new(self.clock.clone());
        // Of the disk, and so the same at every start.
        let id = SeededRandom::new(self.seed).id();
        let store = MemoryStore::recover(
            HistoryId::parse(&id).context("not a history id")?,
            self.disk.read(),
            self.disk.clone(),
            clock.clone(),
        );
        let store = SlowStore::new(store, self.pace("store", start));
        Ok(History::new(Arc::new(store), clock))
    }

    fn presence(&self, start: u64) -> SlowPresence {
        let presence = Presence::in_one_process(Arc::new(self.clock.clone()));
        SlowPresence {
            presence: LocalPresence(presence),
            pace: self.pace("presence", start),
        }
    }

    fn stack(&self, metrics: &Metrics) -> anyhow::Result<Stack> {
        let clock = Arc::new(self.clock.clone());
        let verifier = Verifier::new(vec![self.key.clone()], TokenRules::default(), clock);
        let methods = Methods::standard().context("the descriptors cannot be read")?;
        let authenticate = server::authenticate_by_token(verifier);
        let shutdown = Shutdown::new(Duration::ZERO);
        Ok(Stack::new(methods, metrics, authenticate, shutdown))
    }

    fn pace(&self, of: &str, start: u64) -> Pace {
        Pace::new(self.dice(of, start), self.call_millis)
    }

    fn dice(&self, of: &str, start: u64) -> Dice {
        Dice::new(self.seed, &format!("{of} {start}"))
    }
}

/// Limits are those of the program; rates are another matter.
fn config(sends_per_second: u32) -> anyhow::Result<ChatConfig> {
    let rate = |per_second| RateLimit {
        per_second,
        burst: per_second,
    };
    Ok(ChatConfig {
        node: NodeId::parse("node").context("not a node id")?,
        max_text_bytes: 8_192,
        visibility: Visibility::Shared,
        sends: rate(sends_per_second),
        connects: rate(10_000),
        sessions_per_user: 32,
        sessions_per_address: 1_000,
    })
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::UnixMillis;
    use duologue_runtime::auth::DevKey;
    use duologue_runtime::server::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use turmoil::established_tcp_stream_count_on as connections_of;
    use turmoil::net::TcpStream;

    use super::*;

    /// The preface of HTTP/2, and settings that say nothing.
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    fn machine() -> Machine {
        Machine {
            seed: 1,
            disk: Disk::new(1, (1, 1)),
            clock: SimulatedClock::from(UnixMillis(1_800_000_000_000)),
            key: DevKey::ephemeral(&SeededRandom::new(1)).verifier_key(),
            call_millis: 0,
            sends_per_second: 10_000,
            starts: Arc::default(),
            sockets: Sockets::default(),
            unplug: Arc::default(),
        }
    }

    /// What was lost on a cut link does not come again, so that nothing but keepalive
    /// ends the connection.
    #[test]
    fn keepalive_ends_a_connection_whose_link_was_cut() {
        let mut sim = turmoil::Builder::new()
            .rng_seed(1)
            .simulation_duration(Duration::from_mins(2))
            .build();
        sim.host("server", || machine().run());
        sim.client("client", async {
            let mut stream = TcpStream::connect(("server", PORT)).await?;
            stream.write_all(HELLO).await?;
            stream.read_u8().await?;
            turmoil::partition("client", "server");
            tokio::time::sleep(KEEPALIVE_INTERVAL).await;
            assert_eq!(connections_of("server"), 1);
            tokio::time::sleep(KEEPALIVE_TIMEOUT + Duration::from_secs(1)).await;
            assert_eq!(connections_of("server"), 0);
            Ok(())
        });
        sim.run().unwrap();
    }
}
