//! One stream by either door. Whatever it says is recorded before it is given to
//! the transport, whatever is heard as soon as it is read.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use duologue_proto::chat::v1::subscribe_response::Frame as Shown;
use duologue_proto::ids::UnixMillis;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::Gate;
use super::way::Chat;
use super::world::World;
use crate::event::{
    Connect, Cursor, CursorMove, Door, Envelope, Event, Refused, SessionNumber, Stored, digest,
};

/// Frames up that wait for the connection.
const FRAMES: usize = 64;
/// How long response headers may take.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// A way to the server.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) chat: Chat,
    pub(super) gate: Gate,
}

/// A `Converse` on which nothing was said.
pub(super) struct Bare {
    up: mpsc::Sender<wire::ConverseRequest>,
    down: Streaming<wire::ConverseResponse>,
    link: Link,
}

/// An open stream.
pub(super) struct Stream {
    pub(super) session: SessionNumber,
    pub(super) user: String,
    pub(super) link: Link,
    up: Option<mpsc::Sender<wire::ConverseRequest>>,
    down: Frames,
}

enum Frames {
    Converse(Box<Streaming<wire::ConverseResponse>>),
    Subscribe(Box<Streaming<wire::SubscribeResponse>>),
}

/// What a device acts upon.
#[derive(Debug)]
pub(super) enum Heard {
    Welcome(wire::Welcome),
    Stored(wire::Stored),
    Rejected(wire::Rejected),
    Deferred(wire::Deferred),
    Delivered(Envelope, usize),
    CursorStored(String, Cursor),
    CursorRefused,
    CaughtUp(String),
    Goodbye(wire::GoodbyeReason),
    Other,
    /// The stream is over; true: with OK.
    End(bool),
}

/// Opens a `Converse`.
pub(super) async fn converse(
    world: &World,
    user: &str,
    link: Link,
    lifetime: Duration,
) -> Result<Bare, Status> {
    let (up, frames) = mpsc::channel(FRAMES);
    let request = world.request(user, lifetime, ReceiverStream::new(frames))?;
    let mut chat = link.chat.clone();
    let down = within(chat.converse(request)).await?.into_inner();
    Ok(Bare { up, down, link })
}

/// Opens a `Subscribe`.
pub(super) async fn subscribe(
    world: &World,
    link: Link,
    lifetime: Duration,
    connect: Connect,
    hello: wire::Hello,
) -> Result<Stream, Status> {
    let (session, user) = (connect.session, connect.user.clone());
    let request = wire::SubscribeRequest {
        device_id: hello.device_id,
        connect_number: hello.connect_number,
        history_id: hello.history_id,
        sync_token: hello.sync_token,
        positions: hello.positions,
        cursors: hello.cursors,
        client_name: hello.client_name,
        client_version: hello.client_version,
        features: hello.features,
    };
    let request = world.request(&user, lifetime, request)?;
    world.note(Event::Connect(connect));
    let mut chat = link.chat.clone();
    let down = match within(chat.subscribe(request)).await {
        Ok(response) => Frames::Subscribe(Box::new(response.into_inner())),
        Err(status) => {
            let cause = format!("refused: {:?}", status.code());
            world.note(Event::Disconnect { session, cause });
            return Err(status);
        }
    };
    Ok(Stream {
        session,
        user,
        link,
        up: None,
        down,
    })
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded("no headers in time"));
    timeout(OPEN_LIMIT, call).await.unwrap_or_else(late)
}

impl Bare {
    /// Says `Hello`.
    pub(super) fn hello(self, world: &World, connect: Connect, hello: wire::Hello) -> Stream {
        let (session, user) = (connect.session, connect.user.clone());
        world.note(Event::Connect(connect));
        let frame = wire::ConverseRequest {
            r#ref: 0,
            frame: Some(Up::Hello(hello)),
        };
        // It is the first frame, so there is room, unless the stream is over: that
        // is heard.
        let _ = self.up.try_send(frame);
        Stream {
            session,
            user,
            link: self.link,
            up: Some(self.up),
            down: Frames::Converse(Box::new(self.down)),
        }
    }
}

impl Stream {
    pub(super) fn door(&self) -> Door {
        match self.down {
            Frames::Converse(_) => Door::Converse,
            Frames::Subscribe(_) => Door::Subscribe,
        }
    }

    /// Records an event and says the frame, if the connection has room for it.
    /// Returns whether it has.
    pub(super) fn say(&self, world: &World, reference: u64, event: Event, frame: Up) -> bool {
        let Some(Ok(permit)) = self.up.as_ref().map(mpsc::Sender::try_reserve) else {
            return false;
        };
        world.note(event);
        permit.send(wire::ConverseRequest {
            r#ref: reference,
            frame: Some(frame),
        });
        true
    }

    /// Says nothing more.
    pub(super) fn half_close(&mut self) {
        self.up = None;
    }

    /// The next frame, recorded. May be cancelled without losing one.
    pub(super) async fn hear(&mut self, world: &World) -> Heard {
        let (reference, frame) = match &mut self.down {
            Frames::Converse(down) => match down.message().await {
                Ok(Some(response)) => (response.r#ref, response.frame),
                end => return self.ended(world, end.map(|_| ())),
            },
            Frames::Subscribe(down) => match down.message().await {
                Ok(Some(response)) => (0, response.frame.and_then(converse_frame)),
                end => return self.ended(world, end.map(|_| ())),
            },
        };
        frame.map_or(Heard::Other, |frame| self.take(world, reference, frame))
    }

    fn ended(&self, world: &World, end: Result<(), Status>) -> Heard {
        let cause = match &end {
            Ok(()) => "OK".to_owned(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        self.left(world, &cause);
        Heard::End(end.is_ok())
    }

    /// Notes that the stream is over, for this side or the other.
    pub(super) fn left(&self, world: &World, cause: &str) {
        world.closed(self.session);
        world.note(Event::Disconnect {
            session: self.session,
            cause: cause.to_owned(),
        });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left is judged below"
    )]
    fn take(&self, world: &World, reference: u64, frame: Down) -> Heard {
        let session = self.session;
        match frame {
            Down::Welcome(welcome) => {
                world.note(Event::Welcome { session });
                world.opened(session);
                Heard::Welcome(welcome)
            }
            Down::Stored(stored) => {
                world.note(Event::Stored(Stored {
                    try_number: Some(reference),
                    session: Some(session),
                    user: self.user.clone(),
                    peer: stored.peer.clone(),
                    message_id: stored.message_id.clone(),
                    seq: stored.seq,
                    duplicate: stored.duplicate,
                    accepted_at: millis(stored.accepted_at),
                }));
                Heard::Stored(stored)
            }
            Down::Rejected(rejected) => {
                let reason = rejected.reason().as_str_name();
                world.note(Event::Rejected(self.refused(
                    reference,
                    &rejected.message_id,
                    reason,
                )));
                Heard::Rejected(rejected)
            }
            Down::Deferred(deferred) => {
                let reason = deferred.reason().as_str_name();
                world.note(Event::Deferred(self.refused(
                    reference,
                    &deferred.message_id,
                    reason,
                )));
                Heard::Deferred(deferred)
            }
            Down::CursorStored(stored) => {
                let cursor = cursor(stored.cursor);
                world.note(Event::CursorStored(self.moved(
                    reference,
                    &stored.peer,
                    cursor,
                )));
                Heard::CursorStored(stored.peer, cursor)
            }
            Down::CursorRejected(rejected) => {
                let none = Cursor::default();
                world.note(Event::CursorRefused(self.moved(
                    reference,
                    &rejected.peer,
                    none,
                )));
                Heard::CursorRefused
            }
            frame => self.take_shown(world, frame),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "frames of later versions are ignored, as the contract asks"
    )]
    fn take_shown(&self, world: &World, frame: Down) -> Heard {
        let session = self.session;
        match frame {
            Down::MessageDelivered(delivered) => {
                let wire = delivered.envelope.unwrap_or_default();
                let (envelope, bytes) = envelope(&wire);
                world.note(Event::Delivered {
                    session,
                    envelope: envelope.clone(),
                });
                Heard::Delivered(envelope, bytes)
            }
            Down::ReceiptAdvanced(receipt) => {
                world.note(Event::Receipt {
                    session,
                    peer: receipt.peer.clone(),
                    user: receipt.user.clone(),
                    cursor: cursor(receipt.cursor),
                });
                Heard::Other
            }
            Down::CaughtUp(caught_up) => {
                world.note(Event::CaughtUp {
                    session,
                    token: caught_up.sync_token.clone(),
                });
                Heard::CaughtUp(caught_up.sync_token)
            }
            Down::Goodbye(goodbye) => {
                let reason = goodbye.reason();
                world.closed(session);
                world.note(Event::Goodbye {
                    session,
                    reason: reason.as_str_name().to_owned(),
                });
                Heard::Goodbye(reason)
            }
            _ => Heard::Other,
        }
    }

    fn refused(&self, reference: u64, message_id: &str, reason: &str) -> Refused {
        Refused {
            try_number: Some(reference),
            user: self.user.clone(),
            message_id: message_id.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn moved(&self, number: u64, peer: &str, cursor: Cursor) -> CursorMove {
        CursorMove {
            number,
            session: Some(self.session),
            user: self.user.clone(),
            peer: peer.to_owned(),
            cursor,
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "frames of later versions are ignored, as the contract asks"
)]
fn converse_frame(frame: Shown) -> Option<Down> {
    match frame {
        Shown::Welcome(frame) => Some(Down::Welcome(frame)),
        Shown::MessageDelivered(frame) => Some(Down::MessageDelivered(frame)),
        Shown::CursorStored(frame) => Some(Down::CursorStored(frame)),
        Shown::CursorRejected(frame) => Some(Down::CursorRejected(frame)),
        Shown::ReceiptAdvanced(frame) => Some(Down::ReceiptAdvanced(frame)),
        Shown::CaughtUp(frame) => Some(Down::CaughtUp(frame)),
        Shown::Goodbye(frame) => Some(Down::Goodbye(frame)),
        _ => None,
    }
}

/// A cursor of the wire; zero if it is absent.
pub(super) fn cursor(wire: Option<wire::Cursor>) -> Cursor {
    wire.map_or_else(Cursor::default, |wire| Cursor {
        delivered: wire.delivered,
        read: wire.read,
    })
}

/// A time of the wire; 0 if it is absent.
pub(super) fn millis(wire: Option<prost_types::Timestamp>) -> u64 {
    wire.map_or(0, |wire| UnixMillis::from_wire(&wire).0)
}

/// An envelope for the record, and how long its text is.
pub(super) fn envelope(wire: &wire::Envelope) -> (Envelope, usize) {
    let kind = wire.body.as_ref().and_then(|body| body.kind.as_ref());
    let text = kind.map_or("", |wire::body::Kind::Text(text)| text.as_str());
    let envelope = Envelope {
        seq: wire.seq,
        message_id: wire.message_id.clone(),
        sender: wire.sender.clone(),
        recipient: wire.recipient.clone(),
        accepted_at: millis(wire.accepted_at),
        body: digest(text),
    };
    (envelope, text.len())
}
