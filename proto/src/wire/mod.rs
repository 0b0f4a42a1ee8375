//! The internal contract's messages to and from typed values, for both ends of a
//! wire between services.
//!
//! What comes from a wire is checked as if anybody had written it: ids parse,
//! counts are within their bounds, nothing that is needed is absent. It must not
//! panic on any input, and must not decide anything. An envelope travels as the
//! bytes that are stored.

mod append;
pub mod history;
pub mod presence;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{InvalidId, UserId};
use crate::message::Envelope;

/// A field of a message that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct InvalidField {
    /// The field, from the message down: `runs[3].sender`.
    pub field: String,
    /// The rule, for a person: `must not be absent`. It repeats nothing that was
    /// sent.
    pub rule: String,
}

impl InvalidField {
    fn new(field: impl fmt::Display, rule: impl fmt::Display) -> Self {
        Self {
            field: field.to_string(),
            rule: rule.to_string(),
        }
    }

    fn absent(field: &str) -> Self {
        Self::new(field, "must not be absent")
    }

    /// The same fault, seen from the message around.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            ..self
        }
    }
}

/// What is read from a wire, or the field that is at fault.
pub type Read<T> = Result<T, InvalidField>;

fn id<T>(field: &str, text: &str, parse: fn(&str) -> Result<T, InvalidId>) -> Read<T> {
    parse(text).map_err(|error| InvalidField::new(field, error))
}

fn user(field: &str, text: &str) -> Read<UserId> {
    id(field, text, UserId::parse)
}

fn optional_user(field: &str, text: Option<&String>) -> Read<Option<UserId>> {
    text.map(|text| user(field, text)).transpose()
}

/// Reads each of several; a fault names which.
fn each<T, U>(field: &str, items: Vec<T>, read: impl Fn(T) -> Read<U>) -> Read<Vec<U>> {
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| {
            read(item).map_err(|fault| fault.within(format_args!("{field}[{index}]")))
        })
        .collect()
}

fn users(field: &str, texts: &[String]) -> Read<Vec<UserId>> {
    let texts = texts.iter().enumerate();
    texts
        .map(|(index, text)| {
            UserId::parse(text)
                .map_err(|error| InvalidField::new(format_args!("{field}[{index}]"), error))
        })
        .collect()
}

fn texts(users: &[UserId]) -> Vec<String> {
    users.iter().map(UserId::to_string).collect()
}

fn between(field: &str, value: usize, least: usize, most: usize) -> Read<usize> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        let rule = format_args!("is {value}; the rule is {least} to {most}").to_string();
        Err(InvalidField::new(field, rule))
    }
}

fn envelope(field: &str, bytes: &Bytes) -> Read<Envelope> {
    Envelope::open(bytes).map_err(|_| InvalidField::new(field, "is not an encoded envelope"))
}

fn envelopes(field: &str, all: &[Bytes]) -> Read<Vec<Envelope>> {
    let all = all.iter().enumerate();
    all.map(|(index, bytes)| envelope(&format!("{field}[{index}]"), bytes))
        .collect()
}

fn envelope_bytes(envelope: &Envelope) -> Bytes {
    Bytes::copy_from_slice(envelope.wire())
}

/// Sizes are bounded far below; a larger one means "as many as there may be".
fn size(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn count(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Rounded up: who waits shorter would come too early.
fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
