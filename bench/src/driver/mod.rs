//! The load: users who write over real sockets, each its next message on the
//! acknowledgement of one before, or all by the clock.
//!
//! It runs on one thread and must stay light: what is measured is the server.

mod board;
mod caller;
mod connection;
mod down;
mod line;
mod pace;
mod socket;
mod user;
mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use self::board::Counts;
use self::board::{Board, Phase};
pub(crate) use self::caller::Door;
use self::caller::{Caller, Guest};
use self::connection::Connection;
pub(crate) use self::line::Line;
use self::pace::Schedule;
use self::user::Entrant;
use self::wire::Template;
use crate::histogram::Histogram;

/// Streams of one connection, which is what a server allows.
const MAX_STREAMS: usize = 100;
/// How long the users may take to enter.
const ENTER_LIMIT: Duration = Duration::from_mins(2);
/// How long the last messages may take, or any one.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether something has come about.
const POLL: Duration = Duration::from_millis(5);
/// Users who enter together.
const ENTER_TOGETHER: usize = 100;

/// Messages of one user that may be in flight; by the clock, where a stalled
/// server does not hold them up, seconds of them.
const IN_FLIGHT: usize = 64;
const IN_FLIGHT_PACED: usize = 4096;

/// A user of a load, who writes to one other.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) token: String,
    pub(crate) peer: String,
}

/// Who is to enter where.
pub(crate) struct Users<'a> {
    /// Connections go to each in turn: with two, the halves of a pair to different ones.
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) members: &'a [Member],
    /// As many users share a connection.
    pub(crate) per_connection: usize,
    pub(crate) text_bytes: usize,
    /// How many messages each sends in all.
    pub(crate) messages: u64,
    pub(crate) to: To,
}

/// To whom a load writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// 2n and 2n + 1 of the load are a pair.
    Peers,
    /// To users who are away.
    Away,
}

/// When a load writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    /// So many messages of each user are in flight.
    Window(usize),
    /// So many messages per second of all together, by the clock.
    Rate(f64),
}

/// What a load came to.
pub(crate) struct Measured {
    pub(crate) time: Duration,
    pub(crate) counts: Counts,
    pub(crate) to_stored: Histogram,
    pub(crate) to_delivered: Histogram,
    /// How late the driver was with what is sent by the clock.
    pub(crate) late: Histogram,
}

/// Users who have entered. To be made and used on a `LocalSet`.
pub(crate) struct Load {
    board: Rc<Board>,
    connections: JoinSet<Result<()>>,
    to: To,
    /// How many messages all users send in all.
    messages: u64,
}

/// Users and to whom each writes: 2n and 2n + 1 are a pair.
pub(crate) fn pairs(prefix: &str, users: usize) -> impl Iterator<Item = (String, String)> {
    (0..users).map(move |user| (name(prefix, user), name(prefix, user ^ 1)))
}

/// The name of a user.
pub(crate) fn name(prefix: &str, user: usize) -> String {
    format!("{prefix}-{user:05}")
}

/// Connections for so many users, at least two, so that the halves of a pair do
/// not share one.
pub(crate) fn per_connection(users: usize) -> usize {
    let connections = users.div_ceil(MAX_STREAMS).max(2);
    users.div_ceil(connections)
}

impl Load {
    /// All users enter and begin to send.
    pub(crate) async fn start(users: &Users<'_>, when: When) -> Result<Self> {
        let in_flight = match when {
            When::Window(window) => {
                ensure!(window <= IN_FLIGHT, "the window is too large");
                IN_FLIGHT
            }
            When::Rate(_) => IN_FLIGHT_PACED,
        };
        let mut load = Self {
            board: Rc::new(Board::new(users.members.len(), in_flight)),
            connections: JoinSet::new(),
            to: users.to,
            messages: users.messages.saturating_mul(users.members.len() as u64),
        };
        let connections = load.connect(users).await?;
        // Only now, so that all start together.
        load.board.tick();
        for connection in connections {
            load.run(connection, when, users.members.len());
        }
        Ok(load)
    }

    /// All users enter by one door, each on a connection of its own, and begin to
    /// send, with so many messages in flight.
    pub(crate) async fn start_by(door: Door, users: &Users<'_>, window: usize) -> Result<Self> {
        ensure!(window <= IN_FLIGHT, "the window is too large");
        let mut load = Self {
            board: Rc::new(Board::new(users.members.len(), IN_FLIGHT)),
            connections: JoinSet::new(),
            to: users.to,
            messages: users.messages.saturating_mul(users.members.len() as u64),
        };
        let mut callers = Vec::with_capacity(users.members.len());
        for (index, member) in users.members.iter().enumerate() {
            let guest = Guest {
                index,
                token: &member.token,
                peer: &member.peer,
                text_bytes: users.text_bytes,
                messages: users.messages,
            };
            let address = users.addresses[index % users.addresses.len()];
            let mut caller = Caller::open((door, address), &load.board, guest).await?;
            let entered = timeout(ENTER_LIMIT, caller.enter()).await;
            entered.context("users cannot enter")??;
            callers.push(caller);
        }
        // Only now, so that all start together.
        load.board.tick();
        for mut caller in callers {
            load.connections
                .spawn_local(async move { caller.run(window).await });
        }
        Ok(load)
    }

    #[expect(clippy::cast_precision_loss, reason = "users are few")]
    fn run(&mut self, mut connection: Connection, when: When, users: usize) {
        let now = self.board.now();
        self.connections.spawn_local(async move {
            match when {
                When::Window(window) => connection.run(window).await,
                When::Rate(rate) => {
                    let share = connection.users() as f64 / users as f64;
                    connection.run_paced(Schedule::new(now, rate * share)).await
                }
            }
        });
    }

    async fn connect(&mut self, users: &Users<'_>) -> Result<Vec<Connection>> {
        let count = users.members.len().div_ceil(users.per_connection);
        ensure!(
            count.is_multiple_of(users.addresses.len()),
            "connections cannot be shared out evenly"
        );
        let mut entering = JoinSet::new();
        let mut connections = Vec::with_capacity(count);
        for first in 0..count {
            let address = users.addresses[first % users.addresses.len()];
            let mut connection = Connection::open(address, &self.board).await?;
            let members = (first..users.members.len()).step_by(count);
            let expected = members.clone().count();
            for index in members {
                let member = &users.members[index];
                connection.enter(Entrant {
                    index,
                    token: &member.token,
                    template: Template::new(&member.peer, users.text_bytes)?,
                    messages: users.messages,
                });
            }
            entering.spawn_local(enter(connection, expected));
            while entering.len() * users.per_connection >= ENTER_TOGETHER {
                connections.push(entered(&mut entering).await?);
            }
        }
        while !entering.is_empty() {
            connections.push(entered(&mut entering).await?);
        }
        ensure!(
            self.board.users_entered() == users.members.len(),
            "not everybody has entered"
        );
        Ok(connections)
    }

    /// Measures for so long, once it is warm; the last is called at the beginning
    /// and at the end of that time.
    pub(crate) async fn measure(
        &mut self,
        warm: Duration,
        time: Duration,
        mut at_both_ends: impl FnMut() -> Result<()>,
    ) -> Result<Measured> {
        self.wait(warm).await?;
        at_both_ends()?;
        let (before, started) = (self.board.counts(), Instant::now());
        self.board.set_phase(Phase::Measured);
        self.wait(time).await?;
        self.board.set_phase(Phase::Warm);
        let (after, time) = (self.board.counts(), started.elapsed());
        at_both_ends()?;
        Ok(Measured {
            time,
            counts: Counts {
                sent: after.sent - before.sent,
                stored: after.stored - before.stored,
                delivered: after.delivered - before.delivered,
                echoed: after.echoed - before.echoed,
            },
            to_stored: self.board.to_stored.take(),
            to_delivered: self.board.to_delivered.take(),
            late: self.board.late.take(),
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        self.board.counts()
    }

    /// Lets no more fall due and waits until every message that was sent was
    /// acknowledged and delivered, once.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.board.set_phase(Phase::Ending);
        let started = Instant::now();
        while !self.is_settled() {
            ensure!(
                started.elapsed() < END_LIMIT,
                "messages are missing: {:?}",
                self.counts()
            );
            self.wait(POLL).await?;
        }
        Ok(())
    }

    /// Waits until every user has sent all its messages, and each was acknowledged
    /// and delivered; tells meanwhile how far it is.
    pub(crate) async fn complete(&mut self, mut tell: impl FnMut(Counts)) -> Result<()> {
        let (mut come, mut moved) = (0, Instant::now());
        while self.counts().sent < self.messages || !self.is_settled() {
            self.wait(POLL).await?;
            let counts = self.counts();
            tell(counts);
            if counts.stored + counts.delivered > come {
                (come, moved) = (counts.stored + counts.delivered, Instant::now());
            }
            ensure!(moved.elapsed() < END_LIMIT, "nothing moves: {counts:?}");
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let counts = self.counts();
        let delivered = match self.to {
            To::Peers => counts.sent,
            To::Away => 0,
        };
        counts.stored == counts.sent && counts.delivered == delivered
    }

    /// Lets the load run for so long; an error if a connection fails meanwhile.
    pub(crate) async fn wait(&mut self, time: Duration) -> Result<()> {
        tokio::select! {
            biased;
            Some(ended) = self.connections.join_next() => {
                ended.context("a connection's task failed")??;
                bail!("a connection ended")
            }
            () = sleep(time) => Ok(()),
        }
    }
}

/// Runs a connection until its users have caught up.
async fn enter(mut connection: Connection, users: usize) -> Result<Connection> {
    tokio::select! {
        biased;
        ended = connection.run_until(users) => ended?,
        () = sleep(ENTER_LIMIT) => bail!("users cannot enter"),
    }
    Ok(connection)
}

async fn entered(entering: &mut JoinSet<Result<Connection>>) -> Result<Connection> {
    let next = timeout(ENTER_LIMIT, entering.join_next()).await;
    let connection = next.context("users cannot enter")?;
    connection
        .context("nobody is entering")?
        .context("a task failed")?
}
