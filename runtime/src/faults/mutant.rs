//! The faults that can be planted: each breaks one rule of the design (§11).

/// Names the variants, in one place.
macro_rules! mutants {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// A rule that the product breaks once this is planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])+ $variant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// How it is called on the outside.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

mutants! {
    /// 1: a put without outcome is given up for the next slot.
    NextSlotAfterUnknown = "1-next-slot-after-unknown",
    /// 2: a slot that holds one's own id is taken for somebody else's.
    OwnBlockTakenForLoss = "2-own-block-taken-for-loss",
    /// 3: a put overwrites what is in the slot.
    PutWithoutCondition = "3-put-without-condition",
    /// 4: slot `after_seq` need not exist.
    AfterSeqNotChecked = "4-after-seq-not-checked",
    /// 5: a slot that an eventually consistent read misses is taken for empty.
    StaleMissingIsFinal = "5-stale-missing-is-final",
    /// 6: after a block the next slot is tried without a search.
    NoSearchAfterBlock = "6-no-search-after-block",
    /// 7: after a failure only what was queued with it is deferred.
    OnlyQueuedDeferred = "7-only-queued-deferred",
    /// 8: a retry marks the window of the time at which its message was stored.
    RetryMarksStoredWindow = "8-retry-marks-stored-window",
    /// 9: the message is put before its rows.
    PutBeforeRows = "9-put-before-rows",
    /// 10: a sync reads its time after the rows.
    TimeReadAtEnd = "10-time-read-at-end",
    /// 10: a sync looks back only to the window of its time.
    NoSlack = "10-no-slack",
    /// 10: a put is sent however old the reading of its rows is.
    LatePutSent = "10-late-put-sent",
    /// 11: catch-up starts at the user's cursor although there is a token.
    CatchUpAtCursor = "11-catch-up-at-cursor",
    /// 12: routes are looked up before the append.
    LookupBeforeAppend = "12-lookup-before-append",
    /// 12: catch-up starts before the registration is confirmed.
    ReadBeforeRegistration = "12-read-before-registration",
    /// 12: a catch-up read returns what was stored a moment ago, not now.
    StaleCatchUpRead = "12-stale-catch-up-read",
    /// 12: `CaughtUp` is sent when the rows are read, not when all is shown.
    CaughtUpTooEarly = "12-caught-up-too-early",
    /// 13: an announced envelope is pushed while a read runs.
    PushDuringRead = "13-push-during-read",
    /// 13: the first announcement in a conversation tells where it starts.
    ShownGuessed = "13-shown-guessed",
    /// 13: `Stored` moves `shown` over a gap.
    StoredOverGap = "13-stored-over-gap",
    /// 14: what finds no room is forgotten.
    OverflowDropped = "14-overflow-dropped",
    /// 14: a retry that finds its message stored does not relay it.
    DuplicateNotRelayed = "14-duplicate-not-relayed",
    /// 15: a session does not sync after it was registered again.
    NoSyncAfterReregistration = "15-no-sync-after-reregistration",
    /// 16: a clean-up looks at the session and not at the exact number.
    CleanUpBySession = "16-clean-up-by-session",
    /// 16: a late registration overwrites its successor.
    LateRegistrationWins = "16-late-registration-wins",
    /// 16: a release removes whatever is there.
    ReleaseJustDeletes = "16-release-just-deletes",
    /// 16: a session's row is in the directory before the session is in the node's own
    /// table.
    RowBeforeTable = "16-row-before-table",
    /// 17: a lower connect number supersedes.
    LowerConnectNumberWins = "17-lower-connect-number-wins",
    /// 18: a repeated cursor of a reconnecting device lowers the stored one.
    CursorLowered = "18-cursor-lowered",
    /// 18: a sync does not send cursors.
    CursorNotToldAtSync = "18-cursor-not-told-at-sync",
    /// 19: answers are given before the sync to disk.
    AnswerBeforeSync = "19-answer-before-sync",
    /// 19: nothing is ever synced to disk.
    NoSync = "19-no-sync",
    /// A session whose outbox was full once is not served again.
    ServedNoMoreAfterFull = "served-no-more-after-full",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_one_of_a_kind() {
        let names: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
    }
}
