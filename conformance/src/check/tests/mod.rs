//! Every rule passes a good record and is alone in catching what is planted for it.

mod planted;
mod proof;
mod story;

use self::story::good;
use super::{check, rules};
use crate::event::Event;
use crate::record::Record;

/// The names of the rules that a record breaks, each once.
fn broken(events: Vec<Event>) -> Vec<&'static str> {
    let violations = check(&Record::of(events));
    let mut rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_good_record_breaks_no_rule() {
    assert_eq!(broken(good()), Vec::<&str>::new());
}

#[test]
fn an_empty_record_breaks_no_rule() {
    assert_eq!(broken(Vec::new()), Vec::<&str>::new());
}

#[test]
fn every_rule_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = rules().collect();
    assert_eq!(names.len(), rules().count());
}

#[test]
fn a_violation_names_events_of_the_record() {
    let mut events = good();
    let last = events.len() - 1;
    events[last] = Event::End {
        open: [story::BOB_LEFT].into(),
    };
    let record = Record::of(events);
    let violations = check(&record);
    assert!(!violations.is_empty());
    let known = |at: &u64| record.entries.iter().any(|entry| entry.at == *at);
    assert!(
        violations
            .iter()
            .all(|v| !v.events.is_empty() && v.events.iter().all(known))
    );
}
