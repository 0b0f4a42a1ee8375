//! What was seen, as tables.

use std::time::Duration;

use super::Seen;
use super::logins::{Client, Logins};
use super::missed::Missed;
use super::pages;
use super::start::Starts;
use crate::machine::per_second;
use crate::probe::Use;
use crate::say;
use crate::throughput::millis;

pub(super) fn starts(rows: [(u64, &Starts); 2]) {
    say(
        "\n| stored | start-up, least / median / most, ms | memory then, MiB | data directory, MiB | bytes per message |",
    );
    say("|---|---|---|---|---|");
    for (stored, starts) in rows {
        let time = |at: usize| starts.times.get(at).copied().map_or(0.0, millis);
        let last = starts.times.len().saturating_sub(1);
        let each = starts.disk_bytes.checked_div(stored);
        say(&format!(
            "| {stored} | {:.0} / {:.0} / {:.0} | {:.0} | {:.0} | {} |",
            time(0),
            time(last / 2),
            time(last),
            mib(starts.resident_kib),
            mib(starts.disk_bytes / 1024),
            each.map_or("—".to_owned(), |bytes| bytes.to_string()),
        ));
    }
}

/// Each kind of page with little stored and with much.
pub(super) fn pages(little: &Seen, much: &Seen) {
    say(
        "\n| newest 50 messages at most, of | stored | p50 / p99, ms | stored | p50 / p99, ms | ratio of p50 / p99 | void |",
    );
    say("|---|---|---|---|---|---|---|");
    for (kind, stored, times) in &much.pages {
        let same = little.pages.iter().find(|(one, ..)| one.name == kind.name);
        let Some((_, stored_before, before)) = same else {
            let [p50, p99] = quantiles(times);
            let void = void(&[&times.used]);
            say(&format!(
                "| {} | | | {stored} | {p50:.2} / {p99:.2} | | {void} |",
                kind.name
            ));
            continue;
        };
        let ([p50, p99], [was50, was99]) = (quantiles(times), quantiles(before));
        say(&format!(
            "| {} | {stored_before} | {was50:.2} / {was99:.2} | {stored} | {p50:.2} / {p99:.2} | \
             {:.2} / {:.2} | {} |",
            kind.name,
            p50 / was50,
            p99 / was99,
            void(&[&before.used, &times.used]),
        ));
    }
}

fn quantiles(pages: &pages::Times) -> [f64; 2] {
    [0.5, 0.99].map(|share| millis(pages.times.quantile(share)))
}

/// The first reason why one of these says little.
fn void(used: &[&Use]) -> &'static str {
    used.iter()
        .find_map(|used| used.disturbed())
        .unwrap_or("no")
}

pub(super) fn logins(seen: &[&Seen]) {
    say(
        "\n| client | stored | logins/s | CPU per login, µs | p50 / p99, ms | memory grown per login, KiB | core busy | driver | limit |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    for seen in seen {
        for (client, logins) in &seen.logins {
            say(&login_line(*client, seen.stored, logins));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn login_line(client: Client, stored: u64, logins: &Logins) -> String {
    let used = &logins.used;
    let [p50, p99] = [0.5, 0.99].map(|share| millis(logins.times.quantile(share)));
    format!(
        "| {} | {stored} | {:.0} | {:.0} | {p50:.2} / {p99:.2} | {:.2} | {:.0} % | {:.0} % | {} |",
        match client {
            Client::New => "new: 10 messages",
            Client::Returning => "returning: no message",
        },
        per_second(logins.count, logins.time),
        each_micros(logins.count, used.server_cpu),
        logins.grown_kib as f64 / logins.count as f64,
        used.core * 100.0,
        used.driver * 100.0,
        used.limit(),
    )
}

pub(super) fn missed(rows: &[(&str, Missed)]) {
    say(
        "\n| known | messages | s | messages/s | CPU per message, µs | memory before / most / after, MiB | core busy | driver | limit |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    for (name, missed) in rows {
        let used = &missed.used;
        let [before, most, after] = missed.memory_kib.map(mib);
        say(&format!(
            "| {name} | {} | {:.2} | {:.0} | {:.2} | {before:.1} / {most:.1} / {after:.1} | \
             {:.0} % | {:.0} % | {} |",
            missed.messages,
            missed.time.as_secs_f64(),
            per_second(missed.messages, missed.time),
            each_micros(missed.messages, used.server_cpu),
            used.core * 100.0,
            used.driver * 100.0,
            used.limit(),
        ));
    }
}

/// Microseconds of each of so many that took so long together.
fn each_micros(count: u64, time: Duration) -> f64 {
    1e6 / per_second(count, time)
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
