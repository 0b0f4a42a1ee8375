//! `docs/proof.md` names every rule and every fault that can be planted, once.

use std::collections::BTreeSet;

use duologue_runtime::faults::Mutant;

use super::planted;
use crate::check::rules;

const PROOF: &str = include_str!("../../../../docs/proof.md");

/// Promises that are broken in the record, for want of a product that breaks them.
const IN_RECORD: [(&str, fn()); 3] = [
    (
        "a_message_shown_to_a_stranger",
        planted::a_message_shown_to_a_stranger,
    ),
    ("a_resume_that_skips_one", planted::a_resume_that_skips_one),
    ("a_message_pushed_twice", planted::a_message_pushed_twice),
];

/// The rows of all tables, without their heads.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let rows = PROOF.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`')).collect()
    })
}

#[test]
fn every_rule_and_every_fault_stands_in_the_document() {
    let named: BTreeSet<&str> = rows().map(|row| row[0]).collect();
    let faults = Mutant::ALL.iter().map(|mutant| mutant.name());
    let in_record = IN_RECORD.iter().map(|(name, _)| *name);
    let all = rules().chain(faults).chain(in_record);
    assert_eq!(named, all.collect());
    // A fault may be caught by several harnesses, by each once.
    let pairs: Vec<_> = rows().map(|row| (row[0], *row.last().unwrap())).collect();
    let distinct: BTreeSet<_> = pairs.iter().collect();
    assert_eq!(pairs.len(), distinct.len());
}

#[test]
fn what_the_checker_is_said_to_catch_is_a_rule_of_it() {
    let of_checker = |row: &Vec<&str>| matches!(row.last(), Some(&("simulation" | "record")));
    for row in rows().filter(of_checker) {
        assert!(rules().any(|rule| rule == row[2]), "{row:?}");
    }
}

#[test]
fn what_is_planted_in_the_record_is_said_to_be() {
    let said = rows().filter(|row| row.last() == Some(&"record"));
    let said: Vec<_> = said.map(|row| row[0]).collect();
    assert_eq!(said, IN_RECORD.map(|(name, _)| name));
    for (_, test) in IN_RECORD {
        test();
    }
}
