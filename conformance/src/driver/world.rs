//! What all clients of a run share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duologue_proto::ids::UserId;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::Load;
use super::behaviour::{Behaviour, Counts};
use super::link::Gate;
use super::surroundings::Surroundings;
use super::way::{Chat, WayIn};
use crate::event::{Event, SessionNumber, User};
use crate::record::Recorder;

/// A token that outlives the run.
pub(super) const LONG: Duration = Duration::from_hours(1);
/// A token that expires in mid-stream.
pub(super) const SHORT: Duration = Duration::from_secs(2);

/// What a run consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Everybody does whatever they like.
    Wild,
    /// Nobody begins anything; everybody reads.
    Quiet,
    /// Everything was read.
    Over,
}

/// What all clients share; cheap to clone.
#[derive(Clone)]
pub(super) struct World {
    shared: Arc<Shared>,
    /// When clients may no longer do what they like. An instant of this runtime:
    /// a simulated machine has one of its own.
    pub(super) end: Instant,
}

pub(super) struct Shared {
    ways: Vec<WayIn>,
    pub(super) recorder: Recorder,
    pub(super) counts: Counts,
    pub(super) users: Vec<User>,
    pub(super) seed: u64,
    surroundings: Surroundings,
    stage: watch::Sender<Stage>,
    open: Mutex<BTreeSet<SessionNumber>>,
    ready: watch::Sender<usize>,
}

impl std::ops::Deref for World {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl World {
    /// The world of a run that begins now.
    pub(super) fn new(
        load: &Load,
        ways: Vec<WayIn>,
        surroundings: Surroundings,
        recorder: Recorder,
        counts: Counts,
    ) -> Self {
        // Names of their own for every run: what earlier runs left is not met.
        let run = format!("c{:x}-{}", surroundings.clock.now().0, load.seed);
        let shared = Shared {
            ways,
            recorder,
            counts,
            users: (0..load.users)
                .map(|number| format!("{run}-u{number}"))
                .collect(),
            seed: load.seed,
            surroundings,
            stage: watch::Sender::new(Stage::Wild),
            open: Mutex::default(),
            ready: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
            end: Instant::now() + load.wild,
        }
    }

    /// The same, as it is seen in this runtime, where the run begins now.
    pub(super) fn begun_here(&self, wild: Duration) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            end: Instant::now() + wild,
        }
    }

    /// The clients' clock, in milliseconds since 1970.
    pub(super) fn now_millis(&self) -> u64 {
        self.surroundings.clock.now().0
    }

    pub(super) fn note(&self, event: Event) {
        self.recorder.note(event);
    }

    pub(super) fn did(&self, behaviour: Behaviour) {
        self.counts.add(behaviour);
    }

    /// With whom a user talks: both neighbours, and themself. Everybody else is a
    /// stranger.
    pub(super) fn peers(&self, user: usize) -> Vec<User> {
        let count = self.users.len();
        let near = [user + 1, user + count - 1, user].map(|number| number % count);
        let mut peers = Vec::new();
        for number in near {
            if !peers.contains(&self.users[number]) {
                peers.push(self.users[number].clone());
            }
        }
        peers
    }

    /// A request of this user.
    pub(super) fn request<T>(
        &self,
        user: &str,
        lifetime: Duration,
        message: T,
    ) -> Result<Request<T>, Status> {
        let token = self.token(user, lifetime)?;
        let value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::internal("the token is not printable ASCII"))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    pub(super) fn token(&self, user: &str, lifetime: Duration) -> Result<String, Status> {
        let user = UserId::parse(user).map_err(|_| Status::internal("not a user id"))?;
        let Surroundings { key, clock, .. } = &self.surroundings;
        Ok(key.sign(&user, lifetime, clock.as_ref()))
    }

    /// A gate, open, behind which connections are made.
    pub(super) fn gate(&self) -> Gate {
        Gate::new(Arc::clone(&self.surroundings.dial))
    }

    /// The way of one device of one user: of several ways, neither the devices of a
    /// user nor those who talk with each other have the same.
    pub(super) fn way_of(&self, user: usize, device: usize) -> &WayIn {
        &self.ways[(user + device) % self.ways.len()]
    }

    /// A connection to the server of its own, with its gate.
    pub(super) fn link(&self, way: &WayIn, window_bytes: u32) -> (Chat, Gate) {
        let gate = self.gate();
        (way.open(&gate, window_bytes), gate)
    }

    pub(super) fn is_wild(&self) -> bool {
        *self.stage.borrow() == Stage::Wild
    }

    pub(super) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub(super) fn opened(&self, session: SessionNumber) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session);
    }

    pub(super) fn closed(&self, session: SessionNumber) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
    }

    /// The sessions that are open and read.
    pub(super) fn open(&self) -> BTreeSet<SessionNumber> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One more client has nothing under way.
    pub(super) fn is_ready(&self) {
        self.ready.send_modify(|ready| *ready += 1);
    }

    /// Waits until so many have nothing under way; returns how many have.
    pub(super) async fn all_ready(&self, count: usize, limit: Duration) -> usize {
        let mut ready = self.ready.subscribe();
        let all = ready.wait_for(|ready| *ready >= count);
        let _late = tokio::time::timeout(limit, all).await;
        *self.ready.borrow()
    }
}
