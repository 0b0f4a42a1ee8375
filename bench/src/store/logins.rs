//! Logins per second: each a new connection, a session, and its catch-up.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use duologue_proto::chat::v1::{Hello, Position};
use duologue_runtime::clock::{Clock as _, SystemClock};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fill::{self, Crowd};
use crate::driver;
use crate::histogram::Histogram;
use crate::machine;
use crate::probe::{Probe, Use};
use crate::server::Server;

/// Logins under way at a time.
const TOGETHER: usize = 32;

/// What a client knows that logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// Nothing, and is another device each time: it is shown every message.
    New,
    /// Its device, its token and a position in every conversation: nothing is new.
    Returning,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Logins {
    pub(super) count: u64,
    pub(super) time: Duration,
    pub(super) times: Histogram,
    pub(super) used: Use,
    /// How much more memory the server has afterwards, in KiB.
    pub(super) grown_kib: i64,
}

/// A user who logs in.
struct User {
    token: String,
    hello: Hello,
    /// How many messages it is shown.
    messages: u64,
}

/// What the workers share, all on one thread.
struct Shared {
    address: SocketAddr,
    users: Vec<User>,
    /// When the run began, in milliseconds since 1970: its devices are its own.
    run: u64,
    next: Cell<u64>,
    done: Cell<u64>,
}

/// The readers of the crowd log in for so long.
pub(super) async fn measure(
    server: &Server,
    probe: &Probe,
    crowd: &Crowd,
    client: Client,
    time: Duration,
) -> Result<Logins> {
    let mut users = Vec::with_capacity(crowd.readers());
    for reader in 0..crowd.readers() {
        users.push(user(server, crowd, reader, client).await?);
    }
    let logins = Rc::new(Shared {
        address: server.address,
        users,
        run: SystemClock.now().0,
        next: Cell::new(0),
        done: Cell::new(0),
    });
    let resident = machine::resident_kib(server.process())?;
    let (before, started) = (probe.read()?, Instant::now());
    let mut workers = JoinSet::new();
    for worker in 0..TOGETHER {
        let logins = Rc::clone(&logins);
        workers.spawn_local(async move {
            let mut times = Histogram::default();
            while started.elapsed() < time {
                times.add(logins.log_in(worker).await?);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Histogram::default();
    while let Some(ended) = workers.join_next().await {
        times.join(&ended.context("a task failed")??);
    }
    let (time, used) = (started.elapsed(), before.until(&probe.read()?));
    let grown = machine::resident_kib(server.process())?;
    Ok(Logins {
        count: logins.done.get(),
        time,
        times,
        used,
        grown_kib: grown.cast_signed() - resident.cast_signed(),
    })
}

/// What the client of a reader knows.
async fn user(server: &Server, crowd: &Crowd, reader: usize, client: Client) -> Result<User> {
    let token = server.token(&driver::name(crowd.to, reader))?;
    if client == Client::New {
        return Ok(User {
            token,
            hello: Hello::default(),
            messages: crowd.messages * crowd.per_reader as u64,
        });
    }
    let known = fill::catch_up(server.address, &token, Hello::default()).await?;
    let writers = reader * crowd.per_reader..(reader + 1) * crowd.per_reader;
    let position = |writer| Position {
        peer: driver::name(crowd.from, writer),
        seq: crowd.messages,
    };
    Ok(User {
        token,
        hello: Hello {
            positions: writers.map(position).collect(),
            ..known.hello
        },
        messages: 0,
    })
}

impl Shared {
    /// The next user logs in; returns how long it takes.
    async fn log_in(&self, worker: usize) -> Result<Duration> {
        let number = self.next.replace(self.next.get() + 1);
        let user = &self.users[usize::try_from(number)? % self.users.len()];
        let mut hello = user.hello.clone();
        if !hello.sync_token.is_empty() {
            hello.device_id = Some(format!("{}-{worker}", self.run));
            hello.connect_number = Some(self.run + number);
        }
        let started = Instant::now();
        let known = fill::catch_up(self.address, &user.token, hello).await?;
        let time = started.elapsed();
        self.done.set(self.done.get() + 1);
        ensure!(
            known.messages == user.messages,
            "a login was shown {} messages, not {}",
            known.messages,
            user.messages
        );
        Ok(time)
    }
}
