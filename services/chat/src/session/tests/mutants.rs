//! Each fault that only the machine itself can show makes the test of its rule fail
//! (`docs/proof.md`).

use duologue_runtime::caught;
use duologue_runtime::faults::proof::{Caught, each_is_caught, the_table_says};

use crate::{append, relay, session};

const CAUGHT: &[Caught] = caught! {
    "services/chat/src/append.rs" => DuplicateNotRelayed
        by append::tests::a_duplicate_is_announced_like_a_first_append,
    "services/chat/src/relay/tests.rs" => OverflowDropped
        by relay::tests::what_finds_no_room_on_a_link_is_raised_and_not_forgotten,
    "services/chat/src/session/tests.rs" => NoSyncAfterReregistration
        by session::tests::a_session_that_was_registered_late_syncs_again,
};

#[test]
fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
    each_is_caught(CAUGHT);
}

#[test]
fn the_table_says_what_is_caught_here() {
    the_table_says("session", CAUGHT);
}
