//! A few seeds. Many are run by `cargo xtask simulate`.

use std::thread;

use conformance::check::check;
use simulation::{Options, Outcome, Tally, run};

/// Seeds side by side, each on a thread of its own.
fn outcomes(seeds: impl IntoIterator<Item = u64>) -> Vec<(u64, Outcome)> {
    thread::scope(|scope| {
        let running: Vec<_> = seeds
            .into_iter()
            .map(|seed| {
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
    for (seed, outcome) in outcomes(1..=8) {
        let violations = check(&outcome.record);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        tally.add(&outcome.tally);
    }
    let missing = tally.missing(&Options::default().faults);
    assert!(missing.is_empty(), "these never happened: {missing:?}");
    assert!(tally.lost_groups > 0, "no crash has lost anything");
}

/// Where two runs of a seed differ first.
fn difference(one: &Outcome, again: &Outcome) -> Option<String> {
    let (one, again) = (&one.record.entries, &again.record.entries);
    let differs = one.iter().zip(again).find(|(one, again)| one != again);
    let differs = differs.map(|differs| format!("{differs:?}"));
    differs.or_else(|| (one.len() != again.len()).then(|| "one is longer".to_owned()))
}

#[test]
fn a_seed_replays_exactly() {
    /// h2 forgets by the machine's own clock which streams were reset, after a second: a
    /// machine that stands still for so long makes another run of it.
    const TRIES: usize = 5;
    let mut differs = None;
    for _ in 0..TRIES {
        let runs: Vec<_> = outcomes([1, 2, 1, 2]).into_iter().map(|it| it.1).collect();
        assert_ne!(runs[0].record, runs[1].record);
        differs = difference(&runs[0], &runs[2]).or_else(|| difference(&runs[1], &runs[3]));
        if differs.is_none() {
            return;
        }
    }
    panic!("{}", differs.unwrap_or_default());
}
