//! What `serve` says on standard output: where it listens and what to try next.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgMatches, CommandFactory as _};
use duologue_history::history::History;
use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;
use duologue_runtime::config::effective_values;

use super::config::ServeArgs;
use super::doors::Places;
use super::keys::Keys;
use crate::cli::Cli;

/// How long the tokens live that a server in memory prints.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// Prints the effective value of every flag; secrets hidden.
#[expect(clippy::print_stdout, reason = "this is what --check-config is for")]
pub(super) fn print_config(matches: &ArgMatches) {
    for line in effective_values(&Cli::command(), matches) {
        println!("{line}");
    }
    println!("the configuration is valid");
}

/// Says that everything is up.
#[expect(clippy::print_stdout, reason = "the first thing a new user sees")]
pub(super) async fn print_ready(args: &ServeArgs, keys: &Keys, history: &History, places: Places) {
    let history = history
        .history_id()
        .await
        .map(|id| id.to_string())
        .unwrap_or_default();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_addresses(&mut text, args, &history, places);
    if let Some(key) = &keys.development {
        let _ = write_next_steps(&mut text, args, key, places);
    }
    println!("{text}");
}

fn write_addresses(
    text: &mut String,
    args: &ServeArgs,
    history: &str,
    places: Places,
) -> std::fmt::Result {
    let Places { grpc, web, admin } = places;
    let scheme = scheme(args);
    let reflection = if args.public.no_reflection {
        "off"
    } else {
        "on"
    };
    let data = if args.in_memory() {
        "in memory: nothing is kept".to_owned()
    } else {
        format!("{}", args.data.display())
    };
    writeln!(text, "Duologue {} is ready.\n", env!("CARGO_PKG_VERSION"))?;
    writeln!(
        text,
        "  gRPC     {scheme}://{grpc} (reflection {reflection})"
    )?;
    writeln!(
        text,
        "  web      {scheme}://{web} (chat page, gRPC-Web, WebSocket)"
    )?;
    writeln!(
        text,
        "  admin    http://{admin} (/livez /readyz /metrics /buildinfo)"
    )?;
    writeln!(text, "  data     {data}")?;
    writeln!(text, "  history  {history}")
}

fn scheme(args: &ServeArgs) -> &'static str {
    if args.public.door.has_tls() {
        "https"
    } else {
        "http"
    }
}

fn write_next_steps(
    text: &mut String,
    args: &ServeArgs,
    key: &DevKey,
    Places { grpc, web, .. }: Places,
) -> std::fmt::Result {
    writeln!(
        text,
        "\nA DEVELOPMENT KEY is in use: whoever can read it can be any user. It is"
    )?;
    writeln!(
        text,
        "accepted on loopback only; for more, give --jwt-public-key.\n"
    )?;
    if args.in_memory() {
        writeln!(text, "Tokens for a day:\n")?;
        for name in ["alice", "bob"] {
            let Ok(user) = UserId::parse(name) else {
                continue;
            };
            writeln!(
                text,
                "  {name}  {}",
                key.sign(&user, TOKEN_LIFETIME, &SystemClock)
            )?;
        }
        writeln!(text)?;
    }
    let program = program();
    let addr = match grpc.port() {
        50051 => String::new(),
        _ => format!(" --addr http://{grpc}"),
    };
    let data = data_flag(args);
    let scheme = scheme(args);
    writeln!(
        text,
        "Open {scheme}://{web} in two browser windows, or talk from two more terminals:\n"
    )?;
    if args.in_memory() {
        writeln!(
            text,
            "  {program} talk --as alice bob{addr} --token TOKEN-OF-ALICE"
        )?;
        writeln!(
            text,
            "  {program} talk --as bob alice{addr} --token TOKEN-OF-BOB"
        )
    } else {
        writeln!(text, "  {program} talk --as alice bob{addr}{data}")?;
        writeln!(text, "  {program} talk --as bob alice{addr}{data}\n")?;
        writeln!(
            text,
            "Or see the calls, with a token from `{program} token alice{data}`:\n"
        )?;
        writeln!(
            text,
            "  grpcurl -plaintext {grpc} describe duologue.chat.v1.ChatService"
        )
    }
}

fn data_flag(args: &ServeArgs) -> String {
    if args.data.as_os_str() == "./duologue-data" {
        return String::new();
    }
    format!(" --data {}", args.data.display())
}

/// How this program is started again, as a person would type it.
fn program() -> String {
    let path = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let built_by_cargo = ["debug", "release"]
        .iter()
        .any(|profile| path.ends_with(Path::new("target").join(profile).join("duologue")));
    if built_by_cargo {
        "cargo run --".to_owned()
    } else {
        path.display().to_string()
    }
}
