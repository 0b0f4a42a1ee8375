//! How long a page of a conversation takes, one after another on one connection.

use anyhow::{Result, ensure};
use duologue_proto::chat::v1::{ListMessagesRequest, ListMessagesResponse};
use tokio::time::Instant;

use crate::driver::{self, Line};
use crate::histogram::Histogram;
use crate::probe::{Probe, Use};
use crate::server::Server;

/// Messages of a page.
const PAGE: u32 = 50;
/// Pages that are read before any is measured.
const WARM: usize = 200;

/// Which pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    pub(super) name: &'static str,
    /// The conversations: of pairs with such names.
    pub(super) prefix: &'static str,
    pub(super) pairs: usize,
    /// How many messages each of them has.
    pub(super) messages: u64,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Newest,
    Middle,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) times: Histogram,
    pub(super) used: Use,
}

/// A user and what it asks.
struct Question {
    token: String,
    request: ListMessagesRequest,
}

/// Reads so many pages, of each conversation in turn.
pub(super) async fn measure(
    server: &Server,
    probe: &Probe,
    pages: &Pages,
    count: usize,
) -> Result<Times> {
    let questions: Vec<Question> = (0..pages.pairs)
        .map(|pair| pages.question(server, pair))
        .collect::<Result<_>>()?;
    let mut line = Line::open(server.address).await?;
    let mut times = Histogram::default();
    let mut before = probe.read()?;
    for (at, question) in questions.iter().cycle().take(WARM + count).enumerate() {
        if at == WARM {
            before = probe.read()?;
        }
        let started = Instant::now();
        let answer: ListMessagesResponse = line
            .ask("ListMessages", &question.token, &question.request)
            .await?;
        if at >= WARM {
            times.add(started.elapsed());
        }
        ensure!(
            answer.head == pages.messages && answer.messages.len() as u64 == pages.expected(),
            "a page of {} messages, the head is {}",
            answer.messages.len(),
            answer.head
        );
    }
    Ok(Times {
        times,
        used: before.until(&probe.read()?),
    })
}

impl Pages {
    fn question(&self, server: &Server, pair: usize) -> Result<Question> {
        let (user, peer) = (2 * pair, 2 * pair + 1);
        Ok(Question {
            token: server.token(&driver::name(self.prefix, user))?,
            request: ListMessagesRequest {
                peer: driver::name(self.prefix, peer),
                page_size: PAGE.cast_signed(),
                before_seq: self.before(),
                ..ListMessagesRequest::default()
            },
        })
    }

    fn before(&self) -> Option<u64> {
        (self.place == Place::Middle).then_some(self.messages / 2)
    }

    /// How many messages a page has.
    fn expected(&self) -> u64 {
        let there = self.before().map_or(self.messages, |seq| seq - 1);
        there.min(PAGE.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_there_is_before_it() {
        let pages = |messages, place| Pages {
            name: "",
            prefix: "",
            pairs: 1,
            messages,
            place,
        };
        assert_eq!(pages(10, Place::Newest).expected(), 10);
        assert_eq!(pages(10_000, Place::Newest).expected(), 50);
        assert_eq!(pages(10_000, Place::Middle).before(), Some(5_000));
        assert_eq!(pages(10_000, Place::Middle).expected(), 50);
        assert_eq!(pages(40, Place::Middle).expected(), 19);
    }
}
