//! What every program needs to read and show its configuration.
//!
//! Flags and their variables are clap's; this holds value types, and what can be
//! derived from a [`clap::Command`]. It is the only part that looks at the
//! environment as a whole.

use std::ffi::OsString;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

/// What the variables of every flag begin with.
pub const VARIABLE_PREFIX: &str = "DUOLOGUE_";

const HIDDEN: &str = "(hidden)";

/// A value that is never shown.
///
/// Its flag must be marked with `hide_env_values(true)`, so that neither
/// `--help` nor [`effective_values`] shows what clap was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for who really needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: FromStr> FromStr for Secret<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The longest duration that a flag takes: a year.
pub const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Parses a duration such as `250ms`, `30s`, `10m` or `2h`; a `value_parser`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const RULE: &str = "is not a duration: write a whole number and ms, s, m or h, such as 30s";
    let refuse = || format!("`{text}` {RULE}");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(refuse)?;
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    number
        .checked_mul(millis_per_unit)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| format!("`{text}` is too long a duration: at most 8760h"))
}

/// The effective value of every flag, as `name = value`, in the order of the
/// flags; secrets hidden, and flags without a value left out.
pub fn effective_values(command: &Command, matches: &ArgMatches) -> Vec<String> {
    flags(command)
        .filter_map(|arg| {
            let raw = matches.try_get_raw(arg.get_id().as_str()).ok()??;
            let values: Vec<_> = raw.map(|value| value.to_string_lossy()).collect();
            let shown = if is_secret(arg) {
                HIDDEN.to_owned()
            } else {
                values.join(", ")
            };
            Some(format!("{} = {shown}", arg.get_long()?))
        })
        .collect()
}

/// Variables of the environment that look like ours and belong to no flag of
/// the command or its subcommands, in order: probably misspelt.
pub fn unknown_variables(command: &Command) -> Vec<String> {
    let environment = std::env::vars_os().map(|(name, _)| name);
    unknown_among(environment, command)
}

/// The flags as a Markdown table for `docs/configuration.md`.
pub fn markdown_table(command: &Command) -> String {
    let mut table =
        String::from("| Flag | Environment variable | Default | Meaning |\n|---|---|---|---|\n");
    for arg in flags(command) {
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            code(&flag(arg)),
            arg.get_env()
                .map(|name| code(&name.to_string_lossy()))
                .unwrap_or_default(),
            default_of(arg),
            meaning(arg),
        );
    }
    table
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        arg.get_long().is_some()
            && !arg.is_hide_set()
            && !matches!(arg.get_id().as_str(), "help" | "version")
    })
}

fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set()
}

fn unknown_among(environment: impl Iterator<Item = OsString>, command: &Command) -> Vec<String> {
    let mut known = Vec::new();
    collect_variables(command, &mut known);
    let mut unknown: Vec<_> = environment
        .filter(|name| !known.contains(name))
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(VARIABLE_PREFIX))
        .collect();
    unknown.sort_unstable();
    unknown
}

fn collect_variables(command: &Command, known: &mut Vec<OsString>) {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    known.extend(variables.map(ToOwned::to_owned));
    for subcommand in command.get_subcommands() {
        collect_variables(subcommand, known);
    }
}

fn flag(arg: &Arg) -> String {
    let name = format!("--{}", arg.get_long().unwrap_or_default());
    if !arg.get_action().takes_values() {
        return name;
    }
    let values = arg.get_value_names().unwrap_or_default();
    values
        .iter()
        .fold(name, |flag, value| format!("{flag} <{value}>"))
}

fn default_of(arg: &Arg) -> String {
    if is_secret(arg) || !arg.get_action().takes_values() {
        return String::new();
    }
    let defaults = arg.get_default_values().iter();
    let defaults: Vec<_> = defaults
        .filter(|value| !value.is_empty())
        .map(|value| code(&value.to_string_lossy()))
        .collect();
    defaults.join(", ")
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let words: Vec<_> = help.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use clap::builder::ValueParser;
    use clap::{Args as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        /// Where gRPC listens.
        ///
        /// Port 0 lets the system choose.
        #[arg(long, env = "DUOLOGUE_GRPC_LISTEN", default_value = "127.0.0.1:50051")]
        grpc_listen: String,
        /// How long draining may take; one of a | b.
        #[arg(long, env = "DUOLOGUE_GRACE", default_value = "20s", value_parser = ValueParser::new(duration))]
        grace: Duration,
        /// A password.
        #[arg(long, env = "DUOLOGUE_PASSWORD", hide_env_values = true)]
        password: Option<Secret<String>>,
        /// Turns reflection off.
        #[arg(long)]
        no_reflection: bool,
        /// Not given.
        #[arg(long)]
        absent: Option<String>,
    }

    fn command() -> Command {
        Flags::augment_args(Command::new("duologue"))
    }

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for wrong in [
            "",
            "s",
            "30",
            "1.5s",
            "-1s",
            "30 s",
            "30d",
            "99999999999999999999s",
            "３s",
        ] {
            let error = duration(wrong).unwrap_err();
            assert!(
                error.contains(wrong) && error.contains("such as 30s"),
                "{error}"
            );
        }
        assert!(
            duration("18446744073709551615h")
                .unwrap_err()
                .contains("too long")
        );
    }

    #[test]
    fn a_secret_is_never_shown_but_can_be_used() {
        let secret: Secret<String> = "hunter2".parse().unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret} {secret:?} {:?}", Some(&secret)).contains("hunter2"));
    }

    #[test]
    fn effective_values_hide_secrets_and_leave_out_what_is_absent() {
        let command = command();
        let args = ["duologue", "--password", "hunter2", "--grace", "5s"];
        let matches = command.clone().get_matches_from(args);
        assert_eq!(
            effective_values(&command, &matches),
            [
                "grpc-listen = 127.0.0.1:50051",
                "grace = 5s",
                "password = (hidden)",
                "no-reflection = false",
            ]
        );
        let flags = Flags::from_arg_matches(&matches).unwrap();
        assert_eq!(flags.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(flags.grace, Duration::from_secs(5));
        assert!(flags.absent.is_none() && !flags.no_reflection);
        assert!(!flags.grpc_listen.is_empty());
    }

    #[test]
    fn misspelt_variables_are_found_and_foreign_ones_left_alone() {
        let names = [
            "DUOLOGUE_GRACE",
            "DUOLOGUE_GRAEC",
            "DUOLOGUE_A",
            "PATH",
            "XDUOLOGUE_B",
        ];
        let command = Command::new("outer").subcommand(command());
        let unknown = unknown_among(names.iter().map(OsString::from), &command);
        assert_eq!(unknown, ["DUOLOGUE_A", "DUOLOGUE_GRAEC"]);
    }

    #[test]
    fn the_table_has_a_row_per_flag() {
        let table = markdown_table(&command());
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(
            rows[2],
            "| `--grpc-listen <GRPC_LISTEN>` | `DUOLOGUE_GRPC_LISTEN` | `127.0.0.1:50051` \
             | Where gRPC listens. Port 0 lets the system choose. |"
        );
        assert!(rows[3].ends_with("one of a \\| b |"), "{}", rows[3]);
        assert_eq!(
            rows[5],
            "| `--no-reflection` |  |  | Turns reflection off |"
        );
        assert_eq!(rows.len(), 2 + 5);
    }
}
