//! Each fault that only several nodes can show makes the test of its rule fail
//! (`docs/proof.md`).

use duologue_runtime::faults::{Mutant, plant, proof};

use super::rules;

const FILE: &str = "duologue/tests/system/two_nodes/rules.rs";

macro_rules! caught {
    ($($mutant:ident by $test:ident,)*) => {
        &[$((Mutant::$mutant, stringify!($test), rules::$test),)*]
    };
}

const CAUGHT: &[(Mutant, &str, fn())] = caught!(
    LookupBeforeAppend by whoever_came_since_the_message_before_is_told_of_the_next,
    DuplicateNotRelayed by a_retry_relays_what_its_first_writer_did_not,
    NoSyncAfterReregistration
        by sessions_of_a_node_that_lost_its_lease_sync_once_they_are_registered_again,
    RowBeforeTable by a_relay_does_not_meet_not_here_for_a_session_that_is_registering,
);

#[test]
fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
    for (mutant, name, test) in CAUGHT {
        let planted = plant(*mutant);
        let caught = proof::fails(*test, FILE);
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
    assert_eq!(proof::caught_in("nodes"), caught.collect());
}
