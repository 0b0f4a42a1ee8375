//! `docs/limits.md` has every limit, with the value that the code has.

mod constants;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Arg, Command};
use duologue_runtime::config::duration;

use self::constants::{Amount, constants};
use super::{code, rows};

const LIMITS: &str = include_str!("../../../docs/limits.md");

/// Where the crates are, and what their limits begin with in the table.
const CRATES: [(&str, &str); 9] = [
    ("dynamodb/src", "duologue_dynamodb"),
    ("gateway/src", "duologue_gateway"),
    ("proto/src", "duologue_proto"),
    ("runtime/src", "duologue_runtime"),
    ("services/chat/src", "duologue_chat"),
    ("services/history/src", "duologue_history"),
    ("services/presence/src", "duologue_presence"),
    ("clients/rust/src", "duologue_client"),
    ("duologue/src", "crate"),
];

/// Numbers and times in the code that bound nothing.
const NO_LIMITS: [(&str, &str); 62] = [
    // Defaults of the library, which flags of `serve` replace.
    ("duologue_runtime", "DEFAULT_GRACE"),
    ("duologue_runtime", "DEFAULT_MAX_CONNECTIONS"),
    ("duologue_gateway", "DEFAULT_MAX_WAITING_PER_ADDRESS"),
    ("duologue_gateway", "MAX_READS"),
    ("duologue_runtime", "DEFAULT_MAX_CONNECTIONS_PER_ADDRESS"),
    ("duologue_runtime", "DEFAULT_UNARY_DEADLINE"),
    // Given by a protocol or a format.
    ("duologue_chat", "AFTER_SEQ"),
    ("duologue_chat", "BODY"),
    ("duologue_chat", "ENVELOPE"),
    ("duologue_chat", "HEADER_BYTES"),
    ("duologue_chat", "MESSAGE_DELIVERED"),
    ("duologue_chat", "MESSAGE_ID"),
    ("duologue_chat", "PEER"),
    ("duologue_chat", "REF"),
    ("duologue_chat", "SEND_MESSAGE"),
    ("duologue_chat", "STORED"),
    ("duologue_chat", "TEXT"),
    ("duologue_client", "FORMAT"),
    ("duologue_history", "DIGEST_BYTES"),
    ("duologue_history", "FORMAT"),
    ("duologue_history", "KEYSPACES"),
    ("duologue_presence", "MINUTE_MILLIS"),
    ("duologue_runtime", "BITS"),
    ("duologue_runtime", "EXIT_CODE_AT_ONCE"),
    ("duologue_runtime", "MAPPED_BITS"),
    ("duologue_gateway", "PREFIX_BYTES"),
    ("duologue_dynamodb", "DATE_STEP"),
    ("duologue_gateway", "ACCESS_TOKEN"),
    ("duologue_gateway", "HELLO"),
    ("duologue_gateway", "KEY_BYTES"),
    ("duologue_gateway", "MAX_CONTROL_BYTES"),
    ("duologue_gateway", "MAX_REASON_BYTES"),
    // How often something is logged.
    ("duologue_gateway", "OPEN_WARNING_INTERVAL"),
    // One read, into memory that no connection keeps.
    ("duologue_gateway", "READ_BYTES"),
    // Of builds for tests only.
    ("duologue_dynamodb", "MAX_LAG"),
    ("duologue_dynamodb", "MAX_LATE"),
    ("duologue_dynamodb", "SIGNATURE_LIFE"),
    ("duologue_runtime", "LINGER"),
    // Estimates, first sizes and thresholds within another limit.
    ("duologue_chat", "BUFFER_BYTES"),
    ("duologue_chat", "START_PAUSE"),
    ("duologue_chat", "HINT_BYTES"),
    ("duologue_chat", "IDLE_LOOK"),
    ("duologue_chat", "LEASE_LOOK"),
    ("duologue_chat", "LOW_BYTES"),
    ("duologue_chat", "NEWS_BYTES"),
    ("duologue_client", "DEFAULT_SILENCE"),
    ("duologue_history", "OPERATION_BYTES"),
    ("duologue_presence", "MIN_HINTS"),
    ("duologue_runtime", "MIN_SWEEP_KEYS"),
    ("duologue_runtime", "BUDGET_WINDOW"),
    ("duologue_runtime", "MAX_TRACEPARENT_BYTES"),
    ("duologue_runtime", "RECONNECT_BASE"),
    ("duologue_runtime", "RELOAD_INTERVAL"),
    ("duologue_runtime", "RETRY_BASE"),
    ("duologue_chat", "FRAME"),
    ("duologue_chat", "RESERVED_BYTES"),
    ("duologue_history", "MAX_SEQUENCE_STEP"),
    ("duologue_history", "USUAL_SEQUENCE_STEP"),
    // Told to clients where nothing else is.
    ("duologue_chat", "RETRY_AFTER"),
    ("duologue_runtime", "PASSED_RETRY_AFTER"),
    // Places that no sequence has.
    ("duologue_chat", "UNLISTED"),
    ("duologue_chat", "BY_TIME"),
];

#[test]
fn every_limit_has_the_value_of_the_code() {
    let listed = table(|key| !is_flag(key));
    let constants = constants();
    for (key, value, unit) in &listed {
        let constant = constants.iter().find(|(name, _)| name == key);
        let (_, amount) = constant.unwrap_or_else(|| panic!("{key} is not compared with the code"));
        assert_eq!(&parse(value, unit), amount, "{key}");
    }
    let listed: BTreeSet<_> = listed.iter().map(|(key, ..)| key).collect();
    for (name, _) in &constants {
        assert!(listed.contains(name), "{name} is not in docs/limits.md");
    }
}

#[test]
fn every_flag_that_sets_a_limit_is_listed_with_its_default() {
    let listed = table(is_flag);
    let flags = limiting_flags(&crate::command());
    for (key, value, unit) in &listed {
        let flag = flags.iter().find(|(name, _)| name == key);
        let (_, default) = flag.unwrap_or_else(|| panic!("there is no {key}"));
        match duration(default) {
            Ok(time) => assert_eq!(parse(value, unit), Amount::Time(time), "{key}"),
            Err(_) => assert_eq!(&value.replace(',', ""), default, "{key}"),
        }
    }
    let listed: BTreeSet<_> = listed.iter().map(|(key, ..)| key).collect();
    for (name, _) in &flags {
        assert!(listed.contains(name), "{name} is not in docs/limits.md");
    }
}

#[test]
fn every_number_and_time_in_the_code_is_listed_or_is_no_limit() {
    let constants = constants();
    let named = |(package, name): &(&str, String)| {
        let is_listed = constants.iter().any(|(key, _)| {
            let (path, last) = key.rsplit_once("::").unwrap();
            last == name && path.split("::").next() == Some(*package)
        });
        is_listed || NO_LIMITS.contains(&(package, name))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = 0;
    for (folder, package) in CRATES {
        for name in constants_below(&root.join(folder)) {
            found += 1;
            let constant = (package, name);
            assert!(named(&constant), "{constant:?} is not in docs/limits.md");
        }
    }
    assert!(
        found >= constants.len(),
        "only {found} constants were found"
    );
}

/// (key, value, unit) of the rows whose key is wanted.
fn table(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, String, String)> {
    let rows = rows(LIMITS, "").into_iter().map(|row| {
        let [_, value, unit, _, _, key] = &row[..] else {
            panic!("six cells are wanted: {row:?}");
        };
        (code(key).to_owned(), value.clone(), unit.clone())
    });
    rows.filter(|(key, ..)| is_wanted(key)).collect()
}

fn is_flag(key: &str) -> bool {
    key.contains("--")
}

fn parse(value: &str, unit: &str) -> Amount {
    let number: u64 = value.replace(',', "").parse().unwrap();
    match unit {
        "ms" => Amount::Time(Duration::from_millis(number)),
        "s" => Amount::Time(Duration::from_secs(number)),
        "min" => Amount::Time(Duration::from_mins(number)),
        "h" => Amount::Time(Duration::from_hours(number)),
        "d" => Amount::Time(Duration::from_hours(24 * number)),
        "MiB" => Amount::Count(number * 1024 * 1024),
        "KiB" => Amount::Count(number * 1024),
        _ => Amount::Count(number),
    }
}

/// Flags with a default that is a number, a time or a rate, by the name that the
/// table gives them: those of `serve` without the subcommand's.
fn limiting_flags(command: &Command) -> Vec<(String, String)> {
    let of = |command: &Command| {
        let prefix = match command.get_name() {
            "serve" => String::new(),
            name => format!("{name} "),
        };
        let flags = command.get_arguments().filter_map(move |arg| {
            let default = default_of(arg)?;
            Some((format!("{prefix}--{}", arg.get_long()?), default))
        });
        flags.collect::<Vec<_>>()
    };
    command.get_subcommands().flat_map(of).collect()
}

fn default_of(arg: &Arg) -> Option<String> {
    let default = arg.get_default_values().first()?.to_str()?.to_owned();
    let is_rate = default
        .split_once('/')
        .is_some_and(|(rate, burst)| is_number(rate) && is_number(burst));
    let is_limit = is_number(&default) || is_rate || duration(&default).is_ok();
    is_limit.then_some(default)
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}

/// The names of the constants of a crate that are numbers or times, at the top
/// level of its files.
fn constants_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.contains("tests") || name == "generated" || name == "docs" {
            continue;
        }
        if path.is_dir() {
            names.extend(constants_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            names.extend(text.lines().filter_map(constant).map(str::to_owned));
        }
    }
    names
}

fn constant(line: &str) -> Option<&str> {
    const TYPES: [&str; 7] = ["Duration", "Seq", "i32", "u16", "u32", "u64", "usize"];
    let declared = line.strip_prefix("pub ").unwrap_or(line);
    let declared = declared
        .strip_prefix("pub(crate) ")
        .or_else(|| declared.strip_prefix("pub(super) "))
        .unwrap_or(declared);
    let (name, rest) = declared.strip_prefix("const ")?.split_once(": ")?;
    let (kind, _) = rest.split_once(" =")?;
    TYPES.contains(&kind).then_some(name)
}
