//! SIGKILL under load, at random moments and at named points, again and again: the
//! server starts anew on the same data and port, the clients go on by themselves,
//! and the checker judges the record.
//!
//! A kill counts only if it met something: messages on their way, without an answer.
//! While the store is opened the server has no clients yet; what such a kill meets
//! are the messages that wait for it to come back. The number that is asked for is
//! of kills that count, and every kind must have met and must have taken an answer:
//! of what it met, something is answered as a duplicate later.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conformance::driver::Kind as Clients;
use conformance::event::Event;
use duologue_client::{Environment as _, SystemEnvironment, UnixMillis};
use tokio::time::{Instant, sleep};

use super::Setup;
use super::dice::Dice;
use super::load::{Load, Serving, drive};
use super::server::{Server, is_alive};
use super::tally::Tally;
use super::tracer::Tracer;

/// Kills of one record.
const KILLS_PER_RUN: usize = 10;
/// How long clients do what they like in a run: its kills, and time to recover.
const WILD: Duration = Duration::from_secs(14);
/// Nothing is killed any more so long before that ends.
const MARGIN: Duration = Duration::from_secs(1);
/// Runs at most, of those that would do if every kill counted.
const MAX_RUNS_FACTOR: usize = 2;
/// How long a server may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked at whether the server lives.
const POLL: Duration = Duration::from_millis(1);
/// Events that come between a start and a kill at a random moment.
const FLOW: (u64, u64) = (100, 700);
/// Syncs, commits or announcements that are passed before the one that is meant.
const PASSED: (u64, u64) = (10, 60);
/// Points that are passed while an existing store is opened, and a new one is made.
const OPENING: (u64, u64) = (3, 6);
const SIGKILL: i32 = 9;

/// When the server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Random,
    Written,
    Committed,
    Answered,
    Opening,
}

impl Moment {
    const ALL: [Self; 5] = [
        Self::Random,
        Self::Written,
        Self::Committed,
        Self::Answered,
        Self::Opening,
    ];

    /// As it stands in the record.
    const fn name(self) -> &'static str {
        match self {
            Self::Random => "at a random moment",
            Self::Written => "in mid-group-commit",
            Self::Committed => "between commit and answer",
            Self::Answered => "between answer and push",
            Self::Opening => "while opening the store",
        }
    }

    /// The point of the build with faults; none: it is killed from the outside.
    const fn point(self) -> Option<&'static str> {
        match self {
            Self::Random | Self::Written => None,
            Self::Committed => Some("committed"),
            Self::Answered => Some("answered"),
            Self::Opening => Some("opening"),
        }
    }
}

/// Kills until so many have counted, and each kind of them has shown something; says
/// what each met.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let kills = setup.kills;
    let runs = kills.div_ceil(KILLS_PER_RUN);
    let kinds = Moment::ALL.map(Moment::name);
    let mut all = Tally::default();
    let mut seeds = Vec::new();
    for number in 0..runs * MAX_RUNS_FACTOR {
        if all.counted() >= kills && all.ensure_no_zero(kinds).is_ok() {
            break;
        }
        let kind = if number % 2 == 0 {
            Clients::Stubs
        } else {
            Clients::Client
        };
        let seed = setup.seed.wrapping_add(u64::try_from(number)?);
        let load = Load::new(kind, seed, WILD);
        let tally = run_one(setup, &load)
            .await
            .with_context(|| format!("kills of {} with seed {seed} failed", load.name()))?;
        crate::say(&format!("  {} with seed {seed}: {tally}", load.name()));
        all.add(tally);
        seeds.push(seed);
    }
    let counted = all.counted();
    ensure!(
        counted >= kills,
        "only {counted} of {kills} kills have met anything: {all}"
    );
    all.ensure_no_zero(kinds)?;
    Ok(format!(
        "{counted} kills that counted, every promise kept; seeds {seeds:?}; {all}"
    ))
}

/// One record, on a history of its own.
async fn run_one(setup: &Setup, load: &Load) -> Result<Tally> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut run = Run {
        setup,
        load,
        serving: Serving::new(folder.path()),
        dice: Dice::new(load.seed),
        ends: Instant::now(),
        deaths: Vec::new(),
    };
    let mut moments: Vec<Moment> = (0..KILLS_PER_RUN)
        .map(|number| Moment::ALL[number % Moment::ALL.len()])
        .collect();
    run.dice.shuffle(&mut moments);
    // Something must have been there before a store is opened again.
    let first = moments.iter().position(|moment| *moment != Moment::Opening);
    moments.swap(0, first.unwrap_or(0));

    let place = run.dice.between(1, OPENING.1);
    run.killed_opening(place)
        .await
        .context("while the store was made")?;
    let server = run.start(moments.first().copied()).await?;
    run.ends = Instant::now() + WILD - MARGIN;
    let addresses = [server.grpc()];
    let breaks = run.kill_all(server, &moments);
    let loads = std::slice::from_ref(load);
    let data = folder.path().join("data");
    let place = (addresses.as_slice(), data.as_path());
    let ((server, deaths), records) = drive(loads, place, breaks, &setup.records).await?;
    drop(server);
    Tally::of(&records, &deaths)
}

struct Run<'a> {
    setup: &'a Setup,
    load: &'a Load,
    serving: Serving,
    dice: Dice,
    /// No kill is begun later.
    ends: Instant,
    /// When each server had ended that the record says was killed.
    deaths: Vec<UnixMillis>,
}

impl Run<'_> {
    /// Kills at every moment, as far as there is time; returns a server that lives.
    async fn kill_all(
        mut self,
        mut server: Server,
        moments: &[Moment],
    ) -> Result<(Server, Vec<UnixMillis>)> {
        let mut moments = moments.iter().copied();
        let mut next = moments.next();
        while let Some(moment) = next {
            self.kill(&mut server, moment).await?;
            self.deaths.push(SystemEnvironment.now());
            next = moments.next();
            while next == Some(Moment::Opening) {
                let place = self.dice.between(1, OPENING.0);
                self.killed_opening(place).await?;
                self.note(Moment::Opening);
                self.deaths.push(SystemEnvironment.now());
                next = moments.next();
            }
            if Instant::now() >= self.ends {
                next = None;
            }
            server = self.start(next).await?;
            self.load.recorder.note(Event::Heal);
        }
        Ok((server, self.deaths))
    }

    /// Starts a server that will be killed then.
    async fn start(&mut self, next: Option<Moment>) -> Result<Server> {
        let Some(point) = next.and_then(Moment::point) else {
            return self.serving.start(&self.setup.program, &[]).await;
        };
        let count = self.dice.between(PASSED.0, PASSED.1);
        let told = format!("{point}:{count}");
        let environment = [("DUOLOGUE_KILL_AT", told.as_str())];
        self.serving.start(&self.setup.faulty, &environment).await
    }

    /// Kills a server that is under load, or sees it killed.
    async fn kill(&mut self, server: &mut Server, moment: Moment) -> Result<()> {
        let mut sure = moment == Moment::Random;
        let flow = self.dice.between(FLOW.0, FLOW.1);
        if sure {
            self.load.flows(flow, self.ends).await;
        } else {
            let tracer = match moment {
                Moment::Written => Some(self.break_sync(server).await?),
                Moment::Random | Moment::Committed | Moment::Answered | Moment::Opening => None,
            };
            // Without time for it, it becomes a kill at a random moment.
            sure = !self.dies(server, moment).await;
            drop(tracer);
        }
        if sure {
            self.note(Moment::Random);
            server.kill()?;
        }
        was_killed(server).await
    }

    /// The process will end when it syncs for the so manieth time from now.
    async fn break_sync(&mut self, server: &Server) -> Result<Tracer> {
        let count = self.dice.between(PASSED.0, PASSED.1);
        let change = format!("signal=SIGKILL:when={count}");
        Tracer::attach(server.process(), &change).await
    }

    /// Waits until the server dies, and notes it at a place at which it was alive.
    async fn dies(&self, server: &Server, moment: Moment) -> bool {
        let mut alive = self.load.recorder.reserve();
        while Instant::now() < self.ends {
            let place = self.load.recorder.reserve();
            if !is_alive(server.process()) {
                let what = moment.name().into();
                self.load.recorder.note_at(alive, Event::Kill { what });
                return true;
            }
            alive = place;
            sleep(POLL).await;
        }
        false
    }

    /// Starts a server that is killed while it opens or makes the store.
    async fn killed_opening(&self, place: u64) -> Result<()> {
        let told = format!("opening:{place}");
        let environment = [("DUOLOGUE_KILL_AT", told.as_str())];
        let mut server = self.serving.spawn(&self.setup.faulty, &environment)?;
        was_killed(&mut server).await
    }

    fn note(&self, moment: Moment) {
        let what = moment.name().into();
        self.load.recorder.note(Event::Kill { what });
    }
}

/// It has ended, and not by itself.
async fn was_killed(server: &mut Server) -> Result<()> {
    let status = server.ended(END_LIMIT).await?;
    ensure!(
        status.signal() == Some(SIGKILL),
        "the server was to be killed and ended with {status}"
    );
    Ok(())
}
