//! The tables, in memory, and a copy of them that lags.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dynoxide::Database;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long after its signature a request may still be applied: DynamoDB takes it for
/// 5 minutes.
pub const MAX_LATE: Duration = Duration::from_mins(4);

/// An answer: status and body.
pub(super) type Answer = (u16, String);

/// DynamoDB in memory. Reads that do not ask for consistency go to a copy that lags
/// behind, as those of DynamoDB may.
pub struct Engine {
    leader: Database,
    lagging: Mutex<Lagging>,
}

struct Lagging {
    copy: Database,
    /// What the copy has not seen yet, in the order in which it was applied.
    behind: VecDeque<(String, String)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// One without tables.
    ///
    /// # Panics
    ///
    /// If a database in memory cannot be opened.
    pub fn new() -> Self {
        let memory = || Database::memory().expect("a database in memory opens");
        Self {
            leader: memory(),
            lagging: Mutex::new(Lagging {
                copy: memory(),
                behind: VecDeque::new(),
            }),
        }
    }

    /// Applies a request. What changes something is also the copy's, later.
    pub(super) fn apply(&self, operation: &str, body: &str) -> Answer {
        let mut lagging = self.lagging.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = dispatch(&self.leader, operation, body);
        match changes(operation) {
            Some(Changes::Tables) => _ = dispatch(&lagging.copy, operation, body),
            Some(Changes::Items) if answer.0 == 200 => {
                lagging.behind.push_back((operation.into(), body.into()));
            }
            Some(Changes::Items) | None => {}
        }
        answer
    }

    /// Reads from the copy, which stays behind by at most `lag` changes.
    pub(super) fn read_lagging(&self, operation: &str, body: &str, lag: u64) -> Answer {
        let mut lagging = self.lagging.lock().unwrap_or_else(PoisonError::into_inner);
        while u64::try_from(lagging.behind.len()).unwrap_or(u64::MAX) > lag {
            let Some((operation, body)) = lagging.behind.pop_front() else {
                break;
            };
            dispatch(&lagging.copy, &operation, &body);
        }
        dispatch(&lagging.copy, operation, body)
    }
}

/// What an operation may change.
enum Changes {
    Tables,
    Items,
}

fn changes(operation: &str) -> Option<Changes> {
    match operation {
        "CreateTable" | "DeleteTable" | "UpdateTable" | "UpdateTimeToLive" => Some(Changes::Tables),
        "PutItem" | "DeleteItem" | "UpdateItem" | "BatchWriteItem" => Some(Changes::Items),
        _ => None,
    }
}

fn dispatch(database: &Database, operation: &str, body: &str) -> Answer {
    match operation {
        "CreateTable" => answer(body, |request| database.create_table(request)),
        "DeleteTable" => answer(body, |request| database.delete_table(request)),
        "DescribeTable" => answer(body, |request| database.describe_table(request)),
        "ListTables" => answer(body, |request| database.list_tables(request)),
        "UpdateTable" => answer(body, |request| database.update_table(request)),
        "UpdateTimeToLive" => answer(body, |request| database.update_time_to_live(request)),
        "DescribeTimeToLive" => answer(body, |request| database.describe_time_to_live(request)),
        "PutItem" => answer(body, |request| database.put_item(request)),
        "GetItem" => answer(body, |request| database.get_item(request)),
        "DeleteItem" => answer(body, |request| database.delete_item(request)),
        "UpdateItem" => answer(body, |request| database.update_item(request)),
        "Query" => answer(body, |request| database.query(request)),
        "BatchGetItem" => answer(body, |request| database.batch_get_item(request)),
        "BatchWriteItem" => answer(body, |request| database.batch_write_item(request)),
        // Neither scans nor transactions are Duologue's.
        _ => refusal("UnknownOperationException", "a test"),
    }
}

/// An error of DynamoDB's.
pub(super) fn refusal(code: &str, message: &str) -> Answer {
    let status = if code == "InternalServerError" {
        500
    } else {
        400
    };
    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
    let body = serde_json::json!({ "__type": kind, "message": message });
    (status, body.to_string())
}

fn answer<Q: DeserializeOwned, A: Serialize>(
    body: &str,
    apply: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> Answer {
    let request = match serde_json::from_str(body) {
        Ok(request) => request,
        Err(error) => return refusal("SerializationException", &error.to_string()),
    };
    match apply(request) {
        Ok(answer) => match serde_json::to_value(&answer) {
            Ok(answer) => (200, Value::to_string(&answer)),
            Err(error) => refusal("InternalServerError", &error.to_string()),
        },
        Err(error) => (error.status_code(), error.to_json()),
    }
}
