//! Acknowledgements at a part of what the server can do at most, beside syncs of
//! the disk.
//!
//! Messages are sent by the clock, whatever became of those before, and their time
//! counts from when they were due: a server that stalls is not spared the messages
//! that it would have been sent meanwhile.

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::driver::When;
use crate::say;
use crate::server::{Kind, Place};
use crate::throughput::{self, Outcome, Row, Times};

/// The load whose rate is the most.
pub(crate) const ROW: Row = Row::new(100, 16);
/// The part of it.
const SHARE: f64 = 0.7;
/// The least of what was due that must have come about.
const KEPT: f64 = 0.98;
/// The most that the driver may have been late, of what is measured.
const LATE: f64 = 0.1;

/// Measures Duologue below the most, which is so many messages per second, and
/// prints the median of the rounds.
pub(crate) fn run(
    runtime: &Runtime,
    rounds: usize,
    most: f64,
    times: Times,
    place: &Place,
) -> Result<()> {
    let rate = most * SHARE;
    let mut outcomes = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let when = When::Rate(rate);
        let measured = throughput::measure(Kind::Duologue, ROW.pairs, when, times, place);
        let outcome = LocalSet::new()
            .block_on(runtime, measured)
            .context("Duologue failed with sends by the clock")?;
        outcomes.push(outcome);
    }
    say(&format!(
        "\n| messages/s due, {:.0} % of {most:.0} | messages/s | ack p50 / p99, ms | \
         delivery p50 / p99, ms | fdatasync p50 / p99, ms | ack p99, of fdatasync's | \
         core busy | driver | driver late p99, ms | void |",
        SHARE * 100.0
    ));
    say("|---|---|---|---|---|---|---|---|---|---|");
    say(&line(rate, &throughput::median(&outcomes)));
    Ok(())
}

fn line(rate: f64, outcome: &Outcome) -> String {
    let [stored, stored99, delivered, delivered99] = outcome.latency;
    let [sync, sync99] = outcome.sync;
    format!(
        "| {rate:.0} | {:.0} | {stored:.2} / {stored99:.2} | {delivered:.2} / {delivered99:.2} | \
         {sync:.2} / {sync99:.2} | {:.2} | {:.0} % | {:.0} % | {:.2} | {} |",
        outcome.rate,
        stored99 / sync99,
        outcome.used.core * 100.0,
        outcome.used.driver * 100.0,
        outcome.late,
        void(rate, outcome).unwrap_or("no"),
    )
}

/// Why this measures something else than the server; none if it does not.
fn void(rate: f64, outcome: &Outcome) -> Option<&'static str> {
    let late = outcome.late > outcome.latency[1] * LATE;
    let lost = outcome.rate < rate * KEPT;
    let disturbed = outcome.used.disturbed();
    disturbed
        .or(late.then_some("the driver was late"))
        .or(lost.then_some("not all that was due came about"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::Use;

    fn outcome(rate: f64, late: f64) -> Outcome {
        Outcome {
            rate,
            cpu: 5.0,
            latency: [1.0, 5.0, 1.0, 5.0],
            echoed: 0.0,
            used: Use {
                server_cpu: Duration::ZERO,
                server: 0.7,
                core: 0.7,
                waiting: 0.1,
                driver: 0.5,
                flushes_per_second: None,
            },
            sync: [1.0, 2.0],
            late,
        }
    }

    #[test]
    fn a_row_is_void_if_the_driver_was_late_or_the_server_fell_behind() {
        assert_eq!(void(1_000.0, &outcome(999.0, 0.4)), None);
        assert!(void(1_000.0, &outcome(999.0, 0.6)).is_some());
        assert!(void(1_000.0, &outcome(970.0, 0.4)).is_some());
    }
}
