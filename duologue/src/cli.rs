//! What the program is told on its command line, and how it says that it failed.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::serve::config::ServeArgs;
use crate::{health, secret, send, serve, tables, tail, talk, token};

const EXAMPLES: &str = "\
Examples:
  duologue                                serve on loopback, data in ./duologue-data
  duologue talk --as alice bob            chat with bob as alice, in the terminal
  duologue send --as alice bob 'hello'    send one message from a script
  duologue tail --as bob                  print what happens to bob as JSON lines
  duologue token alice                    print a development token, for other clients";

/// One-on-one chat as a set of gRPC streaming services.
///
/// Without a subcommand, the whole system is served in one process: what
/// `duologue serve` does.
#[derive(Parser)]
#[command(name = "duologue", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the whole system in one process (also without a subcommand).
    Serve(Box<ServeArgs>),
    /// Print a development token for a user, and nothing else.
    Token(token::TokenArgs),
    /// Print the public half of the development key, as JWKS.
    PublicKey(token::PublicKeyArgs),
    /// Make the secret that services show each other, unless it is there.
    InternalSecret(secret::InternalSecretArgs),
    /// Make, show or check the tables in DynamoDB.
    Tables(tables::TablesArgs),
    /// Chat in the terminal.
    Talk(talk::TalkArgs),
    /// Send one message and wait until it is stored.
    Send(send::SendArgs),
    /// Print what happens as JSON lines, for scripts.
    Tail(tail::TailArgs),
    /// Ask a server whether it serves; exit 0 if it does.
    Health(health::HealthArgs),
}

/// The command line, for the reference.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs what the command line asks for.
pub async fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let done = match cli.command {
        None => serve::run(cli.serve, &matches).await,
        Some(command) => match misplaced(&matches) {
            Some(flag) => Err(anyhow::anyhow!(
                "--{flag} stands before the subcommand; give it after, to the subcommand that \
                 should have it"
            )),
            None => run_command(command, &matches).await,
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_command(command: Command, matches: &ArgMatches) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => {
            let matches = matches.subcommand_matches("serve").unwrap_or(matches);
            serve::run(*args, matches).await
        }
        Command::Token(args) => token::run(&args),
        Command::PublicKey(args) => token::public_key(&args),
        Command::InternalSecret(args) => secret::run(&args),
        Command::Tables(args) => tables::run(args).await,
        Command::Talk(args) => talk::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Health(args) => health::run(args).await,
    }
}

/// A flag of `serve` that was given before another subcommand, which would not
/// see it.
fn misplaced(matches: &ArgMatches) -> Option<String> {
    let serve = ServeArgs::augment_args(clap::Command::new("serve"));
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let flags = serve
        .get_arguments()
        .filter(|flag| given(flag.get_id().as_str()));
    flags
        .filter_map(|flag| flag.get_long())
        .map(str::to_owned)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_before_a_subcommand_is_not_ignored() {
        let given = ["duologue", "--data", "x", "token", "alice"];
        let matches = Cli::command().try_get_matches_from(given).unwrap();
        assert_eq!(misplaced(&matches).as_deref(), Some("data"));
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(Cli::try_parse_from(["duologue", "--no-such-flag"]).is_err());
    }
}
