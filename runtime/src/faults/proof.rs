//! The table of planted faults in `docs/proof.md`, for the tests that keep it true.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::Once;

use super::{Mutant, plant};

const PROOF: &str = include_str!("../../../docs/proof.md");

/// The faults that a harness answers for in the table, each with the rule or the
/// test that catches it.
pub fn caught_in(harness: &str) -> BTreeMap<&'static str, &'static str> {
    let rows = PROOF.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(bare).collect();
        match cells[..] {
            ["", mutant, _, caught_by, by, ""] if by == harness => Some((mutant, caught_by)),
            _ => None,
        }
    });
    rows.collect()
}

/// A cell without its spaces and its marks of code.
fn bare(cell: &str) -> &str {
    cell.trim().trim_matches('`')
}

/// A fault and a test that catches it: by its path, and by the file that it asserts in.
#[derive(Debug)]
pub struct Caught {
    /// What is planted.
    pub mutant: Mutant,
    /// As it is written.
    pub path: &'static str,
    /// The test.
    pub test: fn(),
    /// Where it is.
    pub file: &'static str,
}

/// A list of [`Caught`]: each `file => Fault by path::of::the_test`.
#[macro_export]
macro_rules! caught {
    ($($file:expr => $mutant:ident by $test:path,)*) => {
        &[$($crate::faults::proof::Caught {
            mutant: $crate::faults::Mutant::$mutant,
            path: stringify!($test),
            test: $test,
            file: $file,
        },)*]
    };
}

/// Each fault fails the test of its rule, which passes without it.
#[expect(clippy::missing_panics_doc, reason = "it is an assertion of tests")]
pub fn each_is_caught(caught: &[Caught]) {
    for one in caught {
        let planted = plant(one.mutant);
        let fails = fails(one.test, one.file);
        drop(planted);
        assert!(fails, "{} escapes {}", one.mutant.name(), one.path);
        (one.test)();
    }
}

/// The table says of a harness what it catches, no less and no more.
#[expect(clippy::missing_panics_doc, reason = "it is an assertion of tests")]
pub fn the_table_says(harness: &str, caught: &[Caught]) {
    let names = caught.iter().map(|one| {
        let name = one.path.rsplit("::").next().unwrap_or(one.path);
        (one.mutant.name(), name.trim())
    });
    assert_eq!(caught_in(harness), names.collect());
}

/// Whether a test fails, by an assertion of `file`, its own: a panic of anything else
/// proves nothing, and is passed on.
fn fails(test: fn(), file: &str) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map(|at| at.file().to_owned());
            if !WATCHED.get() {
                before(info);
            }
            FAILED_IN.set(file);
        }));
    });
    WATCHED.set(true);
    let result = panic::catch_unwind(test);
    WATCHED.set(false);
    match result {
        Ok(()) => false,
        Err(_) if FAILED_IN.take().as_deref() == Some(file) => true,
        Err(elsewhere) => panic::resume_unwind(elsewhere),
    }
}

thread_local! {
    /// Whether a test runs of which a failure is expected.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static FAILED_IN: Cell<Option<String>> = const { Cell::new(None) };
}
