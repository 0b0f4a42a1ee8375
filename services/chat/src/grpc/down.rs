//! Frames down, to the wire.

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::limits;
use duologue_proto::presence::UserPresence;
use std::time::Duration;

use crate::frame::{
    CursorRejectedReason, CursorRejection, DeferredReason, Down, GoodbyeReason, RejectedReason,
    Rejection, Welcome,
};

/// The server's version, as `Welcome` tells it.
pub(super) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn to_wire(down: Down) -> Frame {
    match down {
        Down::Welcome(welcome) => Frame::Welcome(self::welcome(*welcome)),
        Down::Stored {
            message_id,
            peer,
            seq,
            duplicate,
            accepted_at,
        } => Frame::Stored(wire::Stored {
            message_id: message_id.to_string(),
            peer: peer.to_string(),
            seq: seq.0,
            duplicate,
            accepted_at: Some(accepted_at.to_wire()),
        }),
        Down::Rejected(rejection) => Frame::Rejected(rejected(*rejection)),
        Down::Deferred {
            message_id,
            peer,
            reason,
            retry_after,
            head,
        } => Frame::Deferred(wire::Deferred {
            message_id: message_id.to_string(),
            peer: peer.to_string(),
            reason: deferred_reason(reason).into(),
            retry_after: retry_after.map(duration),
            head: head.map(|head| head.0),
        }),
        Down::Delivered(envelope) => Frame::MessageDelivered(wire::MessageDelivered {
            envelope: Some(envelope.to_wire()),
        }),
        Down::CursorStored { peer, cursor } => Frame::CursorStored(wire::CursorStored {
            peer: peer.to_string(),
            cursor: Some(cursor.to_wire()),
        }),
        Down::CursorRejected(rejection) => Frame::CursorRejected(cursor_rejected(*rejection)),
        Down::Receipt { peer, user, cursor } => Frame::ReceiptAdvanced(wire::ReceiptAdvanced {
            peer: peer.to_string(),
            user: user.to_string(),
            cursor: Some(cursor.to_wire()),
        }),
        Down::Presence(presence) => Frame::PresenceChanged(wire::PresenceChanged {
            presence: Some(self::presence(&presence)),
        }),
        Down::PresenceReset => Frame::PresenceReset(wire::PresenceReset {}),
        Down::CaughtUp { token } => Frame::CaughtUp(wire::CaughtUp { sync_token: token }),
        Down::Pong => Frame::Pong(wire::Pong {}),
        Down::Heartbeat => Frame::Heartbeat(wire::Heartbeat {}),
        Down::Goodbye {
            reason,
            detail,
            retry_after,
        } => Frame::Goodbye(wire::Goodbye {
            reason: goodbye_reason(reason).into(),
            detail,
            retry_after: retry_after.map(duration),
        }),
    }
}

fn welcome(welcome: Welcome) -> wire::Welcome {
    wire::Welcome {
        user: welcome.user.to_string(),
        device_id: welcome.device.to_string(),
        session_id: welcome.session.to_string(),
        node_id: welcome.node.to_string(),
        history_id: welcome.history_id.to_string(),
        server_version: SERVER_VERSION.to_owned(),
        server_time: Some(welcome.server_time.to_wire()),
        limits: Some(wire::Limits {
            max_text_bytes: narrow(welcome.max_text_bytes),
            max_frame_bytes: narrow(limits::MAX_REQUEST_BYTES),
            max_sends_in_flight: narrow(limits::MAX_SENDS_IN_FLIGHT),
            max_positions: narrow(limits::MAX_POSITIONS),
            max_search: u32::try_from(limits::MAX_SEARCH).unwrap_or(u32::MAX),
        }),
        heartbeat_interval: Some(duration(limits::HEARTBEAT_INTERVAL)),
        features: Vec::new(),
    }
}

fn narrow(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// A duration as the wire has it.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A user's presence as the wire has it; last seen to the minute, which is all
/// that others need to know.
pub(super) fn presence(presence: &UserPresence) -> wire::UserPresence {
    let availability = if presence.online {
        wire::Availability::Online
    } else {
        wire::Availability::Offline
    };
    let last_seen = presence.last_seen.filter(|_| !presence.online);
    wire::UserPresence {
        user: presence.user.to_string(),
        availability: availability.into(),
        last_seen: last_seen
            .map(|seen| duologue_proto::ids::UnixMillis(seen.0 / 60_000 * 60_000).to_wire()),
    }
}

fn rejected(rejection: Rejection) -> wire::Rejected {
    let reason = match rejection.reason {
        RejectedReason::Invalid => wire::RejectedReason::Invalid,
        RejectedReason::TooLong => wire::RejectedReason::TooLong,
        RejectedReason::MessageIdReused => wire::RejectedReason::MessageIdReused,
    };
    wire::Rejected {
        message_id: rejection.message_id,
        peer: rejection.peer,
        reason: reason.into(),
        field: rejection.field.to_owned(),
        detail: rejection.detail,
    }
}

fn deferred_reason(reason: DeferredReason) -> wire::DeferredReason {
    match reason {
        DeferredReason::BehindEarlier => wire::DeferredReason::BehindEarlier,
        DeferredReason::RateLimited => wire::DeferredReason::RateLimited,
        DeferredReason::AfterSeqTooOld => wire::DeferredReason::AfterSeqTooOld,
        DeferredReason::AfterSeqAhead => wire::DeferredReason::AfterSeqAhead,
        DeferredReason::Contended => wire::DeferredReason::Contended,
        DeferredReason::Unavailable => wire::DeferredReason::Unavailable,
    }
}

fn cursor_rejected(rejection: CursorRejection) -> wire::CursorRejected {
    let reason = match rejection.reason {
        CursorRejectedReason::Invalid => wire::CursorRejectedReason::Invalid,
        CursorRejectedReason::AboveHead => wire::CursorRejectedReason::AboveHead,
        CursorRejectedReason::Unavailable => wire::CursorRejectedReason::Unavailable,
    };
    wire::CursorRejected {
        peer: rejection.peer,
        reason: reason.into(),
        field: rejection.field.to_owned(),
        detail: rejection.detail,
        head: rejection.head.map(|head| head.0),
    }
}

fn goodbye_reason(reason: GoodbyeReason) -> wire::GoodbyeReason {
    match reason {
        GoodbyeReason::Superseded => wire::GoodbyeReason::Superseded,
        GoodbyeReason::ShuttingDown => wire::GoodbyeReason::ShuttingDown,
        GoodbyeReason::Unauthenticated => wire::GoodbyeReason::Unauthenticated,
        GoodbyeReason::ProtocolError => wire::GoodbyeReason::ProtocolError,
        GoodbyeReason::HistoryChanged => wire::GoodbyeReason::HistoryChanged,
        GoodbyeReason::Resync => wire::GoodbyeReason::Resync,
        GoodbyeReason::Idle => wire::GoodbyeReason::Idle,
        GoodbyeReason::Internal => wire::GoodbyeReason::Internal,
    }
}
