//! Developer tasks: `cargo xtask --help`.

mod bench;
mod check;
#[cfg(feature = "e2e")]
mod cluster;
mod codegen;
#[cfg(feature = "e2e")]
mod dynamodb_local;
#[cfg(feature = "e2e")]
mod e2e;
#[cfg(feature = "e2e")]
mod signal;
mod simulate;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

/// Developer tasks of Duologue.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Generate the Rust code and the descriptor set of the contract.
    Codegen,
    /// Check which of our crates uses which.
    Check,
    /// Measure the program, built for release: see `cargo xtask bench relay --help`.
    Bench(bench::Options),
    /// Run the whole system in virtual time, once per seed: see `cargo xtask simulate
    /// --help`.
    Simulate(simulate::Options),
    /// Run the built program: what the README shows, a drain, kills, broken disks,
    /// losses of power.
    #[cfg(feature = "e2e")]
    E2e(e2e::Options),
    /// Run what docker-compose.yml runs as the profile `split`, without containers.
    #[cfg(feature = "e2e")]
    #[command(subcommand)]
    Cluster(cluster::Task),
    /// Run DynamoDB Local until Ctrl-C; fetched by Maven, run by Java.
    #[cfg(feature = "e2e")]
    DynamodbLocal(dynamodb_local::Options),
    /// Run the contract tests of the engines on DynamoDB against DynamoDB Local.
    #[cfg(feature = "e2e")]
    DynamodbContract(dynamodb_local::ContractOptions),
}

fn main() -> Result<()> {
    let root = workspace_root();
    match Task::parse() {
        Task::Codegen => codegen::run(&root, &root.join(codegen::GENERATED)),
        Task::Check => check::run(&root),
        Task::Bench(options) => bench::run(&root, &options),
        Task::Simulate(options) => simulate::run(&root, &options),
        #[cfg(feature = "e2e")]
        Task::E2e(options) => e2e::run(&root, &options),
        #[cfg(feature = "e2e")]
        Task::Cluster(task) => cluster::run(&root, &task),
        #[cfg(feature = "e2e")]
        Task::DynamodbLocal(options) => dynamodb_local::run(&root, &options),
        #[cfg(feature = "e2e")]
        Task::DynamodbContract(options) => dynamodb_local::contract(&root, &options),
    }
}

/// Tells the person at the terminal, or the log of a run.
#[cfg(feature = "e2e")]
#[expect(clippy::print_stdout, reason = "this is what a task is run for")]
fn say(text: &str) {
    println!("{text}");
}

/// The workspace root: the parent of this crate's folder.
fn workspace_root() -> PathBuf {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    root.pop();
    root
}
