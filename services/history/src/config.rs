//! The flags of the program `duologue-history`.

use std::path::PathBuf;

use clap::Parser;
use duologue_dynamodb::DynamoArgs;
use duologue_runtime::process::{InnerArgs, ProcessArgs, ProcessError};

/// Keeps what was said: Duologue's history, beside chat and presence.
#[derive(Parser, Debug, Clone)]
#[command(name = "duologue-history", version, max_term_width = 100)]
pub struct ServeConfig {
    /// Where everything is kept; `memory` for nowhere
    #[arg(
        long,
        value_name = "DIR",
        env = "DUOLOGUE_DATA",
        default_value = "./duologue-data"
    )]
    pub data: PathBuf,
    /// DynamoDB in its place: then there may be several replicas.
    #[command(flatten)]
    pub dynamo: DynamoArgs,
    /// The listener for other services.
    #[command(flatten)]
    pub inner: InnerArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl ServeConfig {
    /// Refuses what must not be served.
    pub fn check(&self) -> Result<(), ProcessError> {
        self.inner.credentials()?;
        Ok(())
    }
}
