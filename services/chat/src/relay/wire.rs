//! The relay's contract and what it stands for. Whatever arrives is checked.

use std::sync::Arc;

use duologue_proto::ids::{Incarnation, InvalidId, NodeId, Seq, SessionId, UserId};
use duologue_proto::message::{Cursor, Envelope, InvalidEnvelope};
use duologue_proto::relay::v1 as wire;
use duologue_runtime::telemetry::propagation::{Trace, traceparent};

use super::news::{Batch, Entry, News};

/// Bytes of a request at most.
pub const RELAY_REQUEST_BYTES: usize = 1024 * 1024;

/// What breaks a rule of the contract.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("an id {0}")]
    Id(#[from] InvalidId),
    #[error("{0}")]
    Envelope(#[from] InvalidEnvelope),
    #[error("an envelope is of a conversation of others")]
    Stranger,
    #[error("a cursor is of neither user")]
    Cursor,
    #[error("the number is 0")]
    Number,
    #[error("the request holds something else than it should")]
    Order,
}

/// Whom a stream means.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) incarnation: Incarnation,
}

pub(crate) fn opening(from: &NodeId, to: &NodeId, incarnation: &Incarnation) -> wire::RelayRequest {
    content(wire::relay_request::Content::Opening(wire::Opening {
        from_node: from.to_string(),
        to_node: to.to_string(),
        to_incarnation: incarnation.to_string(),
    }))
}

pub(crate) fn open(request: Option<wire::RelayRequest>) -> Result<Opening, Invalid> {
    let Some(wire::relay_request::Content::Opening(opening)) =
        request.and_then(|request| request.content)
    else {
        return Err(Invalid::Order);
    };
    Ok(Opening {
        from: NodeId::parse(&opening.from_node)?,
        to: NodeId::parse(&opening.to_node)?,
        incarnation: Incarnation::parse(&opening.to_incarnation)?,
    })
}

pub(crate) fn batch(number: u64, batch: &Batch) -> wire::RelayRequest {
    let news = batch.users.iter().map(|(user, entry)| news(user, entry));
    content(wire::relay_request::Content::Batch(wire::Batch {
        number,
        news: news.collect(),
        everyone: batch.everyone,
    }))
}

fn news(user: &UserId, Entry { news, routes }: &Entry) -> wire::News {
    let envelopes = news.runs.iter().flat_map(|run| run.iter());
    let raised = news.raised.iter().map(|(peer, seq)| wire::Raised {
        peer_id: peer.to_string(),
        seq: seq.0,
    });
    let receipts = news.receipts.iter();
    let receipts = receipts.map(|((peer, whose), cursor)| wire::Receipt {
        peer_id: peer.to_string(),
        whose_id: whose.to_string(),
        delivered: cursor.delivered.0,
        read: cursor.read.0,
    });
    wire::News {
        user_id: user.to_string(),
        session_ids: routes.iter().map(|at| at.session.to_string()).collect(),
        envelopes: envelopes.map(|one| one.wire().to_vec()).collect(),
        raised: raised.collect(),
        receipts: receipts.collect(),
        superseded_session_ids: news.superseded.iter().map(ToString::to_string).collect(),
        look_at_presence: news.look_at_presence,
        resync: news.resync,
        traceparent: traceparent(news.trace),
    }
}

fn content(content: wire::relay_request::Content) -> wire::RelayRequest {
    wire::RelayRequest {
        content: Some(content),
    }
}

/// A batch that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) number: u64,
    pub(crate) users: Vec<ArrivedNews>,
    pub(crate) everyone: bool,
}

/// News of a user, and the sessions that the sender believes in.
#[derive(Debug)]
pub(crate) struct ArrivedNews {
    pub(crate) user: UserId,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) news: News,
}

pub(crate) fn arrived(request: wire::RelayRequest) -> Result<Arrived, Invalid> {
    let Some(wire::relay_request::Content::Batch(batch)) = request.content else {
        return Err(Invalid::Order);
    };
    if batch.number == 0 {
        return Err(Invalid::Number);
    }
    let users = batch.news.into_iter().map(arrived_news);
    Ok(Arrived {
        number: batch.number,
        users: users.collect::<Result<_, _>>()?,
        everyone: batch.everyone,
    })
}

fn arrived_news(from: wire::News) -> Result<ArrivedNews, Invalid> {
    let user = UserId::parse(&from.user_id)?;
    let session = |id: &String| SessionId::parse(id);
    let mut news = News {
        superseded: from
            .superseded_session_ids
            .iter()
            .map(session)
            .collect::<Result<_, _>>()?,
        look_at_presence: from.look_at_presence,
        resync: from.resync,
        trace: Trace::parse(&from.traceparent),
        ..News::default()
    };
    let envelopes = from.envelopes.iter().map(|bytes| Envelope::open(bytes));
    let envelopes: Vec<_> = envelopes.collect::<Result<_, _>>()?;
    let concerns = |one: &Envelope| one.sender == user || one.recipient == user;
    if !envelopes.iter().all(concerns) {
        return Err(Invalid::Stranger);
    }
    let same = |one: &Envelope, next: &Envelope| {
        (&one.sender, &one.recipient) == (&next.sender, &next.recipient)
    };
    for run in envelopes.chunk_by(same) {
        news.push(Arc::from(run));
    }
    for raised in from.raised {
        news.raise(UserId::parse(&raised.peer_id)?, Seq(raised.seq));
    }
    for receipt in from.receipts {
        let (peer, whose) = (
            UserId::parse(&receipt.peer_id)?,
            UserId::parse(&receipt.whose_id)?,
        );
        let cursor = Cursor {
            delivered: Seq(receipt.delivered),
            read: Seq(receipt.read),
        };
        if cursor.read > cursor.delivered || (whose != user && whose != peer) {
            return Err(Invalid::Cursor);
        }
        news.receipt(peer, whose, cursor);
    }
    Ok(ArrivedNews {
        sessions: from
            .session_ids
            .iter()
            .map(session)
            .collect::<Result<_, _>>()?,
        user,
        news,
    })
}

/// The sessions that an answer names.
pub(crate) fn not_here(
    answer: &wire::RelayResponse,
) -> Result<Vec<(UserId, SessionId)>, InvalidId> {
    let named = answer.not_here.iter();
    named
        .map(|one| {
            Ok((
                UserId::parse(&one.user_id)?,
                SessionId::parse(&one.session_id)?,
            ))
        })
        .collect()
}
