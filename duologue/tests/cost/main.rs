//! What Duologue costs on DynamoDB, as a budget.
//!
//! Two chat nodes, each with a presence replica of its own, over one DynamoDB in the
//! process; everything they ask of it is counted where it passes (`system`). Devices
//! talk as people do (`people`), and what that took is written down by operation
//! (`report`). Time is tokio's and stands still while anything is to be done, so an
//! hour takes seconds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the table is what the test is for")]

mod deploy;
mod divided;
mod people;
mod report;
mod system;

use people::{Mix, People};
use report::Table;
use system::{NODES, System};

/// Write units per message, at most (design §10).
const WRITE_BUDGET: f64 = 1.8;
/// Read units per message, at most.
const READ_BUDGET: f64 = 2.3;
/// Of messages that are typed one by one, each of which needs two look-ups of its own.
const TYPED_READ_BUDGET: f64 = 2.6;

/// Write and read units of a session that begins, at most.
const BEGIN_BUDGET: (f64, f64) = (2.5, 12.0);
/// The same of one that ends.
const END_BUDGET: (f64, f64) = (3.5, 5.0);

/// For how many windows of ten minutes people talk, a burst in each.
const WINDOWS: u64 = 6;

#[tokio::test(start_paused = true)]
async fn messages_of_bursts_cost_no_more_than_the_budget_with_syncs_and_all() {
    let costs = talk(Mix::AtOnce).await;
    assert_within(&costs.messages, READ_BUDGET);
    assert_within(&costs.messages_and_syncs, READ_BUDGET);
}

/// Nothing comes together here: each message, and what follows it, stands alone.
#[tokio::test(start_paused = true)]
async fn messages_that_are_typed_one_by_one_cost_no_more_than_theirs() {
    assert_within(&talk(Mix::Typed).await.messages, TYPED_READ_BUDGET);
}

struct Costs {
    messages: Table,
    messages_and_syncs: Table,
}

async fn talk(mix: Mix) -> Costs {
    let system = System::start().await;
    let mut people = People::arrive(&system).await;
    system.forget_costs();
    let count = people.talk(mix, WINDOWS).await;
    let costs = Costs {
        messages: system.table(count),
        messages_and_syncs: system.table_with_syncs(count),
    };
    println!("{mix:?}: {count} messages\n{}", costs.messages);
    println!("With syncs\n{}", costs.messages_and_syncs);
    let syncs = system.syncs(people.sessions());
    println!("Syncs, by session and hour\n{syncs}");
    println!("Leases, by node and hour\n{}", system.leases(NODES as u64));
    costs
}

fn assert_within(table: &Table, reads: f64) {
    assert!(table.writes() <= WRITE_BUDGET, "{table}");
    assert!(table.reads() <= reads, "{table}");
    // Or what was counted was not all.
    assert!(table.writes() > 1.0 && table.reads() > 0.0, "{table}");
}

#[tokio::test(start_paused = true)]
async fn what_a_session_costs_is_bounded() {
    let system = System::start().await;
    system.forget_costs();
    let people = People::arrive(&system).await;
    let sessions = people.sessions();
    let table = system.table_with_syncs(sessions);
    println!("A session begins: {sessions} sessions\n{table}");
    assert!(
        table.writes() <= BEGIN_BUDGET.0 && table.reads() <= BEGIN_BUDGET.1,
        "{table}"
    );
    system.forget_costs();
    people.leave().await;
    let table = system.table_with_syncs(sessions);
    println!("A session ends: {sessions} sessions\n{table}");
    assert!(
        table.writes() <= END_BUDGET.0 && table.reads() <= END_BUDGET.1,
        "{table}"
    );
}
