//! The flags of processes that keep their rows in DynamoDB. Whatever the SDK reads
//! itself (`AWS_*`, profiles, roles) is no flag.

#![expect(
    clippy::doc_markdown,
    reason = "what is shown by --help has no backticks"
)]

use clap::Args;

use crate::client::{ConfigError, DynamoDb, Options};

/// Whether, and where.
#[derive(Args, Debug, Clone)]
pub struct DynamoArgs {
    /// Keep everything in DynamoDB, as the AWS SDK is configured: AWS_REGION,
    /// AWS_ENDPOINT_URL_DYNAMODB, profiles, roles
    #[arg(long, env = "DUOLOGUE_DYNAMODB")]
    pub dynamodb: bool,
    /// The tables.
    #[command(flatten)]
    pub tables: TableArgs,
}

/// Which tables.
#[derive(Args, Debug, Clone)]
pub struct TableArgs {
    /// What the names of the tables begin with
    #[arg(
        long,
        value_name = "TEXT",
        env = "DUOLOGUE_TABLE_PREFIX",
        default_value = "duologue-"
    )]
    pub table_prefix: String,
    /// The one Region that may write, where tables have replicas in others
    #[arg(long, value_name = "REGION", env = "DUOLOGUE_HOME_REGION")]
    pub home_region: Option<String>,
}

impl TableArgs {
    /// Access to them. Asks DynamoDB nothing yet.
    pub async fn open(&self) -> Result<DynamoDb, ConfigError> {
        DynamoDb::from_environment(Options {
            table_prefix: self.table_prefix.clone(),
            home_region: self.home_region.clone(),
        })
        .await
    }
}
