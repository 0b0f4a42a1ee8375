//! What clients and networks do in a run, and how often. A run in which one of
//! these never happened shows nothing of it, and is void.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that a run must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// A new message by a stream.
    Send,
    /// A new message by the unary call.
    SendUnary,
    /// A text of several KiB.
    BigText,
    /// A message to oneself.
    Note,
    /// A message without an answer was sent again.
    RetryUnanswered,
    /// A message that was answered was sent again.
    RetryAnswered,
    /// A try was answered as a duplicate.
    Duplicate,
    /// Cursors were moved by a stream.
    CursorMove,
    /// Cursors were moved by the unary call.
    CursorMoveUnary,
    /// A `Hello` repeated cursors.
    CursorRepeated,
    /// A session by `Converse`.
    Converse,
    /// A session by `Subscribe`.
    Subscribe,
    /// A `Hello` named positions.
    ByPosition,
    /// A `Hello` had a token and no positions.
    ByToken,
    /// A `Hello` had neither.
    ByCursor,
    /// A stream was left before `Hello`.
    LeftBeforeHello,
    /// A stream was left between `Hello` and `Welcome`.
    LeftBeforeWelcome,
    /// A stream was left after messages and before `CaughtUp`.
    LeftInCatchUp,
    /// A stream was left with sends without an answer.
    LeftInFlight,
    /// A stream was half-closed and ended with OK.
    HalfClose,
    /// A connection was cut.
    Cut,
    /// A connection was frozen for good: half-open.
    HalfOpen,
    /// A connection was frozen for a while.
    Frozen,
    /// A session did not read for a while.
    SlowReader,
    /// A session did not read while more than its outbox holds was stored.
    Overflow,
    /// A session was told that a newer one took over.
    Superseded,
    /// A session was told that its token has expired.
    TokenExpired,
    /// A client was ended, and started again from what it had saved.
    Restart,
}

/// What the stubs must do.
pub(super) const OF_STUBS: &[Behaviour] = &[
    Behaviour::Send,
    Behaviour::SendUnary,
    Behaviour::BigText,
    Behaviour::Note,
    Behaviour::RetryUnanswered,
    Behaviour::RetryAnswered,
    Behaviour::Duplicate,
    Behaviour::CursorMove,
    Behaviour::CursorMoveUnary,
    Behaviour::CursorRepeated,
    Behaviour::Converse,
    Behaviour::Subscribe,
    Behaviour::ByPosition,
    Behaviour::ByToken,
    Behaviour::ByCursor,
    Behaviour::LeftBeforeHello,
    Behaviour::LeftBeforeWelcome,
    Behaviour::LeftInCatchUp,
    Behaviour::LeftInFlight,
    Behaviour::HalfClose,
    Behaviour::Cut,
    Behaviour::HalfOpen,
    Behaviour::Frozen,
    Behaviour::SlowReader,
    Behaviour::Overflow,
    Behaviour::Superseded,
    Behaviour::TokenExpired,
];

/// What nobody can do without `Converse`.
pub(super) const OF_CONVERSE: &[Behaviour] = &[
    Behaviour::Send,
    Behaviour::CursorMove,
    Behaviour::Converse,
    Behaviour::LeftBeforeHello,
    Behaviour::HalfClose,
];

/// What the Rust client must meet.
pub(super) const OF_CLIENT: &[Behaviour] = &[
    Behaviour::Send,
    Behaviour::BigText,
    Behaviour::Note,
    Behaviour::CursorMove,
    Behaviour::LeftInFlight,
    Behaviour::Cut,
    Behaviour::Frozen,
    Behaviour::SlowReader,
    Behaviour::Superseded,
    Behaviour::TokenExpired,
    Behaviour::Restart,
];

/// How often each behaviour happened; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<Behaviour, u64>>>);

impl Counts {
    pub(super) fn requiring<'a>(behaviours: impl IntoIterator<Item = &'a Behaviour>) -> Self {
        let none = behaviours.into_iter().map(|behaviour| (*behaviour, 0));
        Self(Arc::new(Mutex::new(none.collect())))
    }

    pub(super) fn add(&self, behaviour: Behaviour) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(behaviour).or_default() += 1;
    }

    /// Every behaviour that must happen or has happened, with its count.
    pub fn all(&self) -> BTreeMap<Behaviour, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What must happen and has not: with any, the run is void.
    pub fn missing(&self) -> Vec<Behaviour> {
        let never = |(behaviour, count)| (count == 0).then_some(behaviour);
        self.all().into_iter().filter_map(never).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_until_everything_required_has_happened() {
        let counts = Counts::requiring(&[Behaviour::Send, Behaviour::Cut]);
        counts.add(Behaviour::Send);
        counts.add(Behaviour::Note);
        assert_eq!(counts.missing(), [Behaviour::Cut]);
        counts.add(Behaviour::Cut);
        assert!(counts.missing().is_empty());
        assert_eq!(counts.all()[&Behaviour::Note], 1);
    }
}
