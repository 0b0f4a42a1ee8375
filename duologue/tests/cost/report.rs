//! What passed, as a table.

use std::collections::BTreeMap;
use std::fmt;

use duologue_dynamodb::testing::Counted;

/// Requests and units by operation and table, and of how much they are the price.
pub(crate) struct Table {
    count: u64,
    rows: BTreeMap<(String, String), Counted>,
}

impl Table {
    pub(crate) fn new(count: u64) -> Self {
        Self {
            count,
            rows: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, counted: BTreeMap<(String, String), Counted>) {
        for (what, counted) in counted {
            let row = self.rows.entry(what).or_default();
            row.requests += counted.requests;
            row.refused += counted.refused;
            row.units += counted.units;
        }
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
        self.each(rows.map(|(_, counted)| counted.units).sum())
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
