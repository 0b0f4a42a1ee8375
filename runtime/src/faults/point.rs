//! The steps at which a process can be made to kill itself.

/// A step of the life of a message, or of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The store is being opened: something is there, not everything.
    Opening,
    /// A group is synced and nobody has been answered.
    Committed,
    /// The sender's answer is on its way out and nobody else was told.
    Answered,
}

impl Point {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Opening, Self::Committed, Self::Answered];

    /// How it is called on the outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Committed => "committed",
            Self::Answered => "answered",
        }
    }
}
