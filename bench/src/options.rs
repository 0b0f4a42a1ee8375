//! The flags that several benches have.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tempfile::TempDir;

use crate::server::{self, Place};
use crate::throughput::Times;

/// What is measured, and where.
#[derive(Args)]
pub(crate) struct Subject {
    /// The program `duologue`, built for release; those of the split system beside it
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Where the data is kept meanwhile: on the disk to be measured
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
}

impl Subject {
    /// The folder goes when it is dropped.
    pub(crate) fn place(&self) -> Result<(TempDir, Place)> {
        server::place(&self.program, &self.folder)
    }
}

/// How often, and how long.
#[derive(Args)]
pub(crate) struct Repeats {
    /// How often each load is run in each way
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of load before anything is measured
    #[arg(long, default_value_t = 2)]
    warm: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Repeats {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.rounds)
    }

    /// Of each.
    pub(crate) fn times(&self) -> Times {
        Times {
            warm: Duration::from_secs(self.warm),
            measured: Duration::from_secs(self.seconds),
        }
    }
}
