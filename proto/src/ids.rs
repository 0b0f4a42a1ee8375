//! Typed ids, with the rules of the contract.
//!
//! An id that exists is valid: it can only be made by parsing. Ids are compared
//! exactly, byte by byte.

use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_CLIENT_ID_BYTES, MAX_USER_ID_BYTES};

/// A string that is not an id of the kind it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string is empty.
    #[error("must not be empty; the rule is {rule}")]
    Empty {
        /// The whole rule, for a person.
        rule: &'static str,
    },
    /// The string is too long.
    #[error("is {length} bytes long; the rule is {rule}")]
    TooLong {
        /// How long the string is.
        length: usize,
        /// The whole rule, for a person.
        rule: &'static str,
    },
    /// The string holds a character that the rule does not allow.
    #[error("holds a character that is not allowed; the rule is {rule}")]
    Character {
        /// The whole rule, for a person.
        rule: &'static str,
    },
}

/// The rule of user ids, for a person.
pub const USER_ID_RULE: &str = "1 to 64 of letters, digits and . _ - @ +";
/// The rule of message ids and device ids, for a person.
pub const CLIENT_ID_RULE: &str = "1 to 64 of letters, digits, _ and -";

fn check(
    text: &str,
    max: usize,
    rule: &'static str,
    allowed: fn(u8) -> bool,
) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { rule });
    }
    if text.len() > max {
        return Err(InvalidId::TooLong {
            length: text.len(),
            rule,
        });
    }
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidId::Character { rule })
    }
}

fn is_user_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+')
}

fn is_client_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $rule:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id; the error names the rule that is broken.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text, $max, $rule, $allowed)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }
    };
}

text_id!(
    /// A person; taken only from the verified token.
    UserId, MAX_USER_ID_BYTES, USER_ID_RULE, is_user_id_byte
);
text_id!(
    /// One installation of a client: chosen by it, stable, random.
    DeviceId, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);
text_id!(
    /// The idempotency key of a message, together with its sender and
    /// conversation; chosen by the sending client.
    MessageId, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);
text_id!(
    /// One authenticated stream of one device; fresh for every connect.
    SessionId, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);
text_id!(
    /// One chat process, by its configured name.
    NodeId, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);
text_id!(
    /// One start of a chat process.
    Incarnation, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);
text_id!(
    /// One history: new at creation and after a restore.
    HistoryId, MAX_CLIENT_ID_BYTES, CLIENT_ID_RULE, is_client_id_byte
);

/// The unordered pair of two users; both may be the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId {
    low: UserId,
    high: UserId,
}

impl ConversationId {
    /// The conversation of two users, in whichever order they are given.
    pub fn of(one: &UserId, other: &UserId) -> Self {
        let (low, high) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        Self {
            low: low.clone(),
            high: high.clone(),
        }
    }

    /// The user who sorts first.
    pub fn low(&self) -> &UserId {
        &self.low
    }

    /// The user who sorts last; the same as `low` in notes to oneself.
    pub fn high(&self) -> &UserId {
        &self.high
    }

    /// Which of the two sides `user` is: 0 for low, 1 for high, none for a
    /// stranger.
    pub fn side_of(&self, user: &UserId) -> Option<usize> {
        if *user == self.low {
            Some(0)
        } else if *user == self.high {
            Some(1)
        } else {
            None
        }
    }

    /// Whether this is a user's conversation with themself.
    pub fn is_with_oneself(&self) -> bool {
        self.low == self.high
    }

    /// Both users, or the one of a conversation with oneself.
    pub fn users(&self) -> impl Iterator<Item = &UserId> {
        let second = (!self.is_with_oneself()).then_some(&self.high);
        std::iter::once(&self.low).chain(second)
    }

    /// Each user with the other one; once in a conversation with oneself.
    pub fn sides(&self) -> impl Iterator<Item = (UserId, UserId)> {
        let (low, high) = (&self.low, &self.high);
        let second = (!self.is_with_oneself()).then(|| (high.clone(), low.clone()));
        std::iter::once((low.clone(), high.clone())).chain(second)
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A comma is in neither id.
        write!(f, "{},{}", self.low, self.high)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A place in a conversation: 1, 2, 3 … without gaps; 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first message.
    pub const ZERO: Self = Self(0);

    /// The place after this one. Sequences are given one by one, so that the
    /// last one cannot be reached; it stays itself.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time and a duration more.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This time and a duration less; not before 1970.
    #[must_use]
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this time is; zero if it is before.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As the wire has it.
    pub fn to_wire(self) -> prost_types::Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let nanos = i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
        prost_types::Timestamp {
            seconds: millis / 1_000,
            nanos,
        }
    }

    /// From the wire, to the millisecond; a time before 1970 becomes 1970.
    pub fn from_wire(wire: &prost_types::Timestamp) -> Self {
        let millis = wire
            .seconds
            .saturating_mul(1_000)
            .saturating_add(i64::from(wire.nanos) / 1_000_000);
        Self(u64::try_from(millis).unwrap_or(0))
    }
}
