//! What requests cost, counted where they pass.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Requests and capacity by operation and table.
#[derive(Debug, Default)]
pub struct Ledger {
    counted: Mutex<BTreeMap<(String, String), Counted>>,
    uncounted: Mutex<Vec<String>>,
}

/// Of one operation on one table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counted {
    /// Requests that were applied.
    pub requests: u64,
    /// Those of them whose condition failed. Each is counted as one unit: DynamoDB
    /// charges them, and does not say how much.
    pub refused: u64,
    /// Their capacity units.
    pub units: f64,
}

impl Ledger {
    /// All that was counted, by (operation, table).
    pub fn counted(&self) -> BTreeMap<(String, String), Counted> {
        self.lock().clone()
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Operations that did not ask for their consumed capacity. They were refused.
    pub fn uncounted(&self) -> Vec<String> {
        let uncounted = self.uncounted.lock();
        uncounted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_uncounted(&self, operation: &str) {
        let uncounted = self.uncounted.lock();
        let mut uncounted = uncounted.unwrap_or_else(PoisonError::into_inner);
        uncounted.push(operation.into());
    }

    /// Counts an answer. That of a batch has one entry for each table.
    pub(super) fn count(&self, operation: &str, answer: &Value) {
        let consumed = &answer["ConsumedCapacity"];
        let entries = consumed
            .as_array()
            .map_or(std::slice::from_ref(consumed), Vec::as_slice);
        for entry in entries {
            let table = entry["TableName"].as_str().unwrap_or_default();
            let mut counted = self.lock();
            let counted = counted.entry((operation.into(), table.into())).or_default();
            counted.requests += 1;
            counted.units += entry["CapacityUnits"].as_f64().unwrap_or_default();
        }
    }

    /// Counts a write whose condition failed.
    pub(super) fn count_refused(&self, operation: &str, request: &Value) {
        let table = request["TableName"].as_str().unwrap_or_default();
        let mut counted = self.lock();
        let counted = counted.entry((operation.into(), table.into())).or_default();
        counted.requests += 1;
        counted.refused += 1;
        counted.units += 1.0;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
