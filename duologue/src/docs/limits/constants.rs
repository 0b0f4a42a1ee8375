//! The limits as the code has them: what is not here is not compared.

use std::time::Duration;

/// The value of a limit, whatever its type and unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Amount {
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
macro_rules! named {
    ($($constant:path,)*) => {
        vec![$((stringify!($constant).replace(' ', ""), Amount::from($constant)),)*]
    };
}

type Named = Vec<(String, Amount)>;

pub(super) fn constants() -> Named {
    [
        contract(),
        runtime(),
        gateway(),
        chat(),
        history(),
        dynamodb(),
        presence(),
        client(),
        program(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn contract() -> Named {
    named![
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
        duologue_proto::limits::MAX_INTERNAL_BYTES,
        duologue_proto::limits::MAX_BODY_BYTES,
        duologue_proto::limits::MAX_RUN_DRAFTS,
        duologue_proto::limits::MAX_RUNS_IN_FLIGHT,
        duologue_proto::limits::MAX_INTERNAL_USERS,
        duologue_proto::limits::MAX_ADDRESS_BYTES,
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
    ]
}

fn runtime() -> Named {
    named![
        duologue_runtime::listener::TLS_HANDSHAKE_TIMEOUT,
        duologue_runtime::listener::PREFACE_TIMEOUT,
        duologue_runtime::listener::ACCEPT_BACKOFF,
        duologue_runtime::listener::TLS_RELOAD_INTERVAL,
        duologue_runtime::listener::MAX_TLS_FILE_BYTES,
        duologue_runtime::server::MAX_STREAMS_PER_CONNECTION,
        duologue_runtime::server::MAX_HEADER_LIST_BYTES,
        duologue_runtime::server::STREAM_WINDOW_BYTES,
        duologue_runtime::server::CONNECTION_WINDOW_BYTES,
        duologue_runtime::server::PROXY_MAX_STREAMS_PER_CONNECTION,
        duologue_runtime::server::PROXY_CONNECTION_WINDOW_BYTES,
        duologue_runtime::server::PROXY_MAX_PENDING_RESETS,
        duologue_runtime::server::MAX_WAITING_PROXIES,
        duologue_runtime::server::KEEPALIVE_INTERVAL,
        duologue_runtime::server::COMES_BACK_AFTER,
        duologue_runtime::server::KEEPALIVE_TIMEOUT,
        duologue_runtime::server::MAX_TIMEOUT,
        duologue_runtime::refusal::MAX_VIOLATIONS,
        duologue_runtime::rate::MAX_RATE_KEYS,
        duologue_runtime::rate::RATE_SWEEP_INTERVAL,
        duologue_runtime::auth::MAX_TOKEN_BYTES,
        duologue_runtime::auth::NOT_BEFORE_LEEWAY,
        duologue_runtime::auth::MAX_KEYS,
        duologue_runtime::config::MAX_DURATION,
        duologue_runtime::auth::MAX_KEY_FILE_BYTES,
        duologue_runtime::auth::MAX_DEV_KEY_FILE_BYTES,
        duologue_runtime::admin::MAX_CONNECTIONS,
        duologue_runtime::admin::HEADER_READ_TIMEOUT,
        duologue_runtime::admin::MAX_REQUEST_HEAD_BYTES,
        duologue_runtime::admin::MAX_CONNECTION_AGE,
        duologue_runtime::admin::GRACE,
        duologue_runtime::telemetry::EXPORT_TIMEOUT,
        duologue_runtime::telemetry::FLUSH_TIMEOUT,
        duologue_runtime::threads::MAX_BLOCKING_THREADS,
        duologue_runtime::inner::MIN_SECRET_BYTES,
        duologue_runtime::inner::MAX_SECRETS,
        duologue_runtime::inner::MAX_SECRET_FILE_BYTES,
        duologue_runtime::inner::INNER_MAX_STREAMS_PER_CONNECTION,
        duologue_runtime::inner::INNER_STREAM_WINDOW_BYTES,
        duologue_runtime::inner::INNER_CONNECTION_WINDOW_BYTES,
        duologue_runtime::upstream::MAX_ENDPOINTS,
        duologue_runtime::upstream::CONNECT_TIMEOUT,
        duologue_runtime::upstream::RECONNECT_MAX,
        duologue_runtime::upstream::UPSTREAM_KEEPALIVE_INTERVAL,
        duologue_runtime::upstream::UPSTREAM_KEEPALIVE_TIMEOUT,
        duologue_runtime::upstream::PROBE_INTERVAL,
        duologue_runtime::upstream::PROBE_TIMEOUT,
        duologue_runtime::upstream::RESOLVE_INTERVAL,
        duologue_runtime::upstream::RESOLVE_PAUSE,
        duologue_runtime::upstream::DEFAULT_DEADLINE,
        duologue_runtime::upstream::MAX_MESSAGE_BYTES,
        duologue_runtime::upstream::MAX_TRIES,
        duologue_runtime::upstream::RETRY_MAX,
        duologue_runtime::upstream::RETRY_PERCENT,
        duologue_runtime::upstream::RETRY_RESERVE_PER_SECOND,
        duologue_runtime::refusal::services::MAX_RETRY_AFTER,
    ]
}

fn gateway() -> Named {
    named![
        duologue_gateway::limits::HEADER_READ_TIMEOUT,
        duologue_gateway::limits::MAX_HEAD_BYTES,
        duologue_gateway::limits::MAX_HEADERS,
        duologue_gateway::limits::OPEN_TIMEOUT,
        duologue_gateway::limits::BODY_TIMEOUT,
        duologue_gateway::limits::STALL_TIMEOUT,
        duologue_gateway::limits::MAX_DEV_TOKEN_REQUEST_BYTES,
        duologue_gateway::limits::DEV_TOKEN_LIFETIME,
        duologue_gateway::limits::CORS_MAX_AGE,
        duologue_gateway::limits::MAX_MESSAGE_BYTES,
        duologue_gateway::limits::MESSAGE_TIMEOUT,
        duologue_gateway::limits::PING_INTERVAL,
        duologue_gateway::limits::PING_TIMEOUT,
        duologue_gateway::limits::DOWN_BYTES,
        duologue_gateway::limits::UP_BYTES,
        duologue_gateway::limits::FLUSH_TIMEOUT,
        duologue_gateway::limits::CLOSE_TIMEOUT,
    ]
}

fn chat() -> Named {
    named![
        duologue_chat::limits::OUTBOX_BYTES,
        duologue_chat::limits::OUTBOX_HARD_BYTES,
        duologue_chat::limits::WRITE_BYTES,
        duologue_chat::limits::INBOX_BYTES,
        duologue_chat::limits::MAX_WAITING,
        duologue_chat::limits::READ_MESSAGES,
        duologue_chat::limits::READ_BYTES,
        duologue_chat::limits::MAX_READS,
        duologue_chat::limits::HELD_BYTES,
        duologue_chat::limits::GAP_WAIT,
        duologue_chat::limits::MAX_GAPS,
        duologue_chat::limits::PAGE_CONVERSATIONS,
        duologue_chat::limits::PAGE_BYTES,
        duologue_chat::limits::KEPT_LEVEL,
        duologue_chat::limits::MAX_MOVES,
        duologue_chat::limits::MAX_RESTING_LANES,
        duologue_chat::limits::MAX_CURSOR_WRITES,
        duologue_chat::limits::BEHIND_PAUSE,
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
        duologue_chat::limits::MAX_RELEASES,
        duologue_chat::limits::QUEUE_RUNS,
        duologue_chat::limits::MAX_PENDING_KIB,
        duologue_chat::limits::RUN_TIMEOUT,
        duologue_chat::limits::REPLICA_REST,
        duologue_chat::limits::SWEEP,
        duologue_chat::limits::REQUEST_RUNS,
        duologue_chat::limits::REQUEST_BYTES,
        duologue_chat::limits::OPEN_TIMEOUT,
        duologue_chat::limits::CALL_TIMEOUT,
        duologue_chat::limits::FIRST_PAUSE,
        duologue_chat::limits::MAX_PAUSE,
        duologue_chat::limits::MAX_CHANGES,
        duologue_chat::limits::TRY_TIMEOUT,
        duologue_chat::limits::MAX_HOME_FAILURES,
        duologue_chat::limits::HOME_STAY,
        duologue_chat::limits::RELAY_BYTES,
        duologue_chat::limits::RELAY_MESSAGE_BYTES,
        duologue_chat::limits::MAX_NEWS_PER_USER,
        duologue_chat::limits::MAX_HINTS,
        duologue_chat::limits::MAX_LOOKUPS,
        duologue_chat::limits::LOOKUP_PAUSE,
        duologue_chat::limits::MAX_LOOKUP_PAUSE,
        duologue_chat::limits::RECEIPT_ROUTES_AGE,
        duologue_chat::limits::MAX_RECEIPT_ROUTES,
        duologue_chat::limits::ASK_TIMEOUT,
        duologue_chat::limits::BATCH_BYTES,
        duologue_chat::limits::RELAY_REQUEST_BYTES,
        duologue_chat::limits::MAX_IN_FLIGHT,
        duologue_chat::limits::ANSWER_TIMEOUT,
        duologue_chat::limits::IDLE_CHECK,
        duologue_chat::limits::LINK_OPEN_TIMEOUT,
        duologue_chat::limits::LINK_PAUSE,
        duologue_chat::limits::MAX_LINK_PAUSE,
        duologue_chat::limits::MAX_STALE,
        duologue_chat::limits::MAX_REMOVALS,
        duologue_chat::limits::MAX_LOOKS,
        duologue_chat::limits::LOOKS_AT_ONCE,
        duologue_chat::limits::MAX_LOOK_TRIES,
        duologue_chat::limits::LOOK_PAUSE,
        duologue_chat::limits::LEASE_TIMEOUT,
        duologue_chat::limits::TAKE_PAUSE,
        duologue_chat::limits::REREGISTER_SPREAD,
        duologue_chat::limits::LEAVE_TIMEOUT,
    ]
}

fn history() -> Named {
    named![
        duologue_history::limits::APPEND_DEADLINE,
        duologue_history::limits::MAX_READING_AGE,
        duologue_history::limits::SYNC_SLACK,
        duologue_history::limits::READING_LAG,
        duologue_history::limits::PROBE_INTERVAL,
        duologue_history::limits::REFUSING_KEPT,
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
        duologue_history::limits::ANSWERS_BYTES,
        duologue_history::limits::MAX_QUEUED_OPERATIONS,
        duologue_history::limits::MAX_QUEUED_BYTES,
        duologue_history::limits::MAX_GROUP_OPERATIONS,
        duologue_history::limits::MAX_GROUP_BYTES,
        duologue_history::limits::MAX_QUEUED_READS,
        duologue_history::limits::MAX_SEALED_MEMTABLES,
        duologue_history::limits::MAX_LEVEL_0_TABLES,
        duologue_history::limits::MAX_BUNDLE_BYTES,
        duologue_history::limits::MAX_BUNDLE_MESSAGES,
        duologue_history::limits::MAX_KNOWN_HEADS,
        duologue_history::limits::ROOM_POLL,
        duologue_history::limits::CACHE_BYTES,
        duologue_history::limits::MESSAGES_BUFFER_BYTES,
        duologue_history::limits::ROWS_BUFFER_BYTES,
        duologue_history::limits::JOURNALS_BYTES,
        duologue_history::limits::MAX_OPEN_FILES,
        duologue_history::limits::WORKERS,
        duologue_history::limits::MAX_SKEW,
        duologue_history::limits::MAX_PAGE_SLOTS,
        duologue_history::limits::MAX_PAGE_ROWS,
        duologue_history::limits::MAX_CURSOR_ROUNDS,
        duologue_history::limits::MAX_IDENTITY_ROUNDS,
    ]
}

fn dynamodb() -> Named {
    named![
        duologue_dynamodb::limits::CONNECT_TIMEOUT,
        duologue_dynamodb::limits::ATTEMPT_TIMEOUT,
        duologue_dynamodb::limits::OPERATION_TIMEOUT,
        duologue_dynamodb::limits::MAX_ATTEMPTS,
        duologue_dynamodb::limits::MAX_ROUND_TRIP,
        duologue_dynamodb::limits::CREATE_TIMEOUT,
        duologue_dynamodb::limits::CREATE_POLL,
    ]
}

fn presence() -> Named {
    named![
        duologue_presence::directory::GONE_KEPT,
        duologue_presence::directory::LAST_SEEN_KEPT,
        duologue_presence::directory::MAX_ROUTES_PER_USER,
        duologue_presence::directory::MAX_REPLACED,
        duologue_presence::dynamodb::MAX_ROWS_PER_USER,
        duologue_presence::directory::MAX_NODES,
        duologue_presence::memory::MAX_GONE_ROWS,
        duologue_presence::memory::MAX_LAST_SEEN_ROWS,
        duologue_presence::presence::MAX_WATCH_EVENTS,
        duologue_presence::presence::MAX_OWED_READINGS,
        duologue_presence::presence::MAX_LOOKUP_USERS,
        duologue_presence::presence::CONCURRENT_PAGES,
        duologue_runtime::lease::RENEW_INTERVAL,
        duologue_presence::dynamodb::MAX_TRIES,
        duologue_presence::dynamodb::RETRY_PAUSE,
        duologue_presence::dynamodb::RETRY_AFTER,
        duologue_presence::dynamodb::CONCURRENT_LOOKUPS,
        duologue_presence::dynamodb::MAX_USER_PAGES,
        duologue_presence::dynamodb::LIST_BUCKETS,
        duologue_presence::dynamodb::MAX_HINTS,
        duologue_presence::lease::POLL_INTERVAL,
        duologue_runtime::lease::DEAD_AFTER,
        duologue_presence::lease::FADES_AFTER,
        duologue_presence::lease::FORGOTTEN_AFTER,
        duologue_presence::lease::READS_APART,
        duologue_presence::lease::REPLACED_GRACE,
    ]
}

fn client() -> Named {
    named![
        duologue_client::limits::MAX_OUTBOX,
        duologue_client::limits::EVENT_QUEUE,
        duologue_client::limits::COMMAND_QUEUE,
        duologue_client::limits::COMMAND_BATCH,
        duologue_client::limits::FRAME_QUEUE,
        duologue_client::limits::MAX_CONVERSATIONS,
        duologue_client::limits::MAX_HELLO_ITEMS_BYTES,
        duologue_client::limits::MAX_HEARTBEAT_INTERVAL,
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
    ]
}

fn program() -> Named {
    named![
        crate::talk::HISTORY,
        crate::talk::MAX_UNSTORED,
        crate::talk::screen::LINES,
        crate::talk::connection::TOKEN_LIFETIME,
        crate::serve::banner::TOKEN_LIFETIME,
    ]
}
