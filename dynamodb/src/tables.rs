//! The tables: what they must be, whether they are so, and making them.
//!
//! Services only look; making is the operator's. Every table is on demand, without
//! index. It must not change a table that is there.

mod create;
mod inspect;

pub use create::{CREATE_POLL, CREATE_TIMEOUT, CreateError, Created, Recovery, create};
pub use inspect::{Problem, Report, TableFacts, check, describe};

/// What a table must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// The partition key.
    pub partition: Key,
    /// The sort key.
    pub sort: Option<Key>,
    /// The attribute with the second, since 1970, after which a row may be removed.
    pub time_to_live: Option<&'static str>,
}

/// An attribute of a key. Names are short: they are paid for with every item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The attribute.
    pub name: &'static str,
    /// Its type.
    pub kind: KeyKind,
}

/// The type of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `S`
    Text,
    /// `N`
    Number,
    /// `B`
    Bytes,
}

impl KeyKind {
    /// As DynamoDB calls it.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Text => "S",
            Self::Number => "N",
            Self::Bytes => "B",
        }
    }
}

impl TableSpec {
    /// `partition p (B), sort s (N)`: as a report names it.
    pub fn schema(&self) -> String {
        let part = |role: &str, key: Key| format!("{role} {} ({})", key.name, key.kind.letter());
        let mut parts = vec![part("partition", self.partition)];
        parts.extend(self.sort.map(|key| part("sort", key)));
        parts.join(", ")
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
