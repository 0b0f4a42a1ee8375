//! Faults planted in the rules above the store: with the fault a promise is broken
//! and named, without it the same run breaks none (`docs/proof.md`).

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_runtime::faults::{Mutant, plant, proof};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::faults::PutFault;
use super::promises::{Device, Findings, check_conversation};
use super::simulation::{simulate, simulate_on_dynamodb};
use super::{World, draft, fill, run, send};

/// Seeds of the simulation that are tried.
const SEEDS: u64 = 40;

/// How a fault is met.
enum Run {
    /// By some seed of the simulation.
    Simulated,
    /// By some seed of the simulation over DynamoDB.
    OnDynamoDb,
    /// By these steps.
    Steps(for<'a> fn(&'a World, &'a Findings) -> BoxFuture<'a, ()>),
}

use Run::{OnDynamoDb, Simulated, Steps};

/// Each fault with the promise that it breaks.
const CAUGHT: &[(Mutant, &str, Run)] = &[
    (Mutant::NextSlotAfterUnknown, "at_most_once", Simulated),
    (Mutant::OwnBlockTakenForLoss, "at_most_once", Simulated),
    (
        Mutant::PutWithoutCondition,
        "acknowledged_present",
        Simulated,
    ),
    (
        Mutant::AfterSeqNotChecked,
        "at_most_once",
        Steps(|world, findings| {
            a_retry_that_names_a_slot_that_is_not_there(world, findings).boxed()
        }),
    ),
    (Mutant::StaleMissingIsFinal, "at_most_once", Simulated),
    (Mutant::NoSearchAfterBlock, "at_most_once", Simulated),
    (
        Mutant::RetryMarksStoredWindow,
        "sync_lists_messages",
        Steps(|world, findings| a_retry_of_what_landed_late(world, findings).boxed()),
    ),
    (
        Mutant::PutBeforeRows,
        "sync_lists_messages",
        Steps(|world, findings| a_writer_killed_between_put_and_rows(world, findings).boxed()),
    ),
    (
        Mutant::TimeReadAtEnd,
        "sync_lists_messages",
        Steps(|world, findings| a_message_stored_while_a_sync_reads(world, findings).boxed()),
    ),
    (
        Mutant::NoSlack,
        "sync_lists_messages",
        Steps(|world, findings| a_put_that_lands_after_a_sync(world, findings).boxed()),
    ),
    (
        Mutant::LatePutSent,
        "sync_lists_messages",
        Steps(|world, findings| a_writer_paused_before_its_put(world, findings).boxed()),
    ),
];

/// Those that are met on the way to DynamoDB, too.
const CAUGHT_ON_DYNAMODB: &[(Mutant, &str, Run)] = &[
    (Mutant::NextSlotAfterUnknown, "at_most_once", OnDynamoDb),
    (Mutant::OwnBlockTakenForLoss, "at_most_once", OnDynamoDb),
    (
        Mutant::PutWithoutCondition,
        "acknowledged_present",
        OnDynamoDb,
    ),
    (Mutant::StaleMissingIsFinal, "at_most_once", OnDynamoDb),
    (Mutant::NoSearchAfterBlock, "at_most_once", OnDynamoDb),
];

const VANISHED: PutFault = PutFault::Unknown {
    applied: 0,
    confirmed: 0,
};

impl World {
    /// Bob's device syncs: it must learn of everything that alice has stored.
    async fn bob_syncs(&self, device: &mut Device, findings: &Findings) {
        let replica = || &self.history;
        device
            .sync(&self.memory, &["alice"], replica, findings)
            .await;
    }

    /// A message of alice is there, and an hour later bob's device knows it.
    async fn a_device_in_sync(&self, findings: &Findings) -> Device {
        fill(&self.history, 1, 1).await;
        self.clock.advance(Duration::from_hours(1));
        let mut device = Device::new("bob");
        self.bob_syncs(&mut device, findings).await;
        device
    }

    async fn judge(&self, findings: &Findings) {
        check_conversation(&self.memory, ("alice", "bob"), findings).await;
    }
}

/// Its client takes this for another history.
async fn a_retry_that_names_a_slot_that_is_not_there(world: &World, findings: &Findings) {
    send(&world.history, vec![draft("a", 0)]).await;
    send(&world.history, vec![draft("a", 5)]).await;
    world.judge(findings).await;
}

/// A put arrives long after its writer gave it up; then the client tries again.
async fn a_retry_of_what_landed_late(world: &World, findings: &Findings) {
    let mut bob = world.a_device_in_sync(findings).await;
    let lost = [PutFault::Delay].into_iter().chain([VANISHED; 4]);
    world.faults.on_puts(lost);
    send(&world.history, vec![draft("a", 0)]).await;
    world.clock.advance(Duration::from_mins(25));
    world.bob_syncs(&mut bob, findings).await;
    world.faults.land().await;
    send(&world.history, vec![draft("a", 0)]).await;
    world.clock.advance(Duration::from_mins(1));
    world.bob_syncs(&mut bob, findings).await;
}

/// Its client does not come back.
async fn a_writer_killed_between_put_and_rows(world: &World, findings: &Findings) {
    let mut bob = world.a_device_in_sync(findings).await;
    world.faults.fail_rows(usize::MAX);
    send(&world.history, vec![draft("a", 0)]).await;
    world.clock.advance(Duration::from_mins(1));
    world.bob_syncs(&mut bob, findings).await;
}

/// Carol's message is stored when the rows have been read and alice's not; half an
/// hour passes before the sync ends.
async fn a_message_stored_while_a_sync_reads(world: &World, findings: &Findings) {
    let mut bob = world.a_device_in_sync(findings).await;
    send(&world.history, vec![draft("a", 0)]).await;
    let (replica, clock) = (world.replica(), world.clock.clone());
    let meanwhile = async move {
        let sent = run("carol", "bob", vec![draft("c", 0)]);
        replica.append(sent).await;
        clock.advance(Duration::from_mins(30));
    };
    // A reading is stored, rows are read; the third operation is of the heads.
    world.faults.before_op(2, Box::new(|| meanwhile.boxed()));
    let both = ["alice", "carol"];
    for _ in 0..2 {
        let replica = || &world.history;
        bob.sync(&world.memory, &both, replica, findings).await;
    }
}

/// The put is under way when the window ends and a device syncs.
async fn a_put_that_lands_after_a_sync(world: &World, findings: &Findings) {
    let mut bob = world.a_device_in_sync(findings).await;
    world.clock.advance(Duration::from_secs(9 * 60 + 59));
    let lost = [PutFault::Delay].into_iter().chain([VANISHED; 4]);
    world.faults.on_puts(lost);
    send(&world.history, vec![draft("a", 0)]).await;
    world.clock.advance(Duration::from_mins(2));
    world.bob_syncs(&mut bob, findings).await;
    world.faults.land().await;
    world.clock.advance(Duration::from_mins(1));
    world.bob_syncs(&mut bob, findings).await;
}

/// It is paused for 25 minutes, and killed after the put; its client does not come
/// back.
async fn a_writer_paused_before_its_put(world: &World, findings: &Findings) {
    let mut bob = world.a_device_in_sync(findings).await;
    let pause = Duration::from_secs(2);
    world.faults.on_puts([PutFault::Pause(pause)]);
    world.faults.fail_rows(usize::MAX);
    let meanwhile = async {
        tokio::time::sleep(pause / 2).await;
        world.clock.advance(Duration::from_mins(25));
        world.bob_syncs(&mut bob, findings).await;
    };
    tokio::join!(send(&world.history, vec![draft("a", 0)]), meanwhile);
    world.clock.advance(Duration::from_mins(1));
    world.bob_syncs(&mut bob, findings).await;
}

/// The promises that a run has broken.
fn broken(run: &Run, seed: u64) -> Vec<(&'static str, String)> {
    let steps = match run {
        Simulated => return simulate(seed),
        OnDynamoDb => return simulate_on_dynamodb(seed),
        Steps(steps) => steps,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        let (world, findings) = (World::new(), Findings::default());
        steps(&world, &findings).await;
        findings.all()
    })
}

fn breaks(run: &Run, seed: u64, promise: &str) -> bool {
    broken(run, seed)
        .iter()
        .any(|(broken, _)| *broken == promise)
}

#[test]
fn every_planted_fault_breaks_its_promise_and_without_it_the_same_run_breaks_none() {
    let mut escaped = Vec::new();
    for (mutant, promise, run) in CAUGHT.iter().chain(CAUGHT_ON_DYNAMODB) {
        let planted = plant(*mutant);
        let caught = (0..SEEDS).find(|seed| breaks(run, *seed, promise));
        drop(planted);
        println!("{} breaks {promise}: seed {caught:?}", mutant.name());
        match caught {
            Some(seed) => assert_eq!(broken(run, seed), [], "without {}", mutant.name()),
            None => escaped.push(mutant.name()),
        }
    }
    assert_eq!(escaped, Vec::<&str>::new());
}

#[test]
fn the_table_says_what_is_caught_here() {
    let caught = CAUGHT
        .iter()
        .map(|(mutant, promise, _)| (mutant.name(), *promise));
    let caught: BTreeMap<_, _> = caught.collect();
    assert_eq!(proof::caught_in("history"), caught);
}
