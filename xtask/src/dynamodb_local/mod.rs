//! DynamoDB Local, Amazon's own program for tests: fetched by Maven, run by Java.
//!
//! `fetch` brings the program, `server` runs it as a child process; the tasks here
//! run it for a person, and for the contract tests of the engines on DynamoDB.
//! Nothing here knows a table.

mod call;
mod fetch;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

pub(crate) use self::fetch::fetch;
pub(crate) use self::server::{Data, DynamoDbLocal};

/// The standard variable that says where the tests find DynamoDB.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_DYNAMODB";
/// What the tests are asked with: any credentials do, no region is real.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "local"),
    ("AWS_SECRET_ACCESS_KEY", "local"),
    ("AWS_REGION", "us-east-1"),
];
/// Tests that need the real one are ignored and have this in their names.
const TESTS: &str = "dynamodb_elsewhere";
/// The programs with such tests, chosen of the whole workspace: what is built for all
/// tests is built once.
const OF_ALL: [&str; 4] = ["--workspace", "--lib", "--test", "directory"];
/// History's and presence's.
const ENGINES: usize = 2;

/// How to run DynamoDB Local.
#[derive(Args)]
pub(crate) struct Options {
    /// Listen here; by default on any free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep the data in this folder; by default it is in memory.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

/// Which contract tests to run.
#[derive(Args)]
pub(crate) struct ContractOptions {
    /// Only those of this crate.
    #[arg(long, value_name = "CRATE")]
    package: Option<String>,
}

/// Runs DynamoDB Local until Ctrl-C, or until it ends.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let program = fetch(root)?;
    let data = match &options.data {
        Some(folder) => Data::Folder(std::path::absolute(folder)?),
        None => Data::Memory,
    };
    runtime()?.block_on(async {
        let mut server = DynamoDbLocal::start(&program, &data, options.port).await?;
        crate::say(&format!("DynamoDB Local: {}", server.endpoint()));
        for (name, value) in ENVIRONMENT {
            crate::say(&format!("export {name}={value}"));
        }
        crate::say(&format!("export {ENDPOINT}={}", server.endpoint()));
        tokio::select! {
            asked = tokio::signal::ctrl_c() => {
                asked.context("cannot wait for Ctrl-C")?;
                server.stop().await
            }
            ended = server.ended() => ended,
        }
    })
}

/// Runs the contract tests of both engines against DynamoDB Local, once it has
/// shown that it can be paused, and stopped and started again.
pub(crate) fn contract(root: &Path, options: &ContractOptions) -> Result<()> {
    let program = fetch(root)?;
    let runtime = runtime()?;
    runtime.block_on(server::proof::run(&program))?;
    let server = runtime.block_on(DynamoDbLocal::start(&program, &Data::Memory, 0))?;
    match &options.package {
        Some(package) => test(root, &["--package", package], 1, &server.endpoint())?,
        None => test(root, &OF_ALL, ENGINES, &server.endpoint())?,
    }
    runtime.block_on(server.stop())
}

/// Runs the tests of a selection, in which so many programs must have some.
fn test(root: &Path, selection: &[&str], programs: usize, endpoint: &str) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--locked"])
        .args(selection)
        .args(["--", "--ignored", TESTS])
        .envs(ENVIRONMENT)
        .env(ENDPOINT, endpoint)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    crate::say(printed.trim_end());
    ensure!(output.status.success(), "the contract tests fail");
    let passed = printed.lines().filter_map(passed_in);
    let passed: Vec<_> = passed.filter(|passed| *passed > 0).collect();
    ensure!(
        passed.len() >= programs,
        "{} of {programs} programs have a test for DynamoDB Local",
        passed.len()
    );
    let passed: u64 = passed.into_iter().sum();
    crate::say(&format!("{passed} tests passed on DynamoDB Local"));
    Ok(())
}

/// How many tests a line of `cargo test` says to have passed.
fn passed_in(line: &str) -> Option<u64> {
    let (_, counts) = line.split_once("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("cannot start a runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_that_passed_are_counted() {
        let line = "test result: ok. 17 passed; 0 failed; 2 ignored; 0 measured";
        assert_eq!(passed_in(line), Some(17));
        assert_eq!(passed_in("running 17 tests"), None);
    }
}
