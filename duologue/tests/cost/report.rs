//! What passed, as a table.

use std::collections::BTreeMap;
use std::fmt;

use duologue_dynamodb::testing::{Connector, Counted};

/// Requests and units by operation and table, and of how much they are the price.
pub(crate) struct Table {
    count: u64,
    rows: BTreeMap<(String, String), Counted>,
}

impl Table {
    /// What passed these ways, for so many of what is counted.
    pub(crate) fn of(count: u64, ways: &[&Connector]) -> Self {
        let mut rows: BTreeMap<_, Counted> = BTreeMap::new();
        for way in ways {
            assert!(way.ledger().uncounted().is_empty());
            for (what, counted) in way.ledger().counted() {
                let row = rows.entry(what).or_default();
                row.requests += counted.requests;
                row.refused += counted.refused;
                row.units += counted.units;
            }
        }
        Self { count, rows }
    }

    /// Write units for each.
    pub(crate) fn writes(&self) -> f64 {
        self.units(|operation| !reads(operation))
    }

    /// Read units for each.
    pub(crate) fn reads(&self) -> f64 {
        self.units(reads)
    }

    fn units(&self, of: impl Fn(&str) -> bool) -> f64 {
        let rows = self.rows.iter().filter(|((operation, _), _)| of(operation));
        // An empty sum of these is minus zero.
        self.each(0.0 + rows.map(|(_, counted)| counted.units).sum::<f64>())
    }

    #[expect(clippy::cast_precision_loss, reason = "there are thousands of them")]
    fn each(&self, units: f64) -> f64 {
        units / self.count as f64
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Table | Operation | Requests | Units | Units each |")?;
        writeln!(f, "|---|---|---:|---:|---:|")?;
        for ((operation, table), counted) in &self.rows {
            let Counted {
                requests, units, ..
            } = counted;
            let each = self.each(*units);
            writeln!(
                f,
                "| `{table}` | `{operation}` | {requests} | {units} | {each:.3} |"
            )?;
        }
        writeln!(f, "| | All writes | | | {:.2} |", self.writes())?;
        write!(f, "| | All reads | | | {:.2} |", self.reads())
    }
}

fn reads(operation: &str) -> bool {
    matches!(operation, "GetItem" | "Query" | "BatchGetItem")
}
