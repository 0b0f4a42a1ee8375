//! `bench store`: what depends on how much is stored, or on how much was missed.
//!
//! The same is measured with little stored and with much, in one run on one data
//! directory, so that what grows shows.

mod fill;
mod logins;
mod missed;
mod pages;
mod start;
mod tables;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use duologue_proto::chat::v1::Hello;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use self::fill::Crowd;
use self::logins::{Client, Logins};
use self::missed::Missed;
use self::pages::Pages;
use self::start::Starts;
use crate::driver;
use crate::options::Subject;
use crate::server::{Kind, Place, Server};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subject: Subject,
    /// How many messages are stored in the end
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
    /// In how many conversations most of them are
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// How many pages of each kind are read
    #[arg(long, default_value_t = 5_000)]
    pages: usize,
    /// Seconds of logins
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// A conversation of few messages, and a long one.
const FEW: Pages = Pages {
    name: "a conversation of 10, newest",
    prefix: "few",
    pairs: 1,
    messages: 10,
    place: pages::Place::Newest,
};
const LONG: Pages = Pages {
    name: "a conversation of 10,000, newest",
    prefix: "long",
    messages: 10_000,
    ..FEW
};
const LONG_MIDDLE: Pages = Pages {
    name: "a conversation of 10,000, in the middle",
    place: pages::Place::Middle,
    ..LONG
};
/// Users with ten conversations each.
const FRIENDS: Crowd = Crowd {
    from: "friend",
    to: "member",
    writers: 1_000,
    per_reader: 10,
    messages: 1,
};
/// Who writes to the one user that was away.
const MISSED: Crowd = Crowd {
    from: "writer",
    to: "away",
    writers: 1_000,
    per_reader: 1_000,
    messages: 100,
};

/// What was seen with so much stored.
#[derive(Debug)]
struct Seen {
    stored: u64,
    starts: Starts,
    pages: Vec<(Pages, u64, pages::Times)>,
    logins: Vec<(Client, Logins)>,
}

/// Measures and prints.
pub(crate) fn run(runtime: &Runtime, options: &Options) -> Result<()> {
    let least = FEW.messages + LONG.messages + FRIENDS.total() + MISSED.total();
    let pairs = usize::from(options.pairs);
    let rest = options.messages.saturating_sub(least);
    let each = rest / (2 * pairs as u64);
    ensure!(
        each * 2 >= 50,
        "--messages must be at least {}, so that every conversation has a page",
        least + 50 * pairs as u64
    );
    let (_folder, place) = options.subject.place()?;
    let many = Pages {
        name: "every conversation in turn, newest",
        prefix: "many",
        pairs,
        messages: 2 * each,
        ..LONG
    };
    let bench = Bench {
        options,
        place,
        many,
    };
    LocalSet::new().block_on(runtime, bench.run())
}

struct Bench<'a> {
    options: &'a Options,
    place: Place,
    /// The conversations that hold most of what is stored.
    many: Pages,
}

impl Bench<'_> {
    async fn run(&self) -> Result<()> {
        let mut server = Server::start(Kind::Duologue, &self.place)?;
        let (little, hello) = self.with_little(&mut server).await?;
        let much = self.with_much(&mut server, little.stored).await?;
        tables::starts([(0, &little.starts), (much.stored, &much.starts)]);
        tables::pages(&little, &much);
        tables::logins(&[&little, &much]);
        tables::missed(&self.missed(&server, hello).await?);
        Ok(())
    }

    /// Also what the user knows who is away from then on.
    async fn with_little(&self, server: &mut Server) -> Result<(Seen, Hello)> {
        let starts = start::measure(server, &self.place).context("with nothing stored")?;
        self.fill_pairs(server, &FEW).await?;
        let mut pages = vec![self.pages(server, &FEW, FEW.messages).await?];
        self.fill_pairs(server, &LONG).await?;
        FRIENDS.write(server).await?;
        let stored = FEW.messages + LONG.messages + FRIENDS.total();
        for kind in [LONG, LONG_MIDDLE] {
            pages.push(self.pages(server, &kind, stored).await?);
        }
        let logins = self.logins(server).await?;
        let away = server.token(&driver::name(MISSED.to, 0))?;
        let known = fill::catch_up(server.address, &away, Hello::default()).await?;
        let seen = Seen {
            stored,
            starts,
            pages,
            logins,
        };
        Ok((seen, known.hello))
    }

    async fn with_much(&self, server: &mut Server, stored: u64) -> Result<Seen> {
        MISSED.write(server).await?;
        self.fill_pairs(server, &self.many).await?;
        let many = self.many.messages * self.many.pairs as u64;
        let stored = stored + MISSED.total() + many;
        let starts = start::measure(server, &self.place).context("with much stored")?;
        let mut pages = Vec::new();
        for kind in [FEW, LONG, LONG_MIDDLE, self.many] {
            pages.push(self.pages(server, &kind, stored).await?);
        }
        Ok(Seen {
            stored,
            starts,
            pages,
            logins: self.logins(server).await?,
        })
    }

    async fn fill_pairs(&self, server: &Server, kind: &Pages) -> Result<()> {
        fill::pairs(server, kind.prefix, kind.pairs, kind.messages).await
    }

    async fn pages(
        &self,
        server: &Server,
        kind: &Pages,
        stored: u64,
    ) -> Result<(Pages, u64, pages::Times)> {
        let probe = server.probe(&self.place)?;
        let times = pages::measure(server, &probe, kind, self.options.pages)
            .await
            .with_context(|| format!("pages of {}", kind.name))?;
        Ok((*kind, stored, times))
    }

    async fn logins(&self, server: &Server) -> Result<Vec<(Client, Logins)>> {
        let time = Duration::from_secs(self.options.seconds);
        let probe = server.probe(&self.place)?;
        let mut logins = Vec::new();
        for client in [Client::New, Client::Returning] {
            let seen = logins::measure(server, &probe, &FRIENDS, client, time)
                .await
                .with_context(|| format!("logins of {client:?}"))?;
            logins.push((client, seen));
        }
        Ok(logins)
    }

    /// Twice without anything known, to see whether memory comes back, and once with
    /// the token of before.
    async fn missed(&self, server: &Server, hello: Hello) -> Result<Vec<(&'static str, Missed)>> {
        let probe = server.probe(&self.place)?;
        let mut seen = Vec::new();
        for (name, hello) in [
            ("nothing", Hello::default()),
            ("nothing, again", Hello::default()),
            ("the token of before", hello),
        ] {
            let missed = missed::measure(server, &probe, &MISSED, hello)
                .await
                .with_context(|| format!("a catch-up of who knows {name}"))?;
            seen.push((name, missed));
        }
        Ok(seen)
    }
}
