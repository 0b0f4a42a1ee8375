//! What is stored before anything is measured: all of it through the door.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, Result};
use duologue_proto::chat::v1::{Hello, converse_response};
use tokio::time::Instant;

use crate::driver::{self, Line, Load, Member, To, Users, When};
use crate::machine::per_second;
use crate::say;
use crate::server::Server;
use crate::throughput::TEXT_BYTES;

/// Messages of each user in flight.
const WINDOW: usize = 16;
/// How often it is told how far a filling is.
const TELL: Duration = Duration::from_secs(5);

/// Many who write to users who are away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    /// Names of those who write, and of those who are away.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) writers: usize,
    /// So many write to the same one.
    pub(super) per_reader: usize,
    /// Messages of each.
    pub(super) messages: u64,
}

impl Crowd {
    pub(super) fn total(&self) -> u64 {
        self.messages * self.writers as u64
    }

    pub(super) fn readers(&self) -> usize {
        self.writers / self.per_reader
    }

    /// Stores what the crowd writes.
    pub(super) async fn write(&self, server: &Server) -> Result<()> {
        let names = (0..self.writers).map(|writer| {
            let reader = driver::name(self.to, writer / self.per_reader);
            (driver::name(self.from, writer), reader)
        });
        let members = server.members(names)?;
        fill(server, &members, self.messages, To::Away).await
    }
}

/// Stores so many messages in each conversation of two users, who both write half.
pub(super) async fn pairs(
    server: &Server,
    prefix: &str,
    pairs: usize,
    messages: u64,
) -> Result<()> {
    let members = server.members(driver::pairs(prefix, 2 * pairs))?;
    fill(server, &members, messages / 2, To::Peers).await
}

async fn fill(server: &Server, members: &[Member], messages: u64, to: To) -> Result<()> {
    let users = Users {
        addresses: &[server.address],
        members,
        per_connection: driver::per_connection(members.len()),
        text_bytes: TEXT_BYTES,
        messages,
        to,
    };
    let all = messages * members.len() as u64;
    let started = Instant::now();
    let mut load = Load::start(&users, When::Window(WINDOW)).await?;
    let (mut told, mut stored) = (started, None);
    load.complete(|counts| {
        if counts.stored == all {
            stored.get_or_insert_with(|| started.elapsed());
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let rate = per_second(counts.stored, started.elapsed());
            say(&format!(
                "stored {} of {all}, delivered {}, {rate:.0}/s",
                counts.stored, counts.delivered
            ));
        }
    })
    .await
    .context("cannot store what is to be measured")?;
    let (whole, stored) = (started.elapsed(), stored.unwrap_or_default());
    say(&format!(
        "stored {all}, {:.0}/s; the last was delivered {:.2} s later",
        per_second(all, stored),
        whole.saturating_sub(stored).as_secs_f64()
    ));
    Ok(())
}

/// What a client knows after it has caught up.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) hello: Hello,
    /// Messages that it was shown.
    pub(super) messages: u64,
}

/// Opens a session on a connection of its own and waits until it has caught up.
pub(super) async fn catch_up(address: SocketAddr, token: &str, hello: Hello) -> Result<Known> {
    let mut line = Line::open(address).await?;
    let mut known = Known::default();
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else matters here")]
    let take = |frame| {
        match frame {
            converse_response::Frame::Welcome(welcome) => {
                known.hello.history_id = welcome.history_id;
            }
            converse_response::Frame::MessageDelivered(_) => known.messages += 1,
            converse_response::Frame::CaughtUp(caught_up) => {
                known.hello.sync_token = caught_up.sync_token;
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    };
    line.converse(token, hello, take).await?;
    Ok(known)
}
