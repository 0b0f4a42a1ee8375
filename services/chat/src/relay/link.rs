//! What is on its way to one incarnation of another node: decides, and does no I/O.
//!
//! A batch that was sent is kept, as it is and with its number, until it is answered:
//! a stream that breaks loses nothing. There is never more than a few of them;
//! everything else waits in a bounded buffer, which widens.

use std::collections::VecDeque;
use std::time::Duration;

use duologue_proto::ids::{SessionId, UserId};
use duologue_proto::presence::Route;
use tokio::time::Instant;

use super::backoff;
use super::news::{Batch, Buffer, News};

/// Batches that wait for their answer; further news wait to be sent.
pub const MAX_IN_FLIGHT: usize = 8;
/// Bytes of a batch, about.
pub const BATCH_BYTES: usize = 256 * 1024;
/// The longest first pause before a stream that broke is opened again.
pub const LINK_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before any is.
pub const MAX_LINK_PAUSE: Duration = Duration::from_secs(2);
/// A batch that is not answered for so long makes the sender ask whether the peer
/// lives, and open another stream if it is still missing then.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What is on its way to one incarnation of another node.
#[derive(Debug, Default)]
pub(crate) struct Link {
    waiting: Buffer,
    /// In order of number.
    in_flight: VecDeque<Flight>,
    /// Of those, how many were sent on the stream that there is.
    sent: usize,
    last_number: u64,
    failures: u32,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    batch: Batch,
    /// When it was last sent.
    sent_at: Instant,
}

/// An answer to nothing that was asked.
#[derive(Debug)]
pub(crate) struct Unexpected;

impl Link {
    /// Takes news of a user whose sessions are believed to be there. Returns whether
    /// something was widened.
    pub(crate) fn add(&mut self, user: &UserId, news: News, routes: Vec<Route>) -> bool {
        self.waiting.add(user, news, routes)
    }

    /// Takes "everyone should sync".
    pub(crate) fn add_everyone(&mut self) {
        self.waiting.widen_to_everyone();
    }

    /// Whether everything was answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty()
    }

    /// There is a new stream: what was not answered is to be sent again.
    pub(crate) fn opened(&mut self) {
        self.sent = 0;
    }

    /// What is to be sent next, if anything may be sent now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(u64, &Batch)> {
        if self.sent == self.in_flight.len() {
            if self.in_flight.len() >= MAX_IN_FLIGHT || self.waiting.is_empty() {
                return None;
            }
            self.last_number += 1;
            self.in_flight.push_back(Flight {
                number: self.last_number,
                batch: self.waiting.take(BATCH_BYTES),
                sent_at: now,
            });
        }
        let flight = self.in_flight.get_mut(self.sent)?;
        self.sent += 1;
        flight.sent_at = now;
        Some((flight.number, &flight.batch))
    }

    /// The oldest batch was answered. Returns the routes of what is not there.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        not_here: &[(UserId, SessionId)],
    ) -> Result<Vec<Route>, Unexpected> {
        let oldest = self.in_flight.front().map(|flight| flight.number);
        if self.sent == 0 || oldest != Some(number) {
            return Err(Unexpected);
        }
        self.sent -= 1;
        self.failures = 0;
        let flight = self.in_flight.pop_front().ok_or(Unexpected)?;
        let entries = flight.batch.users.into_iter().map(|(_, entry)| entry);
        let routes = entries.flat_map(|entry| entry.routes);
        let gone = |route: &Route| {
            let mut named = not_here.iter();
            named.any(|(user, session)| *user == route.user && *session == route.session)
        };
        Ok(routes.filter(gone).collect())
    }

    /// The stream broke, or could not be opened. Returns how long to wait before the
    /// next try; `random` spreads it.
    pub(crate) fn broke(&mut self, random: u64) -> Duration {
        self.sent = 0;
        let pause = backoff(random, LINK_PAUSE, MAX_LINK_PAUSE, self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Whether the oldest batch should have been answered by now.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.in_flight
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(oldest.sent_at) >= ANSWER_TIMEOUT)
    }

    /// Everywhere that sessions are believed to be: the incarnation is over.
    pub(crate) fn into_routes(self) -> Vec<Route> {
        let sent = self.in_flight.into_iter().flat_map(|one| one.batch.users);
        let sent = sent.flat_map(|(_, entry)| entry.routes);
        sent.chain(self.waiting.into_routes()).collect()
    }
}
