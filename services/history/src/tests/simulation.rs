//! Random runs, retries, faults and clocks over several replicas, against what
//! is promised of any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duologue_proto::history::{Appended, CursorAdvanced, Draft, SyncRequest};
use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_runtime::clock::{Clock, RandomExt as _, SeededRandom};
use proptest::prelude::*;
use tokio::time::Instant;

use super::faults::FaultyStore;
use super::{START, Told, draft, run, stored, told, user};
use crate::history::History;
use crate::memory::MemoryStore;
use crate::store::{Activity, Store, Window};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
/// Who sends to whom; two devices of alice to bob.
const CLIENTS: [(&str, &str); 5] = [
    ("alice", "bob"),
    ("alice", "bob"),
    ("bob", "alice"),
    ("alice", "alice"),
    ("carol", "alice"),
];
const ROUNDS: usize = 12;

/// Runs 200 times as fast as the tests' own time, and steps back at times.
struct FastClock {
    start: Instant,
    behind: AtomicU64,
}

impl Clock for FastClock {
    fn now(&self) -> UnixMillis {
        let gone = self.start.elapsed() * 200;
        let behind = Duration::from_millis(self.behind.load(Ordering::SeqCst));
        START.plus(gone).minus(behind)
    }
}

/// What one try was told, and when it was made.
struct Try {
    sender: UserId,
    message: String,
    began: u64,
    ended: u64,
    told: Option<Appended>,
}

struct Simulation {
    memory: Arc<dyn Store>,
    faults: Vec<Arc<FaultyStore>>,
    replicas: Vec<History>,
    clock: Arc<FastClock>,
    random: SeededRandom,
    events: AtomicU64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(FastClock {
            start: Instant::now(),
            behind: AtomicU64::new(0),
        });
        let random = SeededRandom::new(seed);
        let shared: Arc<dyn Clock> = clock.clone();
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&shared), &random));
        let make = |_| {
            let seed = random.number();
            let faults = FaultyStore::chaotic(Arc::clone(&memory), Arc::clone(&shared), seed);
            Arc::new(faults)
        };
        let faults: Vec<_> = (0..3).map(make).collect();
        let replica = |faults: &Arc<FaultyStore>| {
            History::new(Arc::clone(faults) as Arc<dyn Store>, Arc::clone(&shared))
        };
        let replicas = faults.iter().map(replica).collect();
        Self {
            memory,
            faults,
            replicas,
            clock,
            random,
            events: AtomicU64::new(0),
        }
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.number() % limit
    }

    fn replica(&self) -> &History {
        let index = usize::try_from(self.below(3)).unwrap();
        &self.replicas[index]
    }

    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::SeqCst)
    }

    async fn head(&self, conversation: &ConversationId) -> Seq {
        let head = self.memory.head(conversation).await.unwrap();
        head.map_or(Seq::ZERO, |head| head.envelope.seq)
    }

    async fn rest(&self) {
        let millis = match self.below(8) {
            0 => self.below(2_000),
            _ => self.below(60),
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let behind = [0, 0, 0, 120_000][usize::try_from(self.below(4)).unwrap()];
        self.clock.behind.store(behind, Ordering::SeqCst);
    }

    /// A device that sends in order, resends oldest first, at times gives up
    /// waiting, and at the end sends until all is stored.
    async fn client(&self, number: usize) -> Vec<Try> {
        let (sender, peer) = CLIENTS[number];
        let conversation = super::pair(sender, peer);
        let mut tries = Vec::new();
        let mut outbox: Vec<Draft> = Vec::new();
        let mut made = 0;
        for round in 0.. {
            let last = round >= ROUNDS;
            if last && outbox.is_empty() {
                break;
            }
            for _ in 0..if last { 0 } else { self.below(4) } {
                made += 1;
                let mut draft = draft(&format!("c{number}-{made}"), 0);
                draft.after_seq = match self.below(3) {
                    0 => None,
                    1 => Some(Seq::ZERO),
                    _ => Some(self.head(&conversation).await),
                };
                outbox.push(draft);
            }
            let began = self.event();
            let append = self.replica().append(run(sender, peer, outbox.clone()));
            let patience = if self.below(4) == 0 {
                self.below(8)
            } else {
                60_000
            };
            let answers = tokio::time::timeout(Duration::from_millis(patience), append).await;
            let ended = self.event();
            let answers = answers.map(|answers| answers.into_iter().map(Some).collect());
            let answers = answers.unwrap_or_else(|_| vec![None; outbox.len()]);
            check_run(&answers);
            tries.extend(outbox.iter().zip(&answers).map(|(draft, answer)| Try {
                sender: user(sender),
                message: draft.message_id.to_string(),
                began,
                ended: if answer.is_some() { ended } else { u64::MAX },
                told: answer.clone(),
            }));
            let mut answers = answers.iter();
            outbox.retain(|_| !matches!(answers.next(), Some(Some(Appended::Stored { .. }))));
            self.rest().await;
        }
        tries
    }

    /// A device that syncs from token to token: what was stored before a sync
    /// began it must know when the sync ends.
    async fn device(&self, name: &str) {
        let mut token = String::new();
        let mut known: BTreeMap<UserId, (Seq, Cursor, Cursor)> = BTreeMap::new();
        for _ in 0..ROUNDS {
            self.rest().await;
            let mut before = BTreeMap::new();
            for peer in PEOPLE {
                let cursors = self.memory.cursors(&user(name), &user(peer)).await.unwrap();
                let head = self.head(&super::pair(name, peer)).await;
                before.insert(user(peer), (head, cursors.own, cursors.peer));
            }
            let Some(next) = self.sync_all(name, &token, &mut known).await else {
                continue;
            };
            token = next;
            for (peer, (head, own, other)) in before {
                let known = known.get(&peer).copied().unwrap_or_default();
                assert!(known.0 >= head, "{name} misses messages of {peer}");
                assert!(
                    known.1.covers(own) && known.2.covers(other),
                    "{name} and {peer}"
                );
            }
        }
    }

    async fn sync_all(
        &self,
        name: &str,
        token: &str,
        known: &mut BTreeMap<UserId, (Seq, Cursor, Cursor)>,
    ) -> Option<String> {
        let mut first_token = None;
        let mut after = None;
        loop {
            let request = SyncRequest {
                user: user(name),
                token: token.to_owned(),
                named: Vec::new(),
                after: after.clone(),
                max_conversations: 1,
            };
            let page = self.replica().sync(request).await.ok()?;
            first_token.get_or_insert(page.token);
            for listed in page.conversations {
                after = Some(listed.peer.clone());
                let entry = known.entry(listed.peer).or_default();
                let (own, other) = (listed.own_cursor, listed.peer_cursor);
                *entry = (
                    entry.0.max(listed.head),
                    entry.1.max(own),
                    entry.2.max(other),
                );
            }
            if !page.more {
                return first_token;
            }
        }
    }

    async fn reader(&self, name: &str) {
        for _ in 0..ROUNDS {
            self.rest().await;
            let index = usize::try_from(self.below(3)).unwrap();
            let peer = user(PEOPLE[index]);
            let head = self.head(&ConversationId::of(&user(name), &peer)).await;
            let asked = Cursor::asked(Some(Seq(self.below(head.0 + 2))), None);
            let moved = self
                .replica()
                .advance_cursor(&user(name), &peer, asked)
                .await;
            match moved {
                Ok(CursorAdvanced::Stored { cursor, .. }) => assert!(cursor.covers(asked)),
                Ok(CursorAdvanced::AboveHead { head }) => assert!(asked.delivered > head),
                Err(_) => {}
            }
        }
    }

    /// What is delayed arrives at most a minute late, and once more at the end.
    async fn late_arrivals(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for faults in &self.faults {
                faults.land().await;
            }
        }
    }

    async fn run(&self) -> Vec<Try> {
        let clients = (0..CLIENTS.len()).map(|number| self.client(number));
        let clients = futures_util::future::join_all(clients);
        let others = async {
            tokio::join!(biased; self.device("alice"), self.device("bob"), self.device("alice"),
                self.reader("alice"), self.reader("bob"))
        };
        let work = async { tokio::join!(biased; clients, others).0 };
        let tries = tokio::select! {
            biased;
            tries = work => tries,
            () = self.late_arrivals() => Vec::new(),
        };
        for faults in &self.faults {
            faults.land().await;
        }
        tries.into_iter().flatten().collect()
    }

    async fn check_conversation(&self, one: &str, other: &str) -> Vec<Envelope> {
        let conversation = super::pair(one, other);
        let messages = stored(&self.memory, &conversation).await;
        let mut sent = [0, 0];
        let mut accepted_at = UnixMillis(0);
        let mut ids = BTreeSet::new();
        for (index, envelope) in messages.iter().enumerate() {
            assert_eq!(envelope.seq.0, index as u64 + 1, "a gap");
            assert!(envelope.accepted_at >= accepted_at, "time went back");
            accepted_at = envelope.accepted_at;
            let key = (envelope.sender.clone(), envelope.message_id.clone());
            assert!(ids.insert(key), "two copies of {:?}", envelope.message_id);
            sent[conversation.side_of(&envelope.sender).unwrap()] += 1;
            for person in conversation.users() {
                let row = Activity {
                    window: Window::of(accepted_at),
                    peer: envelope.peer_of(person).clone(),
                };
                let rows = self.memory.activity_from(person, row.window, None, 100);
                assert!(
                    rows.await.unwrap().contains(&row),
                    "no row of {accepted_at:?}"
                );
            }
        }
        let head = self.memory.head(&conversation).await.unwrap();
        assert_eq!(head.map_or([0, 0], |head| head.sent), sent);
        messages
    }
}

/// Of one run always a prefix is newly stored.
fn check_run(answers: &[Option<Appended>]) {
    let mut held = false;
    for answer in answers.iter().flatten() {
        match told(answer) {
            Told::New(_) => assert!(!held, "{answers:?}"),
            Told::Left(..) => held = true,
            Told::Duplicate(_) => {}
            Told::Reused => panic!("nobody reuses an id"),
        }
    }
}

/// Every answer is true of the final history.
fn check_tries(tries: &[Try], messages: &[Envelope]) {
    for one in tries {
        let Some(Appended::Stored {
            envelope,
            duplicate,
        }) = &one.told
        else {
            continue;
        };
        assert!(
            messages.contains(envelope),
            "an acknowledged message is missing"
        );
        assert_eq!(envelope.message_id.as_str(), one.message);
        let of_same = |other: &&Try| other.sender == one.sender && other.message == one.message;
        let mut others = tries.iter().filter(of_same);
        if *duplicate {
            assert!(
                others.any(|other| other.began < one.began),
                "no earlier try"
            );
        } else {
            let settled_before = |other: &Try| {
                matches!(other.told, Some(Appended::Stored { .. })) && other.ended < one.began
            };
            assert!(
                !others.any(settled_before),
                "a duplicate that does not say so"
            );
        }
    }
}

/// Each device's messages are stored in the order in which it sent them.
fn check_order(messages: &[Envelope]) {
    for number in 0..CLIENTS.len() {
        let of = format!("c{number}-");
        let order = messages.iter().filter_map(|envelope| {
            let number = envelope.message_id.as_str().strip_prefix(&of)?;
            number.parse::<u64>().ok()
        });
        let order: Vec<_> = order.collect();
        assert!(
            order.iter().copied().eq(1..=order.len() as u64),
            "{order:?}"
        );
    }
}

fn simulate(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let simulation = Simulation::new(seed);
        let tries = simulation.run().await;
        let mut messages = Vec::new();
        for (one, other) in [("alice", "bob"), ("alice", "alice"), ("carol", "alice")] {
            messages.extend(simulation.check_conversation(one, other).await);
        }
        check_tries(&tries, &messages);
        check_order(&messages);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_runs_retries_and_faults_of_replicas_keep_the_promises(seed: u64) {
        simulate(seed);
    }
}
