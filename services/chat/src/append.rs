//! Append, then relay (design §4).
//!
//! What is stored is relayed where history settles it, not by the session that sent
//! it: whoever wrote, the sessions of both users are told in the order of the places,
//! and a session that is gone changes nothing.
//!
//! Where traces are exported a run has a span, until it is settled: of a stream that is
//! open for hours each run is a trace of its own, which names the session as related.

use std::sync::Arc;

use duologue_proto::history::{Appended, OnAppended, Run};
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::telemetry::TRACED;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use crate::core::Core;
use crate::registry::Handle;
use crate::relay::Announcement;

/// Appends a session's run. The answers come by its inbox.
pub(crate) async fn for_session(core: Arc<Core>, run: Run, origin: Arc<Handle>) {
    let peer = run.peer.clone();
    let messages = run.drafts.len();
    let span = tracing::info_span!(target: TRACED, parent: None, "send", messages);
    if !span.is_disabled() {
        span.follows_from(Span::current().id());
    }
    let relay = relay(&core, &run, Some(Arc::clone(&origin)), span.clone());
    let answered = OnAppended::new(run.drafts.len(), move |answers| {
        origin.inbox.appended(peer, answers);
    });
    let append = core.history.append(run, answered.relaying(relay));
    append.instrument(span).await;
}

/// Appends a run that belongs to no session. Who does not wait for the answers stops
/// nothing that was taken.
pub(crate) async fn and_wait(core: &Arc<Core>, run: Run) -> Vec<Appended> {
    let messages = run.drafts.len();
    let span = tracing::info_span!(target: TRACED, "send", messages);
    let relay = relay(core, &run, None, span.clone());
    let (answer, answers) = oneshot::channel();
    let answered = OnAppended::new(run.drafts.len(), move |appended| {
        let _ = answer.send(appended);
    });
    let append = core.history.append(run, answered.relaying(relay));
    append.instrument(span).await;
    answers.await.unwrap_or_default()
}

/// What relays the stored messages of `run` to every session but `origin`, which has its
/// answers; to that, too, if it was given up before they came. It is part of `span`.
fn relay(
    core: &Arc<Core>,
    run: &Run,
    origin: Option<Arc<Handle>>,
    span: Span,
) -> impl FnOnce(&[Appended], bool) + Send + use<> {
    let core = Arc::clone(core);
    let found_before = planted(Mutant::LookupBeforeAppend)
        .then(|| core.registry.sessions([&run.sender, &run.peer]));
    move |answers, given_up| {
        let stored = stored(answers);
        if stored.is_empty() {
            return;
        }
        let _relaying = span.enter();
        let origin = origin.as_ref().filter(|_| !given_up);
        let origin = origin.map(|handle| &handle.session);
        match found_before {
            None => core.router.messages(stored, origin),
            Some(found) => {
                let run: Arc<[Envelope]> = stored.into();
                for handle in found
                    .iter()
                    .filter(|handle| Some(&handle.session) != origin)
                {
                    handle.inbox.announce(&handle.user, &run);
                }
                core.router.pass_on(Announcement::messages(run));
            }
        }
    }
}

/// What is to be relayed. Duplicates too: the first writer may have died before this.
fn stored(answers: &[Appended]) -> Vec<Envelope> {
    let stored = answers.iter().filter_map(|answer| match answer {
        Appended::Stored {
            envelope,
            duplicate,
        } if !(*duplicate && planted(Mutant::DuplicateNotRelayed)) => Some(envelope.clone()),
        Appended::Stored { .. } | Appended::MessageIdReused | Appended::Unsettled(_) => None,
    });
    stored.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use duologue_proto::history::{Unsettled, UnsettledReason};
    use duologue_proto::ids::{MessageId, Seq, UnixMillis, UserId};

    use super::*;

    #[test]
    pub(crate) fn a_duplicate_is_announced_like_a_first_append() {
        let user = |name| UserId::parse(name).unwrap();
        let id = MessageId::parse("m").unwrap();
        let envelope = Envelope::seal(Seq(1), id, user("alice"), user("bob"), UnixMillis(0), &[]);
        let unsettled = Appended::Unsettled(Unsettled {
            reason: UnsettledReason::NotFound,
            head: None,
            retry_after: None,
        });
        for duplicate in [false, true] {
            let found = Appended::Stored {
                envelope: envelope.clone(),
                duplicate,
            };
            let answers = [unsettled.clone(), found, Appended::MessageIdReused];
            assert_eq!(stored(&answers), std::slice::from_ref(&envelope));
        }
    }
}
