//! Random runs, retries, faults and clocks over several replicas, against what
//! is promised of any of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duologue_proto::history::{Appended, CursorAdvanced, Draft};
use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_runtime::clock::{Clock, RandomExt as _, SeededRandom};
use proptest::prelude::*;
use tokio::time::Instant;

use duologue_dynamodb::testing::{Faults, MAX_LATE};

use super::faults::FaultyStore;
use super::promises::{Device, Findings, Try, check_conversation, check_run, check_tries};
use super::{START, draft, run, user};
use crate::contract_tests::remote;
use crate::history::History;
use crate::memory::MemoryStore;
use crate::store::Store;

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
/// By then everything is stored, whatever fails.
const MAX_ROUNDS: usize = 200;
/// Of a thousand requests to DynamoDB so many meet a fault.
const REMOTE_FAULTS_PER_THOUSAND: u64 = 60;

/// How fast history's time goes where nothing is measured against it.
const FAST: u32 = 200;

/// Runs so many times as fast as the tests' own time, and steps back at times.
struct FastClock {
    start: Instant,
    speed: u32,
    behind: AtomicU64,
}

impl Clock for FastClock {
    fn now(&self) -> UnixMillis {
        let gone = self.start.elapsed() * self.speed;
        let behind = Duration::from_millis(self.behind.load(Ordering::SeqCst));
        START.plus(gone).minus(behind)
    }
}

struct Simulation {
    /// What is stored, seen without faults.
    memory: Arc<dyn Store>,
    faults: Vec<Arc<FaultyStore>>,
    replicas: Vec<History>,
    clock: Arc<FastClock>,
    random: SeededRandom,
    events: AtomicU64,
    findings: Findings,
}

impl FastClock {
    fn new(speed: u32) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            speed,
            behind: AtomicU64::new(0),
        })
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let clock = FastClock::new(FAST);
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
            findings: Findings::default(),
        }
    }

    /// Over DynamoDB, each replica on a faulty way of its own. Time goes as fast as
    /// DynamoDB's, whose clock does not step.
    async fn on_dynamodb(seed: u64) -> Self {
        let clock = FastClock::new(1);
        let shared: Arc<dyn Clock> = clock.clone();
        let server: Arc<dyn Clock> = FastClock::new(1);
        let random = SeededRandom::new(seed);
        let engine = remote::engine().await;
        let truth = remote::client(&engine, &Arc::default(), &server);
        let memory: Arc<dyn Store> = Arc::new(remote::open(truth, &shared, seed).await);
        let mut replicas = Vec::new();
        for _ in 0..3 {
            let faults = Faults::seeded(random.number(), REMOTE_FAULTS_PER_THOUSAND);
            let database = remote::client(&engine, &Arc::new(faults), &server);
            let store = remote::open(database, &shared, seed).await;
            replicas.push(History::new(Arc::new(store), Arc::clone(&shared)));
        }
        Self {
            memory,
            faults: Vec::new(),
            replicas,
            clock,
            random,
            events: AtomicU64::new(0),
            findings: Findings::default(),
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

    /// As long by history's time, whatever its speed. A replica of DynamoDB whose clock
    /// is too far off would refuse.
    async fn rest(&self) {
        let millis = match self.below(8) {
            0 => self.below(2_000),
            _ => self.below(60),
        };
        let (slower, step) = match self.clock.speed {
            FAST => (1, 120_000),
            _ => (FAST, 25_000),
        };
        tokio::time::sleep(Duration::from_millis(millis) * slower).await;
        let behind = [0, 0, 0, step][usize::try_from(self.below(4)).unwrap()];
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
            if round == MAX_ROUNDS {
                self.findings.check("everything_settles", false, sender);
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
            check_run(&answers, &self.findings);
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

    /// A device that syncs from token to token.
    async fn device(&self, name: &'static str) {
        let mut device = Device::new(name);
        for _ in 0..ROUNDS {
            self.rest().await;
            let replica = || self.replica();
            let synced = device.sync(&self.memory, &PEOPLE, replica, &self.findings);
            synced.await;
        }
    }

    async fn reader(&self, name: &str) {
        let mut floors: BTreeMap<UserId, Cursor> = BTreeMap::new();
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
                Ok(CursorAdvanced::Stored { cursor, .. }) => {
                    let floor = floors.entry(peer).or_default();
                    let covers = cursor.covers(asked) && cursor.covers(*floor);
                    self.findings.check("cursor_never_lowered", covers, name);
                    *floor = floor.max(cursor);
                }
                Ok(CursorAdvanced::AboveHead { head }) => {
                    let above = asked.delivered > head;
                    self.findings.check("cursor_taken_up_to_head", above, name);
                }
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
        if self.faults.is_empty() {
            tokio::time::sleep(MAX_LATE).await;
        }
        tries.into_iter().flatten().collect()
    }
}

/// Each device's messages are stored in the order in which it sent them.
fn check_order(messages: &[Envelope], findings: &Findings) {
    for number in 0..CLIENTS.len() {
        let of = format!("c{number}-");
        let order = messages.iter().filter_map(|envelope| {
            let number = envelope.message_id.as_str().strip_prefix(&of)?;
            number.parse::<u64>().ok()
        });
        let order: Vec<_> = order.collect();
        let kept = order.iter().copied().eq(1..=order.len() as u64);
        findings.check("session_order", kept, format!("{order:?}"));
    }
}

/// Runs a seed, and returns the promises that it broke.
pub(super) fn simulate(seed: u64) -> Vec<(&'static str, String)> {
    judged(async { Simulation::new(seed) })
}

/// The same over DynamoDB.
pub(super) fn simulate_on_dynamodb(seed: u64) -> Vec<(&'static str, String)> {
    judged(Simulation::on_dynamodb(seed))
}

fn judged(simulation: impl Future<Output = Simulation>) -> Vec<(&'static str, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let simulation = simulation.await;
        let tries = simulation.run().await;
        let findings = simulation.findings;
        let mut messages = Vec::new();
        for pair in [("alice", "bob"), ("alice", "alice"), ("carol", "alice")] {
            messages.extend(check_conversation(&simulation.memory, pair, &findings).await);
        }
        check_tries(&tries, &messages, &findings);
        check_order(&messages, &findings);
        findings.all()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_runs_retries_and_faults_of_replicas_keep_the_promises(seed: u64) {
        prop_assert_eq!(simulate(seed), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_runs_retries_and_faults_on_the_way_to_dynamodb_keep_the_promises(seed: u64) {
        prop_assert_eq!(simulate_on_dynamodb(seed), []);
    }
}
