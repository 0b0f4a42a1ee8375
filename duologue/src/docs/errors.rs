//! `docs/errors.md` has every reason, with its code, and every value of the
//! contract's enums of reasons.

use duologue_proto::chat::v1 as wire;
use duologue_runtime::refusal::Reason;

use super::{code, rows};

const ERRORS: &str = include_str!("../../../docs/errors.md");

/// Higher than any value of an enum of reasons.
const MAX_VALUE: i32 = 1_000;

/// The names of an enum of the contract, without what all begin with, and without
/// the one that is not used.
macro_rules! names {
    ($kind:ty, $prefix:literal) => {
        (1..MAX_VALUE)
            .filter_map(|value| <$kind>::try_from(value).ok())
            .map(|value| value.as_str_name().strip_prefix($prefix).unwrap())
            .collect::<Vec<_>>()
    };
}

#[test]
fn every_reason_is_listed_with_its_code_in_the_order_of_the_code() {
    let listed: Vec<_> = rows(ERRORS, "Reasons")
        .into_iter()
        .map(|row| {
            assert_complete(&row, 4);
            (code(&row[0]).to_owned(), code(&row[1]).to_owned())
        })
        .collect();
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str().to_owned(), code_name(*reason)))
        .collect();
    assert_eq!(listed, reasons);
}

#[test]
fn every_refusal_of_a_stream_is_listed() {
    let enums = [
        (
            "RejectedReason",
            names!(wire::RejectedReason, "REJECTED_REASON_"),
        ),
        (
            "DeferredReason",
            names!(wire::DeferredReason, "DEFERRED_REASON_"),
        ),
        (
            "CursorRejectedReason",
            names!(wire::CursorRejectedReason, "CURSOR_REJECTED_REASON_"),
        ),
    ];
    for (heading, names) in enums {
        let rows = rows(ERRORS, heading);
        for row in &rows {
            assert_complete(row, 3);
        }
        let listed: Vec<_> = rows.iter().map(|row| code(&row[0])).collect();
        assert_eq!(listed, names, "{heading}");
    }
}

#[test]
fn every_goodbye_is_listed_with_the_status_of_its_reasons() {
    let rows = rows(ERRORS, "GoodbyeReason");
    let mut listed: Vec<_> = rows.iter().map(|row| code(&row[0])).collect();
    listed.dedup();
    assert_eq!(listed, names!(wire::GoodbyeReason, "GOODBYE_REASON_"));
    for row in &rows {
        let [goodbye, status, reasons, ..] = &row[..] else {
            panic!("five cells are wanted: {row:?}");
        };
        let reasons: Vec<_> = reasons.split(", ").map(code).collect();
        for name in reasons {
            let reason = Reason::ALL.iter().find(|reason| reason.as_str() == name);
            let reason = reason.unwrap_or_else(|| panic!("{name} is no reason"));
            assert_eq!(code_name(*reason), code(status), "{goodbye}: {name}");
        }
    }
}

fn assert_complete(row: &[String], cells: usize) {
    assert_eq!(row.len(), cells, "{row:?}");
    assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
}

/// The code as gRPC spells it.
fn code_name(reason: Reason) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", reason.code()).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
