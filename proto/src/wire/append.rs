//! Runs and their answers, to and from typed values.

use std::time::Duration;

use prost::Message as _;

use super::{InvalidField, Read, between, each, envelope, envelope_bytes, id, millis, user};
use crate::chat::v1 as chat;
use crate::history::v1 as wire;
use crate::history::{Appended, Draft, Intent, Run, Unsettled, UnsettledReason};
use crate::ids::{MessageId, Seq};
use crate::limits::{MAX_BODY_BYTES, MAX_RUN_DRAFTS};

/// A run under the number that its answer will have, and in the trace that it belongs
/// to, if to any.
pub fn write_run(reference: u64, run: Run, traceparent: String) -> wire::Run {
    let drafts = run.drafts.into_iter().map(|draft| wire::Draft {
        message_id: draft.message_id.to_string(),
        after_seq: draft.after_seq.map(|seq| seq.0),
        body: draft.body,
        intent: match draft.intent {
            Intent::Store => wire::Intent::Store,
            Intent::FindOnly => wire::Intent::FindOnly,
        }
        .into(),
    });
    wire::Run {
        r#ref: reference,
        sender: run.sender.to_string(),
        peer: run.peer.to_string(),
        drafts: drafts.collect(),
        traceparent,
    }
}

/// A run, without its number and its trace.
pub fn read_run(run: wire::Run) -> Read<Run> {
    between("drafts", run.drafts.len(), 1, MAX_RUN_DRAFTS)?;
    Ok(Run {
        sender: user("sender", &run.sender)?,
        peer: user("peer", &run.peer)?,
        drafts: each("drafts", run.drafts, read_draft)?,
    })
}

fn read_draft(draft: wire::Draft) -> Read<Draft> {
    between("body", draft.body.len(), 0, MAX_BODY_BYTES)?;
    // What is no body would make every frame that shows it unreadable.
    if chat::Body::decode(&draft.body[..]).is_err() {
        return Err(InvalidField::new("body", "is not an encoded body"));
    }
    Ok(Draft {
        message_id: id("message_id", &draft.message_id, MessageId::parse)?,
        after_seq: draft.after_seq.map(Seq),
        body: draft.body,
        intent: match wire::Intent::try_from(draft.intent) {
            Ok(wire::Intent::Store) => Intent::Store,
            Ok(wire::Intent::FindOnly) => Intent::FindOnly,
            Ok(wire::Intent::Unspecified) | Err(_) => return Err(InvalidField::absent("intent")),
        },
    })
}

/// The answers to a run's drafts.
pub fn write_answers(reference: u64, answers: &[Appended]) -> wire::RunAnswer {
    let drafts = answers.iter().map(|answer| wire::DraftAnswer {
        answer: Some(write_appended(answer)),
    });
    wire::RunAnswer {
        r#ref: reference,
        drafts: drafts.collect(),
        refused: String::new(),
    }
}

/// The answer to a run that breaks a rule.
pub fn write_refused(reference: u64, fault: &InvalidField) -> wire::RunAnswer {
    wire::RunAnswer {
        r#ref: reference,
        drafts: Vec::new(),
        refused: fault.to_string(),
    }
}

fn write_appended(appended: &Appended) -> wire::draft_answer::Answer {
    use wire::draft_answer::Answer;
    match appended {
        Appended::Stored {
            envelope,
            duplicate,
        } => Answer::Stored(wire::Stored {
            envelope: envelope_bytes(envelope),
            duplicate: *duplicate,
        }),
        Appended::MessageIdReused => Answer::MessageIdReused(wire::MessageIdReused {}),
        Appended::Unsettled(unsettled) => Answer::Unsettled(wire::Unsettled {
            reason: match unsettled.reason {
                UnsettledReason::NotFound => wire::UnsettledReason::NotFound,
                UnsettledReason::AfterSeqTooOld => wire::UnsettledReason::AfterSeqTooOld,
                UnsettledReason::AfterSeqAhead => wire::UnsettledReason::AfterSeqAhead,
                UnsettledReason::Contended => wire::UnsettledReason::Contended,
                UnsettledReason::Unavailable => wire::UnsettledReason::Unavailable,
            }
            .into(),
            head: unsettled.head.map(|seq| seq.0),
            retry_after_millis: unsettled.retry_after.map(millis),
        }),
    }
}

/// The answers to a run that was taken.
pub fn read_answers(drafts: Vec<wire::DraftAnswer>) -> Read<Vec<Appended>> {
    between("drafts", drafts.len(), 1, MAX_RUN_DRAFTS)?;
    each("drafts", drafts, read_appended)
}

fn read_appended(answer: wire::DraftAnswer) -> Read<Appended> {
    use wire::draft_answer::Answer;
    let answer = answer
        .answer
        .ok_or_else(|| InvalidField::absent("answer"))?;
    Ok(match answer {
        Answer::Stored(stored) => Appended::Stored {
            envelope: envelope("stored.envelope", &stored.envelope)?,
            duplicate: stored.duplicate,
        },
        Answer::MessageIdReused(_) => Appended::MessageIdReused,
        Answer::Unsettled(unsettled) => Appended::Unsettled(Unsettled {
            reason: match wire::UnsettledReason::try_from(unsettled.reason) {
                Ok(wire::UnsettledReason::NotFound) => UnsettledReason::NotFound,
                Ok(wire::UnsettledReason::AfterSeqTooOld) => UnsettledReason::AfterSeqTooOld,
                Ok(wire::UnsettledReason::AfterSeqAhead) => UnsettledReason::AfterSeqAhead,
                Ok(wire::UnsettledReason::Contended) => UnsettledReason::Contended,
                // To send it again is right, whatever a newer replica means.
                Ok(wire::UnsettledReason::Unavailable | wire::UnsettledReason::Unspecified)
                | Err(_) => UnsettledReason::Unavailable,
            },
            head: unsettled.head.map(Seq),
            retry_after: unsettled.retry_after_millis.map(Duration::from_millis),
        }),
    })
}
