//! `duologue token`: signs with the development key.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;
use duologue_runtime::config::duration;

/// Print a development token for a user, and nothing else.
///
/// It is signed with the development key in the data directory, which is made if
/// it is not there. A running server is not needed and not disturbed.
#[derive(Args)]
pub(crate) struct TokenArgs {
    /// The user: 1 to 64 of letters, digits and . _ - @ +
    name: UserId,
    /// The data directory of the server that should accept it
    #[arg(
        long,
        value_name = "DIR",
        env = "DUOLOGUE_DATA",
        default_value = "./duologue-data"
    )]
    data: PathBuf,
    /// How long it is good for, such as 30m or 24h
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    lifetime: Duration,
}

/// Print the public half of the development key, as JWKS.
///
/// For processes that are told by --jwt-public-key whose tokens to accept. The key is
/// made if it is not there.
#[derive(Args)]
pub(crate) struct PublicKeyArgs {
    /// Where the development key is
    #[arg(
        long,
        value_name = "DIR",
        env = "DUOLOGUE_DATA",
        default_value = "./duologue-data"
    )]
    data: PathBuf,
    /// Write it to this file instead
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn public_key(args: &PublicKeyArgs) -> anyhow::Result<()> {
    let jwks = DevKey::load_or_create(&args.data)?.public_jwks();
    match &args.out {
        Some(file) => {
            std::fs::write(file, jwks).with_context(|| format!("cannot write {}", file.display()))
        }
        None => writeln!(std::io::stdout(), "{jwks}").context("cannot print the key"),
    }
}

pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.data.as_os_str() != "memory",
        "a server in memory makes a key of its own and prints two tokens when it starts"
    );
    let key = DevKey::load_or_create(&args.data)?;
    let token = key.sign(&args.name, args.lifetime, &SystemClock);
    writeln!(std::io::stdout(), "{token}").context("cannot print the token")
}
