//! The history checker: from a record to the promises that it breaks.
//!
//! Every rule is one pure function with a name that does not change. A rule must
//! be sound: it fails only for what the contract forbids, whatever the timing of
//! clients, network and server was. Where the record does not decide, it is silent.

mod answers;
mod cursors;
mod history;
mod index;
mod order;
mod replay;
mod shown;
#[cfg(test)]
mod tests;

use std::fmt;

use self::index::Index;
use crate::record::Record;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the rule.
    pub rule: &'static str,
    /// What was seen, for a person.
    pub what: String,
    /// The numbers of the events that show it.
    pub events: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (events {:?})", self.rule, self.what, self.events)
    }
}

/// What a rule has found.
struct Findings {
    rule: &'static str,
    violations: Vec<Violation>,
}

impl Findings {
    fn add(&mut self, what: String, events: impl IntoIterator<Item = u64>) {
        self.violations.push(Violation {
            rule: self.rule,
            what,
            events: events.into_iter().collect(),
        });
    }
}

type Rule = fn(&Index<'_>, &mut Findings);

/// Every rule by its name.
const RULES: [(&str, Rule); 20] = [
    ("acknowledged_present", history::acknowledged_present),
    ("at_most_once", history::at_most_once),
    ("one_order", history::one_order),
    ("unknown_both_or_neither", history::unknown_both_or_neither),
    ("nothing_invented", history::nothing_invented),
    ("accepted_at_monotone", history::accepted_at_monotone),
    ("session_order", order::session_order),
    ("ack_before_send", order::ack_before_send),
    ("duplicate_flag_truthful", answers::duplicate_flag_truthful),
    ("goodbye_is_last", answers::goodbye_is_last),
    ("client_goes_on", answers::client_goes_on),
    ("everything_settles", answers::everything_settles),
    ("shown_once_in_order", shown::shown_once_in_order),
    ("no_gap_from_start", shown::no_gap_from_start),
    ("caught_up_true", shown::caught_up_true),
    ("eventually_caught_up", shown::eventually_caught_up),
    ("nothing_to_strangers", shown::nothing_to_strangers),
    ("cursor_never_lowered", cursors::cursor_never_lowered),
    ("receipts_told", cursors::receipts_told),
    ("receipts_told_at_sync", cursors::receipts_told_at_sync),
];

/// The names of all rules.
pub fn rules() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name)
}

/// Checks a record by every rule.
pub fn check(record: &Record) -> Vec<Violation> {
    check_by(record, |_| true)
}

/// Checks a record by the rules that are chosen by name.
pub fn check_by(record: &Record, chosen: impl Fn(&str) -> bool) -> Vec<Violation> {
    let index = Index::of(record);
    let chosen = RULES.into_iter().filter(|(name, _)| chosen(name));
    chosen
        .flat_map(|(name, rule)| {
            let mut findings = Findings {
                rule: name,
                violations: Vec::new(),
            };
            rule(&index, &mut findings);
            findings.violations
        })
        .collect()
}
