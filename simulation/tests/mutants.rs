//! Faults planted in the whole system: with the fault the checker names the rule that
//! is broken, without it the same seed breaks none (`docs/proof.md`).

#![cfg(feature = "faults")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conformance::check::check;
use duologue_runtime::faults::{Mutant, plant, proof};
use simulation::{Fault, Options, run};

/// Seeds that are tried.
const SEEDS: u64 = 6;

/// What surrounds the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    /// A network and a server that do not fail.
    Fair,
    /// Syncs so slow that sessions open while one runs.
    SlowSync,
    /// Few messages a second are taken of a user.
    LowRate,
    /// The server crashes, and loses what was not synced.
    Crashes,
}

use Setting::{Crashes, Fair, LowRate, SlowSync};

/// Each fault with the rule that it breaks.
const CAUGHT: &[(Mutant, &str, Setting)] = &[
    (Mutant::OnlyQueuedDeferred, "session_order", LowRate),
    (Mutant::CatchUpAtCursor, "no_gap_from_start", Fair),
    (Mutant::LookupBeforeAppend, "eventually_caught_up", SlowSync),
    (Mutant::ReadBeforeRegistration, "eventually_caught_up", Fair),
    (Mutant::StaleCatchUpRead, "caught_up_true", Fair),
    (Mutant::CaughtUpTooEarly, "caught_up_true", Fair),
    (Mutant::PushDuringRead, "shown_once_in_order", Fair),
    (Mutant::ShownGuessed, "no_gap_from_start", Fair),
    (Mutant::StoredOverGap, "shown_once_in_order", Fair),
    (Mutant::OverflowDropped, "eventually_caught_up", Fair),
    (Mutant::CursorLowered, "cursor_never_lowered", Fair),
    (Mutant::CursorNotToldAtSync, "receipts_told_at_sync", Fair),
    (Mutant::AnswerBeforeSync, "acknowledged_present", Crashes),
    (Mutant::NoSync, "acknowledged_present", Crashes),
    (Mutant::ServedNoMoreAfterFull, "eventually_caught_up", Fair),
];

impl Setting {
    fn options(self) -> Options {
        let fair = Options {
            wild: Duration::from_secs(4),
            faults: Vec::new(),
            ..Options::default()
        };
        match self {
            Fair => fair,
            SlowSync => Options {
                sync_millis: (200, 800),
                ..fair
            },
            LowRate => Options {
                sends_per_second: 10,
                ..fair
            },
            Crashes => Options {
                wild: Duration::from_secs(6),
                faults: vec![Fault::Crash],
                ..fair
            },
        }
    }
}

/// The rules that a seed breaks. A run that fails by itself proves nothing.
fn broken(seed: u64, setting: Setting) -> BTreeSet<&'static str> {
    let outcome = run(seed, &setting.options()).unwrap();
    let violations = check(&outcome.record);
    violations
        .into_iter()
        .map(|violation| violation.rule)
        .collect()
}

#[test]
fn every_planted_fault_is_named_and_without_it_the_same_seed_is_clean() {
    let mut escaped = Vec::new();
    let mut clean = BTreeSet::new();
    for (mutant, rule, setting) in CAUGHT {
        let planted = plant(*mutant);
        let caught = (0..SEEDS).find(|seed| broken(*seed, *setting).contains(rule));
        drop(planted);
        println!(
            "{} breaks {rule}: {setting:?}, seed {caught:?}",
            mutant.name()
        );
        let Some(seed) = caught else {
            escaped.push(mutant.name());
            continue;
        };
        if clean.insert((*setting, seed)) {
            let broken = broken(seed, *setting);
            assert_eq!(broken, BTreeSet::new(), "seed {seed}, {setting:?}");
        }
    }
    assert_eq!(escaped, Vec::<&str>::new());
}

#[test]
fn the_table_says_what_is_caught_here() {
    let caught = CAUGHT
        .iter()
        .map(|(mutant, rule, _)| (mutant.name(), *rule));
    let caught: BTreeMap<_, _> = caught.collect();
    assert_eq!(proof::caught_in("simulation"), caught);
}
