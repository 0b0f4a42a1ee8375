//! What the table's rows are: keys, attributes, and their values as ours.
//!
//! | partition | sort | row |
//! |---|---|---|
//! | a user | a device | a route in force, or "gone, number" |
//! | a user | `#seen` | when the user was last seen |
//! | `#list-` and a number | a user | a hint that the user has routes |
//! | `#nodes` | a node | its lease |
//!
//! No id of a user or a device can hold `#`.

use std::collections::HashMap;
use std::time::Duration;

use duologue_dynamodb::sdk::primitives::Blob;
use duologue_dynamodb::sdk::types::AttributeValue;
use duologue_dynamodb::tables::{Key, KeyKind, TableSpec};
use duologue_proto::ids::{DeviceId, Incarnation, NodeId, SessionId, UnixMillis, UserId};
use duologue_proto::presence::{ConnectNumber, Route};

use crate::directory::{Lease, MAX_REPLACED};

/// The table of presence.
pub const TABLE: TableSpec = TableSpec {
    name: "presence",
    partition: Key {
        name: PARTITION,
        kind: KeyKind::Text,
    },
    sort: Some(Key {
        name: SORT,
        kind: KeyKind::Text,
    }),
    time_to_live: Some(EXPIRY),
};

pub(super) const PARTITION: &str = "p";
pub(super) const SORT: &str = "s";
/// The second since 1970 after which a row is over. DynamoDB removes it days later.
pub(super) const EXPIRY: &str = "x";
/// The rising number. As bytes, so that it is compared as one, and exactly.
pub(super) const NUMBER: &str = "n";
/// Only of a route in force.
pub(super) const SESSION: &str = "e";
pub(super) const NODE: &str = "h";
pub(super) const INCARNATION: &str = "i";
/// The names of a route's number, session, node and incarnation.
type RouteNames = [&'static str; 4];
const IN_FORCE: RouteNames = [NUMBER, SESSION, NODE, INCARNATION];
/// Of another session that this one has replaced, and of the one that it had.
const REPLACED: [RouteNames; MAX_REPLACED] = [["rn", "re", "rh", "ri"], ["qn", "qe", "qh", "qi"]];
/// Of "gone, number": the session that went with it, if one did.
pub(super) const GONE_SESSION: &str = "g";
/// Of which call: so that one without an answer knows its own earlier try.
pub(super) const GONE_BY: &str = "w";
/// When it went, for who repeats its release; none of a clean-up.
pub(super) const GONE_AT: &str = "b";
/// When the user was last seen.
pub(super) const SEEN_AT: &str = "a";
/// Of a hint: made anew with every put of it.
pub(super) const VERSION: &str = "v";
/// Of a lease.
pub(super) const ADDRESS: &str = "t";
pub(super) const COUNTER: &str = "c";

pub(super) const SEEN_ROW: &str = "#seen";
pub(super) const NODES_PARTITION: &str = "#nodes";
/// Where there is no session, node or incarnation.
pub(super) const NONE: &str = "#";

/// A row, or some attributes of one.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn connect_number(number: ConnectNumber) -> AttributeValue {
    let connect = number.connect.to_be_bytes();
    bytes([connect.as_slice(), &number.registration.to_be_bytes()].concat())
}

/// When a row that is kept for a time from `now` on is over.
pub(super) fn expiry(now: UnixMillis, kept: Duration) -> AttributeValue {
    // Not a second early.
    number(now.plus(kept).0.div_ceil(1_000))
}

/// The second of `now`: what is over has an [`EXPIRY`] that is not higher.
pub(super) fn second(now: UnixMillis) -> AttributeValue {
    number(now.0 / 1_000)
}

pub(super) fn read_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn read_number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn read_connect_number(item: &Item, name: &str) -> Option<ConnectNumber> {
    let bytes = item.get(name)?.as_b().ok()?.as_ref();
    let (connect, registration) = bytes.split_at_checked(size_of::<u64>())?;
    Some(ConnectNumber {
        connect: u64::from_be_bytes(connect.try_into().ok()?),
        registration: u32::from_be_bytes(registration.try_into().ok()?),
    })
}

/// Whether a row is over; one without a time never is.
pub(super) fn is_over(item: &Item, now: UnixMillis) -> bool {
    read_number(item, EXPIRY).is_some_and(|second| second <= now.0 / 1_000)
}

/// The route that a row is, if it is one in force.
pub(super) fn read_route(user: &UserId, item: &Item) -> Option<Route> {
    read_route_from(user, item, IN_FORCE)
}

/// The routes that were in force before the one of this row, the newest first.
pub(super) fn read_replaced(user: &UserId, item: &Item) -> [Option<Route>; MAX_REPLACED] {
    REPLACED.map(|names| read_route_from(user, item, names))
}

fn read_route_from(user: &UserId, item: &Item, names: RouteNames) -> Option<Route> {
    let [number, session, node, incarnation] = names;
    Some(Route {
        user: user.clone(),
        device: DeviceId::parse(read_text(item, SORT)?).ok()?,
        number: read_connect_number(item, number)?,
        // NONE is no id.
        session: SessionId::parse(read_text(item, session)?).ok()?,
        node: NodeId::parse(read_text(item, node)?).ok()?,
        incarnation: Incarnation::parse(read_text(item, incarnation)?).ok()?,
    })
}

pub(super) fn lease_item(lease: &Lease) -> Item {
    let attributes = [
        (PARTITION, text(NODES_PARTITION)),
        (SORT, text(lease.node.as_str())),
        (INCARNATION, text(lease.incarnation.as_str())),
        (ADDRESS, text(&lease.address)),
        (COUNTER, number(lease.counter)),
    ];
    attributes
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

pub(super) fn read_lease(item: &Item) -> Option<Lease> {
    Some(Lease {
        node: NodeId::parse(read_text(item, SORT)?).ok()?,
        incarnation: Incarnation::parse(read_text(item, INCARNATION)?).ok()?,
        address: read_text(item, ADDRESS)?.to_owned(),
        counter: read_number(item, COUNTER)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_numbers_are_ordered_as_their_bytes_are_and_read_back() {
        let numbers = [
            (0, 0),
            (0, u32::MAX),
            (1, 0),
            (256, 7),
            (u64::MAX, u32::MAX),
        ];
        let numbers = numbers.map(|(connect, registration)| ConnectNumber {
            connect,
            registration,
        });
        let values = numbers.map(connect_number);
        let written = values
            .each_ref()
            .map(|value| value.as_b().unwrap().as_ref());
        assert!(written.is_sorted());
        for (value, number) in values.iter().zip(numbers) {
            let item = Item::from([(NUMBER.to_owned(), value.clone())]);
            assert_eq!(read_connect_number(&item, NUMBER), Some(number));
        }
    }

    #[test]
    fn a_row_is_over_when_its_time_is_and_not_before() {
        let start = UnixMillis(1_500);
        let kept = Duration::from_secs(2);
        let item = Item::from([(EXPIRY.to_owned(), expiry(start, kept))]);
        assert!(!is_over(&item, UnixMillis(3_500)));
        assert!(is_over(&item, UnixMillis(4_000)));
        assert!(!is_over(&Item::new(), UnixMillis(u64::MAX)));
    }
}
