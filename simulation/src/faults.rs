//! What breaks.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The server's machine crashes, loses what was not synced, and starts again.
    Crash,
    /// A sync of the disk fails: the writer stops for good, and the server is
    /// restarted.
    FailedSync,
    /// A sync takes seconds.
    StalledSync,
    /// The server's clock is set on.
    ClockForward,
    /// The server's clock is set back.
    ClockBack,
    /// A machine of clients is cut off: what is sent is lost.
    Partition,
    /// What clients send is lost, and what the server sends arrives: half-open.
    LostUp,
    /// What the server sends is lost, and what clients send arrives: half-open.
    LostDown,
    /// Nothing arrives for a while, and then everything: a pause.
    Hold,
    /// Everything takes longer.
    SlowLink,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Crash,
        Self::FailedSync,
        Self::StalledSync,
        Self::ClockForward,
        Self::ClockBack,
        Self::Partition,
        Self::LostUp,
        Self::LostDown,
        Self::Hold,
        Self::SlowLink,
    ];

    /// How it is called in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::FailedSync => "failed sync",
            Self::StalledSync => "stalled sync",
            Self::ClockForward => "clock forward",
            Self::ClockBack => "clock back",
            Self::Partition => "partition",
            Self::LostUp => "lost up",
            Self::LostDown => "lost down",
            Self::Hold => "hold",
            Self::SlowLink => "slow link",
        }
    }

    /// Whether it strikes the link of one machine of clients, and not the server.
    pub(crate) const fn is_of_link(self) -> bool {
        matches!(
            self,
            Self::Partition | Self::LostUp | Self::LostDown | Self::Hold | Self::SlowLink
        )
    }
}
