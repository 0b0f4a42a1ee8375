//! The table of planted faults in `docs/proof.md`, for the tests that keep it true.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::Once;

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

/// Whether a test fails, by an assertion of `file`, its own: a panic of anything else
/// proves nothing, and is passed on.
pub fn fails(test: fn(), file: &str) -> bool {
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
