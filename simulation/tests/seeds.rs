//! A few seeds. Many are run by `cargo xtask simulate`.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use conformance::check::check;
use simulation::{Options, Outcome, Tally, run};

/// Seeds side by side, no more than the machine has cores, whichever test runs them: h2
/// forgets by the machine's own clock, after a second, which streams were reset, so that a
/// run that is slowed down may be another.
fn outcomes(seeds: &[u64]) -> Vec<(u64, Outcome)> {
    static MACHINE: Mutex<()> = Mutex::new(());
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    seeds.chunks(cores).flat_map(side_by_side).collect()
}

/// Each on a thread of its own.
fn side_by_side(seeds: &[u64]) -> Vec<(u64, Outcome)> {
    thread::scope(|scope| {
        let running: Vec<_> = seeds
            .iter()
            .map(|&seed| {
                let run = move || run(seed, &Options::default()).expect("the run shows something");
                (seed, scope.spawn(run))
            })
            .collect();
        let ended = running.into_iter();
        ended
            .map(|(seed, run)| (seed, run.join().expect("no seed panics")))
            .collect()
    })
}

#[test]
fn every_promise_is_kept_and_everything_was_tried() {
    let mut tally = Tally::default();
    for (seed, outcome) in outcomes(&[1, 2, 3, 4, 5, 6, 7, 8]) {
        let violations = check(&outcome.record);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        tally.add(&outcome.tally);
    }
    let missing = tally.missing(&Options::default().faults);
    assert!(missing.is_empty(), "these never happened: {missing:?}");
    assert!(tally.lost_groups > 0, "no crash has lost anything");
}

#[test]
fn a_seed_replays_exactly() {
    let runs = outcomes(&[1, 2, 1, 2]);
    let records: Vec<_> = runs
        .iter()
        .map(|(_, outcome)| &outcome.record.entries)
        .collect();
    for (one, again) in [(0, 2), (1, 3)] {
        let differs = records[one]
            .iter()
            .zip(records[again])
            .find(|(one, again)| one != again);
        assert_eq!(differs, None);
        assert_eq!(records[one].len(), records[again].len());
    }
    assert_ne!(records[0], records[1]);
}
