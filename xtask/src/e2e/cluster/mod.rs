//! Two of each service as real processes, on DynamoDB Local, under load through both
//! chat nodes and, by every door, both gateways, while one thing after another is broken;
//! the checker judges each record.
//!
//! A fault counts only if it met something: messages on their way, without an answer.

mod link;
mod probe;
mod process;
mod system;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conformance::driver::Kind as Clients;
use conformance::event::{Event, Way};
use duologue_client::{Environment as _, SystemEnvironment};
use duologue_proto::chat::v1::Availability;
use tokio::time::{Instant, sleep};

use self::probe::{HONEST_WITHIN, Probe};
use self::system::{Service, System};
use super::Setup;
use super::dice::Dice;
use super::load::{Load, drive, note};
use super::tally::{TRIES, Tally, until_enough};

/// Time for clients to do what they like before the first fault and after the last: to
/// send again what a dead node has stored and not relayed, too. Nothing else would show it
/// before the next sync.
const AROUND: Duration = Duration::from_secs(5);
/// What one strike may take, its recovery included, before the next.
const STRIKE: Duration = Duration::from_secs(8);
/// Events before a strike.
const FLOW: (u64, u64) = (200, 700);
/// Kills of one service, of which some must have met something.
const MANY_KILLS: usize = 10;
/// How long a killed process is away.
const AWAY_MILLIS: (u64, u64) = (0, 2_000);
/// How long a chat node stands still: longer than its lease lives.
const PAUSE: Duration = Duration::from_secs(20);
/// How long the chat nodes do not reach each other.
const CUT: Duration = Duration::from_secs(8);
/// For the end of a record, whatever had been done.
const RECOVERY: Duration = Duration::from_mins(2);
/// How long what stands still takes to meet what is sent to it.
const MEETS: Duration = Duration::from_millis(500);
/// How long DynamoDB is away.
const OUTAGE: Duration = Duration::from_secs(15);

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill(Service),
    Pause,
    Cut,
    Outage,
    Roll,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Kill(Service::Gateway),
        Self::Kill(Service::Chat),
        Self::Kill(Service::History),
        Self::Kill(Service::Presence),
        Self::Pause,
        Self::Cut,
        Self::Outage,
        Self::Roll,
    ];

    /// As it stands in the record.
    const fn name(self) -> &'static str {
        match self {
            Self::Kill(Service::Gateway) => "at a gateway",
            Self::Kill(Service::Chat) => "at chat",
            Self::Kill(Service::History) => "at history",
            Self::Kill(Service::Presence) => "at presence",
            Self::Pause => "(SIGSTOP of a chat node)",
            Self::Cut => "(a cut between the chat nodes)",
            Self::Outage => "(DynamoDB away)",
            Self::Roll => "(a rolling restart)",
        }
    }

    /// How often it strikes in one record.
    fn strikes(self, kills: usize) -> usize {
        match self {
            Self::Kill(_) => kills,
            Self::Pause | Self::Cut | Self::Outage | Self::Roll => 1,
        }
    }

    /// How long one strike may take at most.
    fn lasts(self) -> Duration {
        match self {
            Self::Kill(Service::Chat) => HONEST_WITHIN + STRIKE,
            Self::Kill(Service::Gateway | Service::History | Service::Presence) => STRIKE,
            Self::Pause => PAUSE + STRIKE,
            Self::Cut => CUT + STRIKE,
            Self::Outage => OUTAGE + STRIKE,
            // Eight processes, each with its drain.
            Self::Roll => STRIKE * 8,
        }
    }

    /// Whether a send without an answer must be met. What answers nobody takes no answer
    /// away, and few kills may meet nothing: of a history that is quick, or of a gateway,
    /// by which some of the devices of one record come.
    fn must_meet(self, kills: usize) -> bool {
        match self {
            Self::Kill(Service::Chat) | Self::Pause | Self::Outage => true,
            Self::Kill(Service::Gateway | Service::History) => kills >= MANY_KILLS,
            Self::Kill(Service::Presence) | Self::Cut | Self::Roll => false,
        }
    }

    /// Fails unless it has met what it must; of a kill, some must have been stored, and
    /// their retries be duplicates.
    fn ensure_shown(self, tally: &Tally, kills: usize) -> Result<()> {
        match self {
            _ if !self.must_meet(kills) => Ok(()),
            Self::Kill(_) => tally.ensure_no_zero([self.name()]),
            Self::Pause | Self::Cut | Self::Outage | Self::Roll => tally.ensure_met([self.name()]),
        }
    }
}

/// How long all of it may take.
pub(super) fn limit(setup: &Setup) -> Duration {
    let faults = Fault::ALL.into_iter().map(|fault| {
        let strikes = u32::try_from(fault.strikes(setup.cluster_kills)).unwrap_or(u32::MAX);
        fault.lasts().saturating_mul(strikes) + RECOVERY
    });
    faults.sum::<Duration>() * u32::try_from(TRIES).unwrap_or(u32::MAX) + RECOVERY
}

/// Breaks one thing after another; says what each met.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let mut system = System::start(setup).await?;
    let mut all = Tally::default();
    for (number, fault) in (0_u64..).zip(Fault::ALL) {
        let seed = setup.seed.wrapping_add(100 * number);
        let run = async |seed| {
            let tally = strike(setup, &mut system, fault, seed)
                .await
                .with_context(|| format!("{fault:?} with seed {seed} failed"))?;
            crate::say(&format!("  {fault:?}: {tally}"));
            Ok(tally)
        };
        let ensure_shown = |met: &Tally| fault.ensure_shown(met, setup.cluster_kills);
        all.add(until_enough(seed, run, ensure_shown).await?);
    }
    system.stop().await?;
    Ok(format!("every promise kept; seed {}; {all}", setup.seed))
}

/// One record.
async fn strike(setup: &Setup, system: &mut System, fault: Fault, seed: u64) -> Result<Tally> {
    let strikes = fault.strikes(setup.cluster_kills);
    let wild = AROUND * 2 + fault.lasts() * u32::try_from(strikes)?;
    // Every message is a call or more of DynamoDB Local, which is slow.
    let few = |load: Load| Load {
        users: 5,
        devices: 2,
        ..load
    };
    let by_every_door = Load {
        ways: Way::ALL.to_vec(),
        gateways: system.gateways(),
        ..Load::new(Clients::Stubs, seed, wild)
    };
    let loads = [
        few(by_every_door),
        few(Load::new(Clients::Client, seed.wrapping_add(1), wild)),
    ];
    let addresses = system.chat_addresses();
    let keys = system.keys();
    let breaks = async {
        let mut dice = Dice::new(seed);
        let mut deaths = Vec::new();
        for number in 0..strikes {
            let flow = dice.between(FLOW.0, FLOW.1);
            for load in &loads {
                load.flows(flow, Instant::now() + STRIKE).await;
            }
            deaths.push(do_one(system, fault, number, (&loads, &mut dice)).await?);
            note(&loads, &Event::Heal);
        }
        Ok(deaths)
    };
    let place = (addresses.as_slice(), keys.as_path());
    let (deaths, records) = drive(&loads, place, breaks, &setup.records).await?;
    Tally::of(&records, &deaths)
}

/// Strikes once and heals; returns when the thing was broken.
async fn do_one(
    system: &mut System,
    fault: Fault,
    number: usize,
    (loads, dice): (&[Load], &mut Dice),
) -> Result<duologue_client::UnixMillis> {
    let noted = || {
        note(
            loads,
            &Event::Kill {
                what: fault.name().into(),
            },
        );
    };
    let broken = match fault {
        Fault::Kill(service) => {
            let away = Duration::from_millis(dice.between(AWAY_MILLIS.0, AWAY_MILLIS.1));
            let shown = match service {
                Service::Chat => Availability::Offline,
                Service::Gateway | Service::History | Service::Presence => Availability::Online,
            };
            let probe = system.probe(number).await?;
            noted();
            system.kill(service, number).await?;
            let (broken, began) = (SystemEnvironment.now(), Instant::now());
            // Else a chat node is back while the lease of its start before still counts.
            let stays_away = service == Service::Chat && [0, 3].contains(&(number % 4));
            if stays_away {
                system.is_honest(&probe, number, shown, began).await?;
            }
            sleep(away).await;
            system.start_again(service, number).await?;
            if !stays_away {
                system.is_honest(&probe, number, shown, began).await?;
            }
            broken
        }
        Fault::Pause => {
            let probe = system.probe(number).await?;
            system.signal_chat(number, "STOP").await?;
            let broken = SystemEnvironment.now();
            let began = Instant::now();
            sleep(MEETS).await;
            noted();
            let offline = Availability::Offline;
            system.is_honest(&probe, number, offline, began).await?;
            sleep(PAUSE.saturating_sub(began.elapsed())).await;
            system.signal_chat(number, "CONT").await?;
            broken
        }
        Fault::Cut => {
            noted();
            let broken = SystemEnvironment.now();
            system.cut();
            sleep(CUT).await;
            system.mend();
            broken
        }
        Fault::Outage => {
            system.dynamodb().kill().await?;
            let broken = SystemEnvironment.now();
            sleep(MEETS).await;
            noted();
            sleep(OUTAGE.saturating_sub(MEETS)).await;
            system.dynamodb().start_again().await?;
            broken
        }
        Fault::Roll => {
            noted();
            let broken = SystemEnvironment.now();
            system.roll().await?;
            broken
        }
    };
    system.all_ready().await?;
    Ok(broken)
}

impl System {
    /// A user who is online on the chat node that is struck next.
    async fn probe(&self, number: usize) -> Result<Probe> {
        let [node, other] = self.struck_and_other(number);
        let user = format!("probe-{number}-{}", SystemEnvironment.now().0);
        Probe::connect((self.program(), &self.keys()), &user, node, other).await
    }

    /// The other node must show the user rightly soon after a strike.
    async fn is_honest(
        &self,
        probe: &Probe,
        number: usize,
        wanted: Availability,
        struck: Instant,
    ) -> Result<()> {
        let [_, other] = self.struck_and_other(number);
        let left = HONEST_WITHIN.saturating_sub(struck.elapsed());
        probe.shown(other, wanted, left).await?;
        let took = struck.elapsed();
        ensure!(took <= HONEST_WITHIN, "{wanted:?} was shown after {took:?}");
        crate::say(&format!("  {wanted:?} after {:.1} s", took.as_secs_f64()));
        Ok(())
    }
}
