//! The unary calls. They belong to no session, so an envelope sent this way goes
//! to every session of the sender too.

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::history::{
    Appended, ConversationSummary, CursorAdvanced, Draft, HistoryError, Intent, ListConversations,
    ListMessages, Run, Unsettled, UnsettledReason,
};
use duologue_proto::ids::{Seq, UserId};
use duologue_proto::limits;
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::task;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{caller, down, up};
use crate::append;
use crate::core::Core;
use crate::people::{self, Unseen};

type Answer<T> = Result<Response<T>, Status>;

/// What is waited before something that was refused without a time is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn send_message(
    core: Arc<Core>,
    request: Request<wire::SendMessageRequest>,
) -> Answer<wire::SendMessageResponse> {
    let sender = caller(request.extensions())?.user;
    let request = request.into_inner();
    let send = up::send(
        &core,
        &request.peer,
        request.message_id.as_deref(),
        request.after_seq,
        request.body.as_ref(),
    )
    .map_err(Refusal::from)?;
    let over_rate = core.sends.take(&sender, Instant::now()).err();
    let held = match (send.too_long, over_rate) {
        (Some(rejection), _) => Some(Refusal::field(rejection.field, rejection.detail)),
        (None, Some(wait)) => {
            let message = "too many sends; wait, then send it again";
            Some(Refusal::new(Reason::RateLimited, message).retry_after(wait))
        }
        (None, None) => None,
    };
    let draft = Draft {
        message_id: send.message_id,
        after_seq: send.after_seq,
        body: send.body,
        // An earlier try may have stored it: that is found at any rate.
        intent: if held.is_some() {
            Intent::FindOnly
        } else {
            Intent::Store
        },
    };
    let run = Run {
        sender,
        peer: send.peer,
        drafts: vec![draft],
    };
    match append::and_wait(&core, run).await.pop() {
        Some(Appended::Stored {
            envelope,
            duplicate,
        }) => Ok(Response::new(wire::SendMessageResponse {
            message_id: envelope.message_id.to_string(),
            seq: envelope.seq.0,
            duplicate,
            accepted_at: Some(envelope.accepted_at.to_wire()),
        })),
        Some(Appended::MessageIdReused) => Err(Refusal::new(
            Reason::MessageIdReused,
            "another body is stored under this message_id; use a new one",
        )
        .into_status()),
        Some(Appended::Unsettled(unsettled)) => Err(not_settled(&unsettled, held).into_status()),
        None => Err(Refusal::internal().into_status()),
    }
}

/// `searched_only`: why it was only searched for.
fn not_settled(unsettled: &Unsettled, searched_only: Option<Refusal>) -> Refusal {
    let refusal = match (unsettled.reason, searched_only) {
        (UnsettledReason::NotFound, Some(refusal)) => return refusal,
        (UnsettledReason::AfterSeqTooOld, _) => Refusal::new(
            Reason::AfterSeqTooOld,
            "more than 256 messages follow after_seq; read them, raise after_seq over those that \
             are not this message, and send it again",
        ),
        (UnsettledReason::AfterSeqAhead, _) => Refusal::new(
            Reason::AfterSeqAhead,
            "after_seq is above the head of the conversation",
        ),
        (UnsettledReason::Contended, _) => {
            Refusal::new(Reason::Contended, "too many writers at once; send it again")
                .retry_after(unsettled.retry_after.unwrap_or(RETRY_AFTER))
        }
        (UnsettledReason::Unavailable | UnsettledReason::NotFound, _) => Refusal::new(
            Reason::Unavailable,
            "the message is not settled; send it again",
        )
        .retry_after(unsettled.retry_after.unwrap_or(RETRY_AFTER)),
    };
    match unsettled.head {
        Some(head) => refusal.meta("head", head),
        None => refusal,
    }
}

pub(super) async fn advance_cursor(
    core: Arc<Core>,
    request: Request<wire::AdvanceCursorRequest>,
) -> Answer<wire::AdvanceCursorResponse> {
    let user = caller(request.extensions())?.user;
    let request = request.into_inner();
    let peer = user_id("peer", &request.peer)?;
    let asked = up::cursor(request.delivered, request.read).map_err(Refusal::from)?;
    let advance = async move {
        let advanced = core.history.advance_cursor(&user, &peer, asked).await;
        // Also one that may have been moved by an earlier try, whose answer was lost.
        if let Ok(CursorAdvanced::Stored { cursor, moved }) = advanced
            && (moved || cursor.holds_of(asked))
        {
            core.router.cursor(&user, &peer, cursor, None);
        }
        advanced
    };
    let advanced = task::spawn("unary cursor", advance)
        .await
        .map_err(|_| Refusal::internal())?;
    match advanced.map_err(unanswered)? {
        CursorAdvanced::Stored { cursor, .. } => Ok(Response::new(wire::AdvanceCursorResponse {
            delivered: cursor.delivered.0,
            read: cursor.read.0,
        })),
        CursorAdvanced::AboveHead { head } => Err(Refusal::new(
            Reason::CursorAboveHead,
            format!("the cursor is above the head {head}; move it at most there"),
        )
        .meta("head", head)
        .into_status()),
    }
}

pub(super) async fn list_messages(
    core: Arc<Core>,
    request: Request<wire::ListMessagesRequest>,
) -> Answer<wire::ListMessagesResponse> {
    let user = caller(request.extensions())?.user;
    let request = request.into_inner();
    let forward = match wire::Direction::try_from(request.direction) {
        Ok(wire::Direction::Unspecified | wire::Direction::Backward) => false,
        Ok(wire::Direction::Forward) => true,
        Err(_) => {
            let detail = "must be DIRECTION_BACKWARD or DIRECTION_FORWARD";
            return Err(Refusal::field("direction", detail).into_status());
        }
    };
    let list = ListMessages {
        user,
        peer: user_id("peer", &request.peer)?,
        page_size: page_size(
            request.page_size,
            limits::DEFAULT_MESSAGES_PAGE,
            limits::MAX_MESSAGES_PAGE,
        )?,
        page_token: page_token(request.page_token)?,
        forward,
        after_seq: request.after_seq.map(Seq),
        before_seq: request.before_seq.map(Seq),
    };
    let page = core.history.list_messages(list).await.map_err(unanswered)?;
    Ok(Response::new(wire::ListMessagesResponse {
        messages: page
            .messages
            .iter()
            .map(duologue_proto::message::Envelope::to_wire)
            .collect(),
        next_page_token: page.next_page_token,
        head: page.head.0,
    }))
}

pub(super) async fn list_conversations(
    core: Arc<Core>,
    request: Request<wire::ListConversationsRequest>,
) -> Answer<wire::ListConversationsResponse> {
    let user = caller(request.extensions())?.user;
    let request = request.into_inner();
    let list = ListConversations {
        user,
        page_size: page_size(
            request.page_size,
            limits::DEFAULT_CONVERSATIONS_PAGE,
            limits::MAX_CONVERSATIONS_PAGE,
        )?,
        page_token: page_token(request.page_token)?,
    };
    let page = core
        .history
        .list_conversations(list)
        .await
        .map_err(unanswered)?;
    Ok(Response::new(wire::ListConversationsResponse {
        conversations: page.conversations.into_iter().map(conversation).collect(),
        next_page_token: page.next_page_token,
    }))
}

fn conversation(summary: ConversationSummary) -> wire::Conversation {
    wire::Conversation {
        peer: summary.peer.to_string(),
        head: summary.last_message.seq.0,
        last_message: Some(summary.last_message.to_wire()),
        unread: summary.unread,
        own_cursor: Some(summary.own_cursor.to_wire()),
        peer_cursor: Some(summary.peer_cursor.to_wire()),
    }
}

pub(super) async fn list_users(
    core: Arc<Core>,
    request: Request<wire::ListUsersRequest>,
) -> Answer<wire::ListUsersResponse> {
    let user = caller(request.extensions())?.user;
    let request = request.into_inner();
    let size = page_size(
        request.page_size,
        limits::DEFAULT_USERS_PAGE,
        limits::MAX_USERS_PAGE,
    )?;
    let after = people::open_page_token(&page_token(request.page_token)?)?;
    let page = people::online(&core, &user, after, size)
        .await
        .map_err(unseen)?;
    Ok(Response::new(wire::ListUsersResponse {
        users: page.users.iter().map(down::presence).collect(),
        next_page_token: page
            .more_after
            .map(|last| people::page_token(&last))
            .unwrap_or_default(),
    }))
}

pub(super) async fn get_presence(
    core: Arc<Core>,
    request: Request<wire::GetPresenceRequest>,
) -> Answer<wire::GetPresenceResponse> {
    let caller = caller(request.extensions())?.user;
    let user = user_id("user", &request.into_inner().user)?;
    let presence = people::presence(&core, &caller, &user)
        .await
        .map_err(unseen)?;
    Ok(Response::new(wire::GetPresenceResponse {
        presence: Some(down::presence(&presence)),
    }))
}

fn user_id(field: &'static str, text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|error| Refusal::field(field, error))
}

fn page_size(asked: i32, default: usize, max: usize) -> Result<usize, Refusal> {
    let asked = usize::try_from(asked)
        .map_err(|_| Refusal::field("page_size", format!("must be 0 to {max}")))?;
    Ok(if asked == 0 { default } else { asked.min(max) })
}

fn page_token(token: String) -> Result<String, Refusal> {
    if token.len() <= limits::MAX_TOKEN_BYTES {
        Ok(token)
    } else {
        Err(people::bad_page_token())
    }
}

fn unanswered(error: HistoryError) -> Refusal {
    match error {
        HistoryError::Unavailable { retry_after } => {
            Refusal::new(Reason::Unavailable, "history cannot be reached; try again")
                .retry_after(retry_after.unwrap_or(RETRY_AFTER))
        }
        HistoryError::InvalidPageToken => people::bad_page_token(),
        HistoryError::InvalidSyncToken | HistoryError::PositionAhead { .. } => {
            tracing::error!(%error, "history refused a call for a reason that it has not");
            Refusal::internal()
        }
    }
}

fn unseen(unseen: Unseen) -> Refusal {
    match unseen {
        Unseen::NotVisible => Refusal::new(
            Reason::PresenceNotVisible,
            "the presence of this user is not visible to you: you share no conversation",
        ),
        Unseen::Presence(error) => Refusal::new(
            Reason::Unavailable,
            "presence cannot be known at present; try again",
        )
        .retry_after(error.retry_after().unwrap_or(RETRY_AFTER)),
        Unseen::History(error) => unanswered(error),
    }
}
