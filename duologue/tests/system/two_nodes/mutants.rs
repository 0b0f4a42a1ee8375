//! Each fault that only several nodes can show makes the test of its rule fail
//! (`docs/proof.md`).

use duologue_runtime::caught;
use duologue_runtime::faults::proof::{Caught, each_is_caught, the_table_says};

use super::rules;

const FILE: &str = "duologue/tests/system/two_nodes/rules.rs";

const CAUGHT: &[Caught] = caught! {
    FILE => LookupBeforeAppend
        by rules::whoever_came_since_the_message_before_is_told_of_the_next,
    FILE => DuplicateNotRelayed by rules::a_retry_relays_what_its_first_writer_did_not,
    FILE => NoSyncAfterReregistration
        by rules::sessions_of_a_node_that_lost_its_lease_sync_once_they_are_registered_again,
    FILE => RowBeforeTable
        by rules::a_relay_does_not_meet_not_here_for_a_session_that_is_registering,
};

#[test]
fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
    each_is_caught(CAUGHT);
}

#[test]
fn the_table_says_what_is_caught_here() {
    the_table_says("nodes", CAUGHT);
}
