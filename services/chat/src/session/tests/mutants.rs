//! Each fault that only the machine itself can show makes the test of its rule fail
//! (`docs/proof.md`).

use duologue_runtime::faults::{Mutant, plant, proof};

macro_rules! caught {
    ($($mutant:ident by $test:ident,)*) => {
        &[$((Mutant::$mutant, stringify!($test), super::$test),)*]
    };
}

const CAUGHT: &[(Mutant, &str, fn())] = caught!(
    DuplicateNotRelayed by a_duplicate_is_announced_like_a_first_append,
    NoSyncAfterReregistration by a_session_that_was_registered_late_syncs_again,
);

#[test]
fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
    for (mutant, name, test) in CAUGHT {
        let planted = plant(*mutant);
        let caught = proof::fails(*test, "services/chat/src/session/tests.rs");
        drop(planted);
        assert!(caught, "{} escapes {name}", mutant.name());
        test();
    }
}

#[test]
fn the_table_says_what_is_caught_here() {
    let caught = CAUGHT
        .iter()
        .map(|(mutant, name, _)| (mutant.name(), *name));
    assert_eq!(proof::caught_in("session"), caught.collect());
}
