//! Each fault that only the machine itself can show makes the test of its rule fail
//! (`docs/proof.md`).

use duologue_runtime::faults::{Mutant, plant, proof};

macro_rules! caught {
    ($($mutant:ident by $test:ident in $module:path = $file:literal,)*) => {
        &[$({
            use $module as tests;
            (Mutant::$mutant, stringify!($test), tests::$test, $file)
        },)*]
    };
}

/// A fault, the name of the test that catches it, the test, and its file.
type Caught = (Mutant, &'static str, fn(), &'static str);

const CAUGHT: &[Caught] = caught!(
    DuplicateNotRelayed by a_duplicate_is_announced_like_a_first_append
        in crate::append::tests = "services/chat/src/append.rs",
    OverflowDropped by what_finds_no_room_on_a_link_is_raised_and_not_forgotten
        in crate::relay::tests = "services/chat/src/relay/tests.rs",
    NoSyncAfterReregistration by a_session_that_was_registered_late_syncs_again
        in crate::session::tests = "services/chat/src/session/tests.rs",
);

#[test]
fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
    for (mutant, name, test, file) in CAUGHT {
        let planted = plant(*mutant);
        let caught = proof::fails(*test, file);
        drop(planted);
        assert!(caught, "{} escapes {name}", mutant.name());
        test();
    }
}

#[test]
fn the_table_says_what_is_caught_here() {
    let caught = CAUGHT
        .iter()
        .map(|(mutant, name, ..)| (mutant.name(), *name));
    assert_eq!(proof::caught_in("session"), caught.collect());
}
