//! `docs/limits.md` has every limit, with the value that the code has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Arg, Command};
use duologue_runtime::config::duration;

use super::{code, rows};

const LIMITS: &str = include_str!("../../../docs/limits.md");

/// Where the crates are, and what their limits begin with in the table.
const CRATES: [(&str, &str); 7] = [
    ("proto/src", "duologue_proto"),
    ("runtime/src", "duologue_runtime"),
    ("services/chat/src", "duologue_chat"),
    ("services/history/src", "duologue_history"),
    ("services/presence/src", "duologue_presence"),
    ("clients/rust/src", "duologue_client"),
    ("duologue/src", "crate"),
];

/// Numbers and times in the code that bound nothing.
const NO_LIMITS: [(&str, &str); 21] = [
    // Defaults of the library, which flags of `serve` replace.
    ("duologue_runtime", "DEFAULT_GRACE"),
    ("duologue_runtime", "DEFAULT_MAX_CONNECTIONS"),
    ("duologue_runtime", "DEFAULT_MAX_CONNECTIONS_PER_ADDRESS"),
    ("duologue_runtime", "DEFAULT_UNARY_DEADLINE"),
    // Given by a protocol or a format.
    ("duologue_chat", "ENVELOPE"),
    ("duologue_chat", "MESSAGE_DELIVERED"),
    ("duologue_client", "FORMAT"),
    ("duologue_history", "DIGEST_BYTES"),
    ("duologue_history", "FORMAT"),
    ("duologue_presence", "MINUTE_MILLIS"),
    ("duologue_runtime", "EXIT_CODE_AT_ONCE"),
    ("duologue_runtime", "PREFACE_BYTES"),
    // Estimates, first sizes and thresholds within another limit.
    ("duologue_chat", "BUFFER_BYTES"),
    ("duologue_chat", "HINT_BYTES"),
    ("duologue_chat", "LOW_BYTES"),
    ("duologue_client", "DEFAULT_SILENCE"),
    ("duologue_history", "OPERATION_BYTES"),
    ("duologue_runtime", "MIN_SWEEP_KEYS"),
    // Told to clients where nothing else is.
    ("duologue_chat", "RETRY_AFTER"),
    // Places that no sequence has.
    ("duologue_chat", "UNLISTED"),
    ("duologue_chat", "BY_TIME"),
];

/// The value of a limit, whatever its type and unit.
#[derive(Debug, PartialEq, Eq)]
enum Amount {
    Count(u64),
    Time(Duration),
}

impl From<Duration> for Amount {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

macro_rules! counts {
    ($($number:ty),*) => {
        $(impl From<$number> for Amount {
            fn from(count: $number) -> Self {
                Self::Count(u64::try_from(count).unwrap())
            }
        })*
    };
}

counts!(u16, u32, u64, i32, usize);

/// Each constant as the table writes it, with its value.
macro_rules! constants {
    ($($constant:path,)*) => {
        vec![$((stringify!($constant).replace(' ', ""), Amount::from($constant)),)*]
    };
}

fn constants() -> Vec<(String, Amount)> {
    constants![
        duologue_proto::limits::MAX_USER_ID_BYTES,
        duologue_proto::limits::MAX_CLIENT_ID_BYTES,
        duologue_proto::limits::MAX_TEXT_BYTES,
        duologue_proto::limits::MAX_REQUEST_BYTES,
        duologue_proto::limits::MAX_RESPONSE_BYTES,
        duologue_proto::limits::MAX_PAGE_BYTES,
        duologue_proto::limits::MAX_POSITIONS,
        duologue_proto::limits::MAX_CLIENT_NAME_BYTES,
        duologue_proto::limits::MAX_FEATURES,
        duologue_proto::limits::MAX_TOKEN_BYTES,
        duologue_proto::limits::MAX_SEARCH,
        duologue_proto::limits::MAX_SENDS_IN_FLIGHT,
        duologue_proto::limits::MAX_DEFERRED,
        duologue_proto::limits::MAX_SESSION_CONVERSATIONS,
        duologue_proto::limits::DEFAULT_MESSAGES_PAGE,
        duologue_proto::limits::MAX_MESSAGES_PAGE,
        duologue_proto::limits::DEFAULT_CONVERSATIONS_PAGE,
        duologue_proto::limits::MAX_CONVERSATIONS_PAGE,
        duologue_proto::limits::DEFAULT_USERS_PAGE,
        duologue_proto::limits::MAX_USERS_PAGE,
        duologue_proto::limits::HELLO_TIMEOUT,
        duologue_proto::limits::HEARTBEAT_INTERVAL,
        duologue_proto::limits::MAX_CONNECT_NUMBER_AHEAD,
        duologue_proto::limits::CURSOR_WRITE_INTERVAL,
        duologue_proto::limits::RESYNC_INTERVAL,
        duologue_proto::limits::MAX_SYNC_TOKEN_AGE,
        duologue_runtime::listener::TLS_HANDSHAKE_TIMEOUT,
        duologue_runtime::listener::PREFACE_TIMEOUT,
        duologue_runtime::listener::ACCEPT_BACKOFF,
        duologue_runtime::listener::TLS_RELOAD_INTERVAL,
        duologue_runtime::listener::MAX_TLS_FILE_BYTES,
        duologue_runtime::server::MAX_STREAMS_PER_CONNECTION,
        duologue_runtime::server::MAX_HEADER_LIST_BYTES,
        duologue_runtime::server::STREAM_WINDOW_BYTES,
        duologue_runtime::server::CONNECTION_WINDOW_BYTES,
        duologue_runtime::server::KEEPALIVE_INTERVAL,
        duologue_runtime::server::KEEPALIVE_TIMEOUT,
        duologue_runtime::server::MAX_TIMEOUT,
        duologue_runtime::refusal::MAX_VIOLATIONS,
        duologue_runtime::rate::MAX_RATE_KEYS,
        duologue_runtime::rate::RATE_SWEEP_INTERVAL,
        duologue_runtime::auth::MAX_TOKEN_BYTES,
        duologue_runtime::auth::NOT_BEFORE_LEEWAY,
        duologue_runtime::auth::MAX_KEYS,
        duologue_runtime::auth::MAX_KEY_FILE_BYTES,
        duologue_runtime::auth::MAX_DEV_KEY_FILE_BYTES,
        duologue_runtime::admin::MAX_CONNECTIONS,
        duologue_runtime::admin::HEADER_READ_TIMEOUT,
        duologue_runtime::admin::MAX_REQUEST_HEAD_BYTES,
        duologue_runtime::admin::MAX_CONNECTION_AGE,
        duologue_runtime::admin::GRACE,
        duologue_runtime::telemetry::EXPORT_TIMEOUT,
        duologue_runtime::telemetry::FLUSH_TIMEOUT,
        duologue_chat::limits::OUTBOX_BYTES,
        duologue_chat::limits::OUTBOX_HARD_BYTES,
        duologue_chat::limits::WRITE_BYTES,
        duologue_chat::limits::INBOX_BYTES,
        duologue_chat::limits::MAX_WAITING,
        duologue_chat::limits::READ_MESSAGES,
        duologue_chat::limits::READ_BYTES,
        duologue_chat::limits::MAX_READS,
        duologue_chat::limits::PAGE_CONVERSATIONS,
        duologue_chat::limits::PAGE_BYTES,
        duologue_chat::limits::KEPT_LEVEL,
        duologue_chat::limits::MAX_MOVES,
        duologue_chat::limits::MAX_RECEIPTS,
        duologue_chat::limits::MAX_PRESENCE,
        duologue_chat::limits::MAX_ECHO_BYTES,
        duologue_chat::limits::MAX_BATCH,
        duologue_chat::limits::BATCH,
        duologue_chat::limits::OVER_RATE_PAUSE,
        duologue_chat::limits::RETRY_PAUSE,
        duologue_chat::limits::MAX_SESSION,
        duologue_chat::limits::CLOSING_TIMEOUT,
        duologue_chat::limits::LEAVING,
        duologue_history::limits::APPEND_DEADLINE,
        duologue_history::limits::MAX_READING_AGE,
        duologue_history::limits::SYNC_SLACK,
        duologue_history::limits::READING_LAG,
        duologue_history::limits::SHARDS,
        duologue_history::limits::SHARD_QUEUE,
        duologue_history::limits::MAX_PENDING_KIB,
        duologue_history::limits::MAX_WAIT,
        duologue_history::limits::MAX_BATCH_DRAFTS,
        duologue_history::limits::MAX_PUT,
        duologue_history::limits::MAX_BLOCKED,
        duologue_history::limits::MAX_LATE,
        duologue_history::limits::MAX_RETRIES,
        duologue_history::limits::FIRST_RETRY_DELAY,
        duologue_history::limits::READ_SLOTS,
        duologue_history::limits::READ_BYTES,
        duologue_history::limits::MAX_SLOTS,
        duologue_history::limits::MAX_TAILS,
        duologue_history::limits::MAX_CACHED_SLOTS,
        duologue_history::limits::MAX_REMEMBERED,
        duologue_history::limits::MAX_REWRITES,
        duologue_history::limits::MAX_READ_MESSAGES,
        duologue_history::limits::MAX_READ_BYTES,
        duologue_history::limits::MAX_SYNC_PAGE,
        duologue_history::limits::MAX_SYNC_ROWS,
        duologue_history::limits::SYNC_ROWS_AT_ONCE,
        duologue_history::limits::READS_AT_ONCE,
        duologue_history::limits::CHUNK_ROWS,
        duologue_history::limits::MAX_ROWS,
        duologue_history::limits::LIST_ROWS_AT_ONCE,
        duologue_history::limits::RETRY_AFTER,
        duologue_history::limits::MAX_QUEUED_OPERATIONS,
        duologue_history::limits::MAX_QUEUED_BYTES,
        duologue_history::limits::MAX_GROUP_OPERATIONS,
        duologue_history::limits::MAX_GROUP_BYTES,
        duologue_history::limits::MAX_READERS,
        duologue_history::limits::MAX_SEALED_MEMTABLES,
        duologue_history::limits::MAX_LEVEL_0_TABLES,
        duologue_history::limits::ROOM_POLL,
        duologue_history::limits::CACHE_BYTES,
        duologue_history::limits::MESSAGES_BUFFER_BYTES,
        duologue_history::limits::ROWS_BUFFER_BYTES,
        duologue_history::limits::JOURNALS_BYTES,
        duologue_history::limits::MAX_OPEN_FILES,
        duologue_history::limits::WORKERS,
        duologue_presence::directory::GONE_KEPT,
        duologue_presence::directory::LAST_SEEN_KEPT,
        duologue_presence::directory::MAX_ROUTES_PER_USER,
        duologue_presence::directory::MAX_NODES,
        duologue_presence::memory::MAX_GONE_ROWS,
        duologue_presence::memory::MAX_LAST_SEEN_ROWS,
        duologue_presence::presence::MAX_WATCH_EVENTS,
        duologue_presence::presence::MAX_LOOKUP_USERS,
        duologue_presence::lease::RENEW_INTERVAL,
        duologue_presence::lease::POLL_INTERVAL,
        duologue_presence::lease::DEAD_AFTER,
        duologue_presence::lease::FADES_AFTER,
        duologue_client::limits::MAX_OUTBOX,
        duologue_client::limits::EVENT_QUEUE,
        duologue_client::limits::COMMAND_QUEUE,
        duologue_client::limits::COMMAND_BATCH,
        duologue_client::limits::FRAME_QUEUE,
        duologue_client::limits::MAX_CONVERSATIONS,
        duologue_client::limits::MAX_HELLO_ITEMS_BYTES,
        duologue_client::limits::BACKOFF_MIN,
        duologue_client::limits::BACKOFF_MAX,
        duologue_client::limits::MAX_RETRY_AFTER,
        duologue_client::limits::RESEND_DELAY,
        duologue_client::limits::RETRY_DELAY,
        duologue_client::limits::CURSOR_INTERVAL,
        duologue_client::limits::CONNECT_TIMEOUT,
        duologue_client::limits::OPEN_TIMEOUT,
        duologue_client::limits::WELCOME_TIMEOUT,
        duologue_client::limits::CALL_TIMEOUT,
        duologue_client::limits::STREAM_WINDOW_BYTES,
        duologue_client::limits::CONNECTION_WINDOW_BYTES,
        duologue_client::limits::KEEPALIVE_INTERVAL,
        duologue_client::limits::KEEPALIVE_TIMEOUT,
        duologue_client::limits::SILENT_HEARTBEATS,
        duologue_client::limits::SAVE_INTERVAL,
        duologue_client::limits::CLOSE_TIMEOUT,
        duologue_client::limits::SCAN_PAGE,
        crate::talk::HISTORY,
        crate::talk::MAX_UNSTORED,
        crate::talk::screen::LINES,
        crate::talk::connection::TOKEN_LIFETIME,
        crate::serve::banner::TOKEN_LIFETIME,
    ]
}

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
