//! `duologue tables`: the tables in DynamoDB. Services only look whether they are there.

#![expect(
    clippy::doc_markdown,
    reason = "what is shown by --help has no backticks"
)]

use std::io::{Write as _, stdout};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use duologue_dynamodb::TableArgs;
use duologue_dynamodb::tables::{Recovery, TableSpec, check, create, describe};

/// Make, show or check the tables in DynamoDB.
///
/// Where they are the AWS SDK's own configuration says: AWS_REGION,
/// AWS_ENDPOINT_URL_DYNAMODB, profiles, roles.
#[derive(Args)]
pub(crate) struct TablesArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make the tables that are not there: on demand, with point-in-time recovery and
    /// deletion protection
    Create(TableArgs),
    /// Show the tables
    Describe(TableArgs),
    /// Look whether all tables are there and as they must be; exit 0 if so
    Check(TableArgs),
}

pub(crate) async fn run(args: TablesArgs) -> anyhow::Result<()> {
    let specs = all();
    let lines = match args.task {
        Task::Create(tables) => {
            let made = create(&tables.open().await?, &specs).await?;
            let lines = made.into_iter().map(|table| {
                let what = if table.new { "made" } else { "was there" };
                let recovery = match table.recovery {
                    Recovery::On => "on",
                    Recovery::NotOffered => "not offered here",
                };
                format!("{}: {what}; point-in-time recovery {recovery}", table.name)
            });
            lines.collect::<Vec<_>>()
        }
        Task::Describe(tables) => {
            let found = describe(&tables.open().await?, &specs).await;
            let lines = found.into_iter().map(|(name, found)| match found {
                Ok(facts) => facts.to_string(),
                Err(problem) => format!("{name} {problem}"),
            });
            lines.collect()
        }
        Task::Check(tables) => {
            let found = check(&tables.open().await?, &specs).await?;
            found.iter().map(ToString::to_string).collect()
        }
    };
    writeln!(stdout(), "{}", lines.join("\n")).context("cannot print")
}

/// Those of both services.
fn all() -> Vec<TableSpec> {
    let mut all = duologue_history::dynamodb::TABLES.to_vec();
    all.push(duologue_presence::dynamodb::TABLE);
    all
}
