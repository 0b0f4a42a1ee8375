//! What every refusal must carry.

use std::collections::HashMap;
use std::time::Duration;

use duologue_runtime::refusal::{DOMAIN, Reason};
use tonic::Status;
use tonic_types::StatusExt as _;

/// Checks code, reason and domain, and that there is something for a person.
#[track_caller]
pub(crate) fn assert_refused(status: &Status, reason: Reason) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .map(|info| (&*info.reason, &*info.domain));
    assert_eq!(info, Some((reason.as_str(), DOMAIN)), "{status:?}");
    assert_eq!(status.code(), reason.code(), "{status:?}");
    assert!(!status.message().is_empty(), "{status:?}");
}

/// Checks that a field is named, and that the message says so too.
#[track_caller]
pub(crate) fn assert_field(status: &Status, field: &str) {
    assert_refused(status, Reason::InvalidField);
    let (named, description) = violation(status);
    assert_eq!(named, field, "{status:?}");
    assert!(status.message().contains(&description), "{status:?}");
    assert!(status.message().contains(field), "{status:?}");
}

/// The one field at fault, and what is wrong with it.
#[track_caller]
pub(crate) fn violation(status: &Status) -> (String, String) {
    let details = status.get_error_details();
    let violations = &details
        .bad_request()
        .expect("no BadRequest")
        .field_violations;
    match violations.as_slice() {
        [one] => (one.field.clone(), one.description.clone()),
        other => panic!("{other:?}"),
    }
}

/// How long to wait, as the details say.
#[track_caller]
pub(crate) fn retry_after(status: &Status) -> Duration {
    let details = status.get_error_details();
    let info = details.retry_info().expect("no RetryInfo");
    info.retry_delay.expect("RetryInfo without a delay")
}

/// The values for programs.
pub(crate) fn metadata(status: &Status) -> HashMap<String, String> {
    let details = status.get_error_details();
    details
        .error_info()
        .map(|info| info.metadata.clone())
        .unwrap_or_default()
}
