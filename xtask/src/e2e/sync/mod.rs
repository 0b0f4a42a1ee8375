//! What a loss of power leaves: the writes and syncs of the program under load are
//! recorded, and the disk is rebuilt from the record at many points.
//!
//! A kill proves nothing about syncs, since what was written survives it. Here two
//! promises are proven: an answer leaves the process only after the journal bytes of
//! its message were synced (`replay`), and a directory without any unsynced byte, or
//! with any part of them, opens and has everything that was acknowledged (`rebuild`).
//! Programs that do not sync, or sync too late, must break both.

mod call;
mod content;
mod disk;
mod frames;
mod load;
mod points;
mod rebuild;
mod recording;
mod replay;
mod trace;
mod users;

use std::path::Path;

use anyhow::{Result, ensure};

use self::load::Load;
use self::points::{Count, Point};
use self::rebuild::Breach;
use self::recording::Recording;
use super::Setup;

/// Enough for every kind of file to be written: the strangers' rows are more than a
/// memtable holds.
const LOAD: Load = Load {
    streamed: 250,
    called: 100,
    strangers: 6_200,
};
const COUNT: Count = Count {
    told: 100,
    structure: 60,
    unsynced: 100,
};
/// Of a program that breaks a promise with every message, a little is enough.
const SMALL_LOAD: Load = Load {
    streamed: 20,
    called: 20,
    strangers: 0,
};
const SMALL_COUNT: Count = Count {
    told: 8,
    structure: 0,
    unsynced: 0,
};
/// Programs that must be caught.
const MUTANTS: [&str; 2] = ["19-answer-before-sync", "19-no-sync"];

/// Records and rebuilds; says how much was looked at.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let recording = Recording::make(&setup.program, None, LOAD).await?;
    let (points, found) = inspect(&recording, &setup.program, COUNT).await?;
    let (count, early) = (recording.messages(), &found.told_before_sync);
    ensure!(
        early.is_empty(),
        "{} of {count} messages were answered before they were synced, {} first",
        early.len(),
        early[0]
    );
    if let Some((point, breach)) = found.breaches.first() {
        anyhow::bail!("{breach}, {point}; {} in all", found.breaches.len());
    }
    let mut report = format!(
        "{count} messages, each synced before anybody was told of it\n  \
         {} syncs; {} directories rebuilt: {} without any unsynced byte, {} cut behind the \
         last synced one, half of them with holes; each opened with all that was acknowledged",
        recording.syncs(),
        points.len(),
        points.iter().filter(|point| !point.keeps_some()).count(),
        points.iter().filter(|point| point.keeps_some()).count(),
    );
    for mutant in MUTANTS {
        report.push_str(&caught(setup, mutant).await?);
    }
    Ok(report)
}

/// What was found in a recording.
struct Found {
    told_before_sync: Vec<String>,
    breaches: Vec<(String, Breach)>,
}

async fn inspect(
    recording: &Recording,
    program: &Path,
    count: Count,
) -> Result<(Vec<Point>, Found)> {
    let (points, told_before_sync) = recording.answers(count)?;
    let breaches = recording.rebuild(program, &points).await?;
    let found = Found {
        told_before_sync,
        breaches,
    };
    Ok((points, found))
}

/// Requires that a mutant breaks both promises. One that crashes, or does not
/// answer, is an error.
async fn caught(setup: &Setup, mutant: &str) -> Result<String> {
    let faults = &setup.faulty;
    let recording = Recording::make(faults, Some(mutant), SMALL_LOAD).await?;
    let (points, found) = inspect(&recording, faults, SMALL_COUNT).await?;
    let lost = |(_, breach): &&(String, Breach)| matches!(breach, Breach::Lost(_));
    let lost = found.breaches.iter().filter(lost).count();
    let early = found.told_before_sync.len();
    ensure!(
        early > 0,
        "{mutant} is not caught by the order of its calls"
    );
    ensure!(
        lost > 0,
        "{mutant} is not caught by what is left of its files"
    );
    Ok(format!(
        "\n  {mutant} is caught: {early} of {} messages told before they were synced; {lost} \
         times one acknowledged and lost, in {} directories",
        recording.messages(),
        points.len(),
    ))
}
