//! The flags of the program `duologue-presence`.

use clap::Parser;
use duologue_dynamodb::DynamoArgs;
use duologue_runtime::process::{InnerArgs, ProcessArgs, ProcessError};

/// Knows who is online and where: Duologue's presence, beside chat and history.
#[derive(Parser, Debug, Clone)]
#[command(name = "duologue-presence", version, max_term_width = 100)]
pub struct ServeConfig {
    /// Where routes are kept; without DynamoDB, in memory, which is for one replica.
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
