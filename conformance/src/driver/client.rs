//! A device that uses a client, the Rust or the TypeScript one: it sends, moves cursors and takes events
//! slowly, while its connection is cut and frozen, its tokens expire, others take
//! its place, and its program is ended and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use duologue_client::DeviceId;
use duologue_proto::chat::v1 as wire;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

use super::app::App;
use super::behaviour::Behaviour;
use super::link::{Gate, Mode};
use super::rng::Rng;
use super::stream::{Link, converse};
use super::way::WayIn;
use super::world::{LONG, Stage, World};
use crate::event::{Connect, Cursor, CursorMove, Door, Event, Send, SessionNumber, User, digest};

/// Time between two things that the application does.
const ACT_MILLIS: (u64, u64) = (15, 150);
/// How long a connection is cut or frozen.
const BROKEN_MILLIS: (u64, u64) = (20, 900);
/// How long events are not taken.
const STALL_MILLIS: (u64, u64) = (300, 1_500);
const BIG_BYTES: (u64, u64) = (3_000, 8_000);
/// Messages without an answer, after which none is sent.
const MAX_OUTSTANDING: usize = 100;
/// A cursor move is written at most so long after it.
const CURSOR_LIMIT: Duration = Duration::from_millis(5_500);
/// In the end a client that is not connected is told to connect this often.
const NUDGE: Duration = Duration::from_secs(1);
pub(super) const TURN: Duration = Duration::from_millis(20);

/// One device of one user.
pub(super) struct Actor {
    pub(super) world: World,
    pub(super) way: WayIn,
    pub(super) user: User,
    /// Of the present client.
    pub(super) session: SessionNumber,
    /// The last message taken, by peer.
    pub(super) held: BTreeMap<User, u64>,
    pub(super) outstanding: BTreeSet<String>,
    /// What was shown of each peer's cursor.
    pub(super) shown: BTreeMap<User, Cursor>,
    pub(super) connected: bool,
    pub(super) last_connected: Instant,
    /// The client waits to be told to connect again.
    pub(super) lost: bool,
    pub(super) rng: Rng,
    peers: Vec<User>,
    pub(super) device: DeviceId,
    /// What the device is called by its client.
    pub(super) named: String,
    /// Starts the TypeScript client; none: it is the Rust client.
    pub(super) program: Option<Arc<[String]>>,
    pub(super) folder: TempDir,
    pub(super) gate: Gate,
    /// When the gate opens again.
    pub(super) broken_until: Option<Instant>,
    /// Keeps its sends in order over all its clients.
    lane: u64,
    last_move: Instant,
    pub(super) steady: bool,
}

impl Actor {
    pub(super) fn new(
        world: World,
        (user, device): (usize, usize),
        program: Option<Arc<[String]>>,
    ) -> Result<Self> {
        let decider = u64::try_from(user * 64 + device).unwrap_or_default();
        Ok(Self {
            way: world.way_of(user, device).clone(),
            rng: Rng::new(world.seed, decider),
            user: world.users[user].clone(),
            peers: world.peers(user),
            session: 0,
            held: BTreeMap::new(),
            outstanding: BTreeSet::new(),
            shown: BTreeMap::new(),
            connected: false,
            last_connected: Instant::now(),
            lost: false,
            device: DeviceId::parse(&format!("d{device}"))?,
            named: format!("d{device}"),
            program,
            folder: tempfile::tempdir()?,
            gate: world.gate(),
            broken_until: None,
            lane: world.recorder.number(),
            last_move: Instant::now(),
            steady: device == 0,
            world,
        })
    }

    /// Lives until the run is over.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut app = self.start().await?;
        let mut act = Instant::now();
        while self.world.is_wild() && Instant::now() < self.world.end {
            tokio::select! {
                biased;
                () = sleep_until(act) => {
                    let restarts = self.act(&mut app).await?;
                    if restarts {
                        app.end().await?;
                        self.world.closed(self.session);
                        self.world.did(Behaviour::Restart);
                        app = self.start().await?;
                    }
                    let pause = self.rng.between(ACT_MILLIS.0, ACT_MILLIS.1);
                    act = Instant::now() + Duration::from_millis(pause);
                }
                told = app.next() => self.take(told?)?,
            }
        }
        self.gate.set(Mode::Open);
        self.rest(&mut app).await
    }

    /// The end: takes events, and sends nothing new.
    async fn rest(&mut self, app: &mut App) -> Result<()> {
        let world = self.world.clone();
        let mut stage = world.stage();
        let mut nudge = Instant::now();
        let mut was_ready = false;
        loop {
            self.take_back(app).await?;
            let now = Instant::now();
            if !self.connected && now >= nudge {
                // Not to wait for what a broken network has made of its delays.
                nudge = now + NUDGE;
                app.reconnect().await?;
            }
            let written = now > self.last_move.max(self.last_connected) + CURSOR_LIMIT;
            let settled = self.connected && self.outstanding.is_empty() && written;
            if !was_ready && settled {
                was_ready = true;
                world.is_ready();
            }
            tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage == Stage::Over) => return Ok(()),
                told = app.next() => self.take(told?)?,
                () = sleep(TURN) => {}
            }
        }
    }

    /// Does something; true: the program shall be ended and started again.
    async fn act(&mut self, app: &mut App) -> Result<bool> {
        self.mend();
        self.take_back(app).await?;
        match self.rng.between(0, 99) {
            0..50 => self.send(app, 1).await?,
            50..62 => {
                let count = self.rng.between(2, 8);
                self.send(app, count).await?;
            }
            62..80 => self.move_cursor(app).await?,
            80..83 => self.stall(app).await?,
            83..87 => self.break_link(Mode::Frozen, Behaviour::Frozen),
            87..91 => self.break_link(Mode::Cut, Behaviour::Cut),
            91..94 if !self.steady => {
                self.send(app, 6).await?;
                if !self.outstanding.is_empty() {
                    self.break_link(Mode::Cut, Behaviour::LeftInFlight);
                }
            }
            94..96 if !self.steady => self.intrude().await,
            96..98 if !self.steady => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    async fn send(&mut self, app: &mut App, count: u64) -> Result<()> {
        for _ in 0..count {
            if self.outstanding.len() >= MAX_OUTSTANDING {
                return Ok(());
            }
            let notes = self.rng.percent(10);
            let others = self.peers.len().saturating_sub(1).max(1);
            let index = self
                .rng
                .index(if notes { self.peers.len() } else { others });
            let peer = self.peers[index].clone();
            let big = self.rng.percent(15);
            let (low, high) = if big { BIG_BYTES } else { (8, 120) };
            let length = usize::try_from(self.rng.between(low, high)).unwrap_or(8);
            let try_number = self.world.recorder.number();
            let mut text = format!("{try_number} ");
            text.extend(std::iter::repeat_n('x', length));
            let body = digest(&text);
            // The client chooses the id; the place in the record is before the try.
            let at = self.world.recorder.reserve();
            let Some(message_id) = app.send(&peer, text).await? else {
                return Ok(());
            };
            self.world.did(Behaviour::Send);
            if big {
                self.world.did(Behaviour::BigText);
            }
            if peer == self.user {
                self.world.did(Behaviour::Note);
            }
            self.outstanding.insert(message_id.clone());
            self.world.recorder.note_at(
                at,
                Event::Send(Send {
                    try_number,
                    lane: self.lane,
                    session: Some(self.session),
                    user: self.user.clone(),
                    peer,
                    message_id,
                    after_seq: None,
                    body,
                }),
            );
        }
        Ok(())
    }

    async fn move_cursor(&mut self, app: &mut App) -> Result<()> {
        let index = self.rng.index(self.held.len());
        let Some((peer, held)) = self.held.iter().nth(index) else {
            return Ok(());
        };
        let (peer, held) = (peer.clone(), *held);
        let delivered = self.rng.between(held.saturating_sub(3), held);
        let reads = self.rng.percent(50);
        let read = if reads {
            self.rng.between(0, delivered)
        } else {
            0
        };
        let cursor = app.sayable(Cursor { delivered, read });
        if cursor == Cursor::default() {
            return Ok(());
        }
        self.world.did(Behaviour::CursorMove);
        self.moves(peer.clone(), cursor.delivered, cursor.read);
        app.mark(&peer, cursor).await
    }

    /// A cursor is moved now.
    pub(super) fn moves(&mut self, peer: User, delivered: u64, read: u64) {
        self.world.note(Event::CursorAsked(CursorMove {
            number: self.world.recorder.number(),
            session: Some(self.session),
            user: self.user.clone(),
            peer,
            cursor: Cursor { delivered, read },
        }));
        self.last_move = Instant::now();
    }

    /// Takes no events for a while, and then all of them.
    async fn stall(&mut self, app: &mut App) -> Result<()> {
        self.world.did(Behaviour::SlowReader);
        let millis = self.rng.between(STALL_MILLIS.0, STALL_MILLIS.1);
        let until = (Instant::now() + Duration::from_millis(millis)).min(self.world.end);
        sleep_until(until).await;
        while let Ok(told) = tokio::time::timeout(TURN, app.next()).await {
            self.take(told?)?;
        }
        Ok(())
    }

    fn break_link(&mut self, mode: Mode, behaviour: Behaviour) {
        if self.steady && mode == Mode::Cut {
            return;
        }
        self.world.did(behaviour);
        self.gate.set(mode);
        if mode == Mode::Frozen {
            let session = self.session;
            self.world.note(Event::Frozen { session });
        }
        let millis = self.rng.between(BROKEN_MILLIS.0, BROKEN_MILLIS.1);
        self.broken_until = Some(Instant::now() + Duration::from_millis(millis));
    }

    fn mend(&mut self) {
        if self
            .broken_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.broken_until = None;
            self.gate.set(Mode::Open);
            let session = self.session;
            self.world.note(Event::Thawed { session });
        }
    }

    /// Another program takes the device over for a moment.
    async fn intrude(&mut self) {
        let world = self.world.clone();
        let way = self.way.conversing();
        let (chat, gate) = world.link(&way, 64 * 1024);
        let Ok(bare) = converse(&world, &self.user, Link { chat, gate }, LONG).await else {
            return;
        };
        let connect = Connect {
            session: world.recorder.number(),
            user: self.user.clone(),
            device: self.device.to_string(),
            // The client's own number may be ahead by a few connects.
            number: world.now_millis() + 1_000,
            door: Door::Converse,
            way: way.way(),
            token: String::new(),
            positions: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        let hello = wire::Hello {
            device_id: Some(self.named.clone()),
            connect_number: Some(connect.number),
            ..wire::Hello::default()
        };
        let mut stream = bare.hello(&world, connect, hello);
        let _welcome = tokio::time::timeout(Duration::from_secs(1), stream.hear(&world)).await;
        stream.left(&world, "an intruder leaves");
    }

    /// Takes the device back from an intruder, or tries once more.
    async fn take_back(&mut self, app: &mut App) -> Result<()> {
        if self.lost {
            self.lost = false;
            app.reconnect().await?;
        }
        Ok(())
    }
}
