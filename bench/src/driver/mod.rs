//! The load: pairs of users who write to each other over real sockets, each its
//! next message on the acknowledgement of one before.
//!
//! It runs on one thread and must stay light: what is measured is the server.

mod board;
mod connection;
mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use self::board::Counts;
use self::board::{Board, MAX_IN_FLIGHT, Phase};
use self::connection::Connection;
use self::wire::Template;
use crate::histogram::Histogram;

/// Streams of one connection, which is what a server allows.
const MAX_STREAMS: usize = 100;
/// How long the users may take to enter.
const ENTER_LIMIT: Duration = Duration::from_mins(2);
/// How long the last messages may take.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether something has come about.
const POLL: Duration = Duration::from_millis(5);
/// Users who enter together.
const ENTER_TOGETHER: usize = 100;

/// Who is to enter where.
pub(crate) struct Users<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tokens: &'a [String],
    /// As many users share a connection.
    pub(crate) per_connection: usize,
    pub(crate) text_bytes: usize,
}

/// What a load came to.
pub(crate) struct Measured {
    pub(crate) time: Duration,
    pub(crate) counts: Counts,
    pub(crate) to_stored: Histogram,
    pub(crate) to_delivered: Histogram,
}

/// Users who have entered. To be made and used on a `LocalSet`.
pub(crate) struct Load {
    board: Rc<Board>,
    connections: JoinSet<Result<()>>,
}

/// The name of a user of the load; 2n and 2n + 1 are a pair.
pub(crate) fn name(user: usize) -> String {
    format!("user-{user:05}")
}

/// Connections for so many users, at least two, so that the halves of a pair do
/// not share one.
pub(crate) fn per_connection(users: usize) -> usize {
    let connections = users.div_ceil(MAX_STREAMS).max(2);
    users.div_ceil(connections)
}

impl Load {
    /// All users enter and begin to send, so many messages at a time.
    pub(crate) async fn start(users: &Users<'_>, window: usize) -> Result<Self> {
        ensure!(window <= MAX_IN_FLIGHT, "the window is too large");
        let mut load = Self {
            board: Rc::new(Board::new(users.tokens.len())),
            connections: JoinSet::new(),
        };
        let connections = load.connect(users).await?;
        // Only now, so that all start together.
        load.board.tick();
        for mut connection in connections {
            connection.start(window);
            load.connections
                .spawn_local(async move { connection.run().await });
        }
        Ok(load)
    }

    /// All users enter, each sends one message, and nothing follows.
    pub(crate) async fn start_one_each(users: &Users<'_>) -> Result<Self> {
        let load = Self::start(users, 1).await?;
        load.board.set_phase(Phase::Ending);
        Ok(load)
    }

    async fn connect(&mut self, users: &Users<'_>) -> Result<Vec<Connection>> {
        let count = users.tokens.len().div_ceil(users.per_connection);
        let mut entering = JoinSet::new();
        let mut connections = Vec::with_capacity(count);
        for first in 0..count {
            let mut connection = Connection::open(users.address, &self.board).await?;
            let members = (first..users.tokens.len()).step_by(count);
            let expected = members.clone().count();
            for user in members {
                let template = Template::new(&name(user ^ 1), users.text_bytes)?;
                connection.enter(user, &users.tokens[user], template);
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
            self.board.users_entered() == users.tokens.len(),
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
        })
    }

    /// Sends nothing more and waits until every message was acknowledged and
    /// delivered, once.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.board.set_phase(Phase::Ending);
        let started = Instant::now();
        loop {
            let counts = self.board.counts();
            if counts.stored == counts.sent && counts.delivered == counts.sent {
                return Ok(());
            }
            ensure!(
                started.elapsed() < END_LIMIT,
                "messages are missing: {counts:?}"
            );
            self.wait(POLL).await?;
        }
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
