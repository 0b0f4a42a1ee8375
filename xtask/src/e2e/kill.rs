//! Ten kills in mid-conversation: nothing acknowledged is lost, nothing doubled,
//! and both clients go on by themselves.
//!
//! Each kill is SIGKILL while both users send as fast as answers come. The server
//! is stopped first, in the middle of whatever it does, so that what it has
//! answered can be counted; if too little is without an answer, it goes on, and so
//! does the talk. No kill counts that leaves fewer. The server then starts again on
//! the same data and the same port.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duologue_client::UserId;
use duologue_client::limits::EVENT_QUEUE;
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::Setup;
use super::server::{ANY_PORT, Server, token};
use super::side::{Side, ensure_same};

const KILLS: usize = 10;
/// Sends without an answer that make a kill count, of both users together.
const MIN_UNANSWERED: usize = 20;
/// Answers that each user has had since the last start before the next kill.
const MIN_ANSWERED: usize = 50;
/// A stopped server has said all it had said after as long without an event.
const STILL: Duration = Duration::from_millis(50);
/// How long the server may take to end once it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long it may be quiet while something is waited for. Longer than a client
/// waits between two tries.
const QUIET_LIMIT: Duration = Duration::from_mins(1);

/// Kills ten times; says what each kill met.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut server = start(setup, folder.path(), ANY_PORT).await?;
    let address = server.grpc();
    let mut talk = Talk::begin(setup, folder.path(), address).await?;

    for _ in 0..KILLS {
        talk.until_unanswered(&server).await?;
        server.kill()?;
        server.ended(END_LIMIT).await?;
        talk.notice().await?;
        server = start(setup, folder.path(), &address.to_string()).await?;
    }
    talk.settle().await?;
    ensure_same(&talk.sides).await?;
    Ok(talk.report())
}

/// Users are allowed to send as fast as they can, so that a kill meets a store that
/// is busy.
async fn start(setup: &Setup, folder: &Path, grpc: &str) -> Result<Server> {
    let listen = ["--grpc-listen", grpc, "--admin-listen", ANY_PORT];
    let rest = ["--data", "data", "--sends", "1000000/1000000"];
    Server::start(&setup.program, folder, &[&listen[..], &rest].concat()).await
}

/// Two users who talk to each other.
struct Talk {
    sides: [Side; 2],
    /// Whose event is taken first; it alternates, so that nobody is starved.
    turn: bool,
}

impl Talk {
    async fn begin(setup: &Setup, folder: &Path, server: SocketAddr) -> Result<Self> {
        let (alice, bob) = (UserId::parse("alice")?, UserId::parse("bob")?);
        let for_alice = token(&setup.program, folder, "alice").await?;
        let for_bob = token(&setup.program, folder, "bob").await?;
        Ok(Self {
            sides: [
                Side::start(server, for_alice, alice.clone(), bob.clone()).await?,
                Side::start(server, for_bob, bob, alice).await?,
            ],
            turn: false,
        })
    }

    /// Stops the server at a moment when enough is not answered.
    async fn until_unanswered(&mut self, server: &Server) -> Result<()> {
        loop {
            self.flow().await?;
            server.signal("STOP").await?;
            self.listen().await?;
            if self.unanswered() >= MIN_UNANSWERED {
                return Ok(());
            }
            server.signal("CONT").await?;
        }
    }

    /// Talks for a while, and returns right after a burst, behind which older sends
    /// are in every state.
    async fn flow(&mut self) -> Result<()> {
        loop {
            self.take_event().await?;
            self.take_waiting()?;
            // Both together: neither leaves the other behind.
            if !self.sides.iter().all(Side::has_room) {
                continue;
            }
            let [alice, bob] = &mut self.sides;
            tokio::try_join!(alice.send_burst(), bob.send_burst())?;
            let talking =
                |side: &Side| side.is_connected() && side.answered_since() >= MIN_ANSWERED;
            if self.sides.iter().all(talking) {
                return Ok(());
            }
        }
    }

    /// Takes what a stopped server has said.
    async fn listen(&mut self) -> Result<()> {
        while let Ok(taken) = timeout(STILL, self.take_event()).await {
            taken?;
        }
        Ok(())
    }

    /// Takes what came before the kill, until both clients have noticed it.
    async fn notice(&mut self) -> Result<()> {
        while self.sides.iter().any(Side::is_connected) {
            self.take_event().await?;
        }
        let unanswered = self.unanswered();
        ensure!(
            unanswered >= MIN_UNANSWERED,
            "a kill met only {unanswered} sends without an answer: it shows nothing"
        );
        for side in &mut self.sides {
            side.mark_lost();
        }
        Ok(())
    }

    /// Sends no more, and waits until everything is answered and shown.
    async fn settle(&mut self) -> Result<()> {
        while !self.sides.iter().all(Side::is_settled) {
            self.take_event().await?;
        }
        let head = self.sides[0].head().await?;
        while self.sides.iter().any(|side| side.shown() < head) {
            self.take_event().await?;
        }
        Ok(())
    }

    fn unanswered(&self) -> usize {
        self.sides.iter().map(Side::unanswered).sum()
    }

    /// Waits for an event of either user and takes it.
    async fn take_event(&mut self) -> Result<()> {
        let (one, other) = self.in_turn();
        let taken = timeout(QUIET_LIMIT, async {
            tokio::select! {
                biased;
                event = one.next_event() => one.take(event?),
                event = other.next_event() => other.take(event?),
            }
        });
        let Ok(taken) = taken.await else {
            bail!(
                "nothing happens for {} s; alice: {}; bob: {}",
                QUIET_LIMIT.as_secs(),
                self.sides[0],
                self.sides[1]
            );
        };
        taken
    }

    /// Takes what need not be waited for, so that the record is up to date.
    fn take_waiting(&mut self) -> Result<()> {
        for side in &mut self.sides {
            for _ in 0..EVENT_QUEUE {
                let Some(event) = side.next_event().now_or_never() else {
                    break;
                };
                side.take(event?)?;
            }
        }
        Ok(())
    }

    /// Both users; another one first each time.
    fn in_turn(&mut self) -> (&mut Side, &mut Side) {
        self.turn = !self.turn;
        let [alice, bob] = &mut self.sides;
        if self.turn {
            (alice, bob)
        } else {
            (bob, alice)
        }
    }

    fn report(&self) -> String {
        let messages: usize = self.sides.iter().map(Side::sent).sum();
        let mut report = format!(
            "{messages} messages, {KILLS} kills; none lost, none twice, one order without gaps"
        );
        let [alice, bob] = self.sides.each_ref().map(Side::tallies);
        for (kill, (alice, bob)) in (1..).zip(alice.iter().zip(&bob)) {
            // Writing to a string does not fail.
            let _ = write!(
                report,
                "\n  kill {kill}: {} sends unanswered (alice {}, bob {}); {} of them were stored",
                alice.unanswered + bob.unanswered,
                alice.unanswered,
                bob.unanswered,
                alice.stored + bob.stored
            );
        }
        report
    }
}
