//! What Duologue costs on DynamoDB, as a budget.
//!
//! Two chat nodes, each with a presence replica of its own, over one DynamoDB in the
//! process; everything they ask of it is counted where it passes (`system`). Devices
//! talk as people do (`people`), and what that took is written down by operation
//! (`report`). Time is tokio's and stands still while anything is to be done, so an
//! hour takes seconds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the table is what the test is for")]

mod people;
mod report;
mod system;

use people::{Mix, People};
use report::Table;
use system::System;

/// Write units per message, at most (design §10).
const WRITE_BUDGET: f64 = 1.8;
/// Read units per message, at most.
const READ_BUDGET: f64 = 2.3;

async fn measure(mix: Mix) -> Table {
    let system = System::start().await;
    let mut people = People::arrive(&system).await;
    system.forget_costs();
    let messages = people.talk(mix).await;
    system.table(messages)
}

#[tokio::test(start_paused = true)]
async fn a_message_costs_no_more_than_its_budget() {
    for mix in [Mix::Typed, Mix::AtOnce] {
        let table = measure(mix).await;
        println!("{mix:?}\n{table}");
        assert!(table.writes() <= WRITE_BUDGET, "{mix:?}\n{table}");
        assert!(table.reads() <= READ_BUDGET, "{mix:?}\n{table}");
    }
}
