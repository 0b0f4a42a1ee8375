//! A device's life: it connects, does something, leaves in one way or another, and
//! comes back, until the run becomes quiet; then it only reads.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::behaviour::Behaviour;
use super::calls;
use super::link::Mode;
use super::memory::Memory;
use super::rng::Rng;
use super::stream::{Heard, Stream, converse};
use super::way::WayIn;
use super::world::{LONG, SHORT, Stage, World};
use crate::event::{Door, Event, User, Way};

/// How long `Welcome` and the first messages are waited for.
const HEAR_LIMIT: Duration = Duration::from_secs(5);
/// How long a frozen connection stays as it is before it is read again.
const FROZEN_MILLIS: (u64, u64) = (300, 1_500);
/// How long some do not read what is sent last.
const LAST_STALL: Duration = Duration::from_millis(800);
/// What follows a thaw is read at most this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// What a device does with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    LeaveBeforeHello,
    LeaveBeforeWelcome,
    LeaveInCatchUp,
    LeaveInFlight,
    HalfClose,
    Drop,
    Cut,
    HalfOpen,
    Freeze,
    Supersede,
    Expire,
}

const PLANS: [Plan; 11] = [
    Plan::LeaveBeforeHello,
    Plan::LeaveBeforeWelcome,
    Plan::LeaveInCatchUp,
    Plan::LeaveInFlight,
    Plan::HalfClose,
    Plan::Drop,
    Plan::Cut,
    Plan::HalfOpen,
    Plan::Freeze,
    Plan::Supersede,
    Plan::Expire,
];

/// One device of one user.
pub(super) struct Device {
    pub(super) world: World,
    pub(super) way: WayIn,
    pub(super) rng: Rng,
    pub(super) user: User,
    pub(super) peers: Vec<User>,
    pub(super) memory: Memory,
    /// The conversations of the present session in which nothing was shown yet, if
    /// it has named no position of them and no token.
    pub(super) by_cursor: bool,
    pub(super) begun: Vec<User>,
    /// Cursor moves of the present session without an answer.
    pub(super) moves: usize,
    pub(super) name: String,
    plans: Vec<Plan>,
    /// Stays in its first session for the whole run.
    steady: bool,
    /// Streams that were left as they were.
    leftovers: JoinSet<()>,
}

impl Device {
    pub(super) fn new(world: World, user: usize, device: usize) -> Self {
        let decider = u64::try_from(user * 64 + device).unwrap_or_default();
        Self {
            way: world.way_of(user, device).clone(),
            rng: Rng::new(world.seed, decider),
            user: world.users[user].clone(),
            peers: world.peers(user),
            memory: Memory::default(),
            by_cursor: false,
            begun: Vec::new(),
            moves: 0,
            name: format!("d{device}"),
            plans: Vec::new(),
            steady: device == 0,
            leftovers: JoinSet::new(),
            world,
        }
    }

    /// Lives until the run is over.
    pub(super) async fn run(mut self) {
        let mut last = None;
        while self.world.is_wild() && Instant::now() < self.world.end {
            last = self.cycle().await;
            if last.is_none() {
                let pause = self.rng.between(5, 120);
                sleep(Duration::from_millis(pause)).await;
            }
        }
        while self.leftovers.join_next().await.is_some() {}
        self.rest(last).await;
    }

    /// One session; returned if it is still open in the end.
    async fn cycle(&mut self) -> Option<Stream> {
        let plan = if self.steady {
            Plan::Drop
        } else {
            self.next_plan()
        };
        let result = match plan {
            Plan::LeaveBeforeHello => self.leave_before_hello().await.map(|()| None),
            Plan::LeaveBeforeWelcome => self.leave_before_welcome().await.map(|()| None),
            Plan::LeaveInCatchUp => self.leave_in_catch_up().await.map(|()| None),
            Plan::LeaveInFlight
            | Plan::HalfClose
            | Plan::Drop
            | Plan::Cut
            | Plan::HalfOpen
            | Plan::Freeze
            | Plan::Supersede
            | Plan::Expire => self.live_and_leave(plan).await,
        };
        if !matches!(result, Ok(Some(_))) {
            self.memory.disconnected();
        }
        match result {
            Ok(stream) => stream,
            Err(status) => {
                sleep(calls::retry_after(&status)).await;
                None
            }
        }
    }

    fn next_plan(&mut self) -> Plan {
        if self.plans.is_empty() {
            self.plans = PLANS.to_vec();
            self.rng.shuffle(&mut self.plans);
        }
        let plan = self.plans.pop().unwrap_or(Plan::Drop);
        let of_converse = matches!(plan, Plan::LeaveBeforeHello | Plan::HalfClose);
        if of_converse && !self.way.way().has_converse() {
            return Plan::Drop;
        }
        plan
    }

    async fn leave_before_hello(&mut self) -> Result<(), Status> {
        let bare = converse(&self.world, &self.user, self.link(), LONG).await?;
        let pause = self.rng.between(0, 20);
        sleep(Duration::from_millis(pause)).await;
        drop(bare);
        self.world.did(Behaviour::LeftBeforeHello);
        Ok(())
    }

    async fn leave_before_welcome(&mut self) -> Result<(), Status> {
        let stream = self.open(LONG, false).await?;
        // Time for the frame to leave; what comes is not read.
        let pause = self.rng.between(1, 8);
        sleep(Duration::from_millis(pause)).await;
        stream.left(&self.world, "left before welcome");
        self.world.did(Behaviour::LeftBeforeWelcome);
        Ok(())
    }

    async fn leave_in_catch_up(&mut self) -> Result<(), Status> {
        let mut stream = self.open(LONG, true).await?;
        let mut count = self.rng.between(1, 10);
        let world = self.world.clone();
        while let Ok(heard) = timeout(HEAR_LIMIT, stream.hear(&world)).await {
            let shown = matches!(heard, Heard::Delivered(..));
            let ended = matches!(heard, Heard::CaughtUp(_) | Heard::End(_));
            self.take(&stream, heard);
            if ended {
                break;
            }
            count -= u64::from(shown);
            if count == 0 {
                world.did(Behaviour::LeftInCatchUp);
                break;
            }
        }
        stream.left(&world, "left in catch-up");
        Ok(())
    }

    async fn live_and_leave(&mut self, plan: Plan) -> Result<Option<Stream>, Status> {
        let world = self.world.clone();
        let lifetime = if plan == Plan::Expire && !self.steady {
            SHORT
        } else {
            LONG
        };
        let mut stream = self.open(lifetime, false).await?;
        let until = if self.steady {
            world.end
        } else if plan == Plan::Expire {
            Instant::now() + SHORT + Duration::from_secs(1)
        } else {
            Instant::now() + Duration::from_millis(self.rng.between(100, 1_200))
        };
        if !self.live(&mut stream, until.min(world.end)).await {
            return Ok(None);
        }
        if self.steady || Instant::now() >= world.end {
            // The last messages are no trickle: whatever gets lost stays lost. And
            // not everybody reads them at once.
            self.burst(&stream);
            if self.rng.percent(50) {
                sleep(LAST_STALL).await;
            }
            return Ok(Some(stream));
        }
        self.leave(stream, plan).await;
        Ok(None)
    }

    async fn leave(&mut self, mut stream: Stream, plan: Plan) {
        let world = self.world.clone();
        let by = self.way.way();
        match plan {
            // Nothing of a `Subscribe` can be closed by half: it would be read on and on.
            Plan::HalfClose if by != Way::Native && stream.door() == Door::Subscribe => {
                stream.left(&world, "dropped");
            }
            Plan::HalfClose => {
                stream.half_close();
                self.read_to_the_end(&mut stream).await;
            }
            Plan::LeaveInFlight => {
                if self.burst(&stream) {
                    world.did(Behaviour::LeftInFlight);
                }
                // With luck some of it was read by the server.
                let pause = self.rng.between(0, 3);
                sleep(Duration::from_millis(pause)).await;
                stream.left(&world, "left in flight");
            }
            Plan::Cut => {
                self.burst(&stream);
                let pause = self.rng.between(0, 3);
                sleep(Duration::from_millis(pause)).await;
                stream.link.gate.set(Mode::Cut);
                world.did(Behaviour::Cut);
                stream.left(&world, "cut");
            }
            Plan::HalfOpen | Plan::Freeze => {
                self.burst(&stream);
                stream.link.gate.set(Mode::Frozen);
                let session = stream.session;
                world.note(Event::Frozen { session });
                let thaws = plan == Plan::Freeze;
                world.did(if thaws {
                    Behaviour::Frozen
                } else {
                    Behaviour::HalfOpen
                });
                let millis = self.rng.between(FROZEN_MILLIS.0, FROZEN_MILLIS.1);
                self.leave_behind(stream, thaws, Duration::from_millis(millis));
            }
            Plan::Supersede => self.leave_behind(stream, true, Duration::ZERO),
            Plan::LeaveBeforeHello
            | Plan::LeaveBeforeWelcome
            | Plan::LeaveInCatchUp
            | Plan::Drop
            | Plan::Expire => stream.left(&world, "dropped"),
        }
    }

    /// Goes on with another stream while this one is open: once it is read again,
    /// it should say that a newer session took over.
    fn leave_behind(&mut self, mut stream: Stream, thaws: bool, pause: Duration) {
        let world = self.world.clone();
        world.closed(stream.session);
        let by = self.way.way();
        let drain = async move {
            sleep(pause).await;
            if thaws {
                stream.link.gate.set(Mode::Open);
                let end = async {
                    loop {
                        let heard = stream.hear(&world).await;
                        if matches!(heard, Heard::End(_)) {
                            return;
                        }
                        if matches!(heard, Heard::Goodbye(wire::GoodbyeReason::Superseded)) {
                            world.did(Behaviour::Superseded);
                        }
                    }
                };
                if timeout(DRAIN_LIMIT, end).await.is_ok() {
                    return;
                }
            }
            // Over HTTP/2 it is given up when it does not answer; nothing else would be.
            if by != Way::Native {
                stream.link.gate.set(Mode::Cut);
            }
            stream.left(&world, "left behind");
        };
        self.leftovers.spawn(drain);
    }

    async fn read_to_the_end(&mut self, stream: &mut Stream) {
        let world = self.world.clone();
        while let Ok(heard) = timeout(HEAR_LIMIT + HEAR_LIMIT, stream.hear(&world)).await {
            let end = if let Heard::End(ok) = heard {
                Some(ok)
            } else {
                None
            };
            self.take(stream, heard);
            if let Some(ok) = end {
                if ok && stream.door() == Door::Converse {
                    world.did(Behaviour::HalfClose);
                }
                return;
            }
        }
        stream.left(&world, "not ended in time");
    }

    /// The end: reads, and sends nothing new. A device without a session opens one.
    async fn rest(mut self, mut last: Option<Stream>) {
        let world = self.world.clone();
        let mut stage = world.stage();
        let mut was_ready = false;
        loop {
            let Some(stream) = &mut last else {
                match self.open(LONG, false).await {
                    Ok(stream) => last = Some(stream),
                    Err(status) => sleep(calls::retry_after(&status)).await,
                }
                if *stage.borrow() == Stage::Over {
                    return;
                }
                continue;
            };
            let settled = self.memory.in_flight() == 0 && self.moves == 0;
            if !was_ready && settled {
                was_ready = true;
                world.is_ready();
            }
            tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage == Stage::Over) => {
                    stream.left(&world, "over");
                    return;
                }
                heard = stream.hear(&world) => {
                    let ended = matches!(heard, Heard::End(_));
                    self.take(stream, heard);
                    if ended {
                        self.memory.disconnected();
                        last = None;
                    }
                }
            }
        }
    }
}
