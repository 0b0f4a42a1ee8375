//! A server that keeps the contract, as simply as can be.

use std::collections::{BTreeMap, VecDeque};

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use duologue_proto::ids::{MessageId, Seq, UserId};
use duologue_proto::message::Cursor;
use proptest::prelude::*;

/// How far back an earlier copy is looked for.
const MAX_SEARCH: u64 = 4;
/// Messages on a page of `ListMessages`.
const PAGE: usize = 3;
/// A token finds this many messages from before it again.
const SLACK: u64 = 2;

/// What becomes of one send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flavour {
    Store,
    /// Stored; the own envelope is delivered too, before the answer or after it.
    DeliverThenAnswer,
    AnswerThenDeliver,
    Defer,
    /// The store's answer is unknown; the message lands nevertheless.
    DeferButLand,
    /// Rate limited, with a delay.
    Limit,
}

pub(super) fn flavour() -> impl Strategy<Value = Flavour> {
    prop_oneof![
        6 => Just(Flavour::Store),
        2 => Just(Flavour::DeliverThenAnswer),
        2 => Just(Flavour::AnswerThenDeliver),
        2 => Just(Flavour::Defer),
        2 => Just(Flavour::DeferButLand),
        1 => Just(Flavour::Limit),
    ]
}

#[derive(Debug, Clone)]
struct Slot {
    id: MessageId,
    sender: UserId,
    /// The place among all messages of all conversations.
    accepted: u64,
}

#[derive(Default)]
struct Open {
    shown: BTreeMap<UserId, u64>,
    deferred: BTreeMap<UserId, VecDeque<MessageId>>,
}

pub(super) struct Server {
    own: UserId,
    conversations: BTreeMap<UserId, Vec<Slot>>,
    cursors: BTreeMap<UserId, Cursor>,
    accepted: u64,
    open: Option<Open>,
    last_connect: u64,
}

impl Server {
    pub(super) fn new(own: UserId) -> Self {
        Self {
            own,
            conversations: BTreeMap::new(),
            cursors: BTreeMap::new(),
            accepted: 0,
            open: None,
            last_connect: 0,
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.open = None;
    }

    pub(super) fn head(&self, peer: &UserId) -> Seq {
        Seq(self.slots(peer).len() as u64)
    }

    pub(super) fn at(&self, peer: &UserId, seq: Seq) -> Option<MessageId> {
        let index = usize::try_from(seq.0).unwrap().checked_sub(1)?;
        self.slots(peer).get(index).map(|slot| slot.id.clone())
    }

    /// The ids of this device: another device's begin with "x".
    pub(super) fn own_ids(&self, peer: &UserId) -> Vec<MessageId> {
        let own = self
            .slots(peer)
            .iter()
            .filter(|slot| slot.sender == self.own);
        own.map(|slot| slot.id.clone())
            .filter(|id| !id.as_str().starts_with("x-"))
            .collect()
    }

    pub(super) fn cursor(&self, peer: &UserId) -> Cursor {
        self.cursors.get(peer).copied().unwrap_or_default()
    }

    /// A message that does not come from this device.
    pub(super) fn other_sends(
        &mut self,
        peer: &UserId,
        sender: &UserId,
    ) -> Option<wire::ConverseResponse> {
        let id = if *sender == self.own {
            format!("x-{}", self.accepted)
        } else {
            // The same ids as this device uses: they are another sender's.
            format!("{peer}-{}", self.head(peer))
        };
        self.put(peer, MessageId::parse(&id).unwrap(), sender.clone());
        self.deliver(peer)
    }

    /// `ListMessages`, forward.
    pub(super) fn page(&self, peer: &UserId, after: Seq) -> wire::ListMessagesResponse {
        let skip = usize::try_from(after.0).unwrap();
        let slots = self.slots(peer).iter().enumerate().skip(skip).take(PAGE);
        wire::ListMessagesResponse {
            messages: slots
                .map(|(index, slot)| self.envelope(peer, index, slot))
                .collect(),
            next_page_token: String::new(),
            head: self.head(peer).0,
        }
    }

    pub(super) fn read(
        &mut self,
        frame: wire::ConverseRequest,
        flavour: Flavour,
    ) -> Vec<wire::ConverseResponse> {
        match frame.frame.expect("a client sends known frames") {
            Up::Hello(hello) => self.hello(&hello),
            Up::SendMessage(send) => self.send(&send, flavour),
            Up::Abandon(abandon) => {
                let open = self.open.as_mut().expect("Hello comes first");
                for list in open.deferred.values_mut() {
                    list.retain(|id| id.as_str() != abandon.message_id);
                }
                Vec::new()
            }
            Up::AdvanceCursor(advance) => vec![self.advance(&advance)],
            Up::Ping(_) => vec![down(Down::Pong(wire::Pong {}))],
        }
    }

    fn slots(&self, peer: &UserId) -> &[Slot] {
        self.conversations.get(peer).map_or(&[], Vec::as_slice)
    }

    fn hello(&mut self, hello: &wire::Hello) -> Vec<wire::ConverseResponse> {
        let number = hello.connect_number.expect("a device has a number");
        assert!(number > self.last_connect, "connect numbers rise");
        self.last_connect = number;
        self.open = Some(Open::default());
        let welcome = wire::Welcome {
            user: self.own.as_str().into(),
            history_id: "history".into(),
            limits: Some(wire::Limits {
                max_sends_in_flight: 3,
                max_search: u32::try_from(MAX_SEARCH).unwrap(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut frames = vec![down(Down::Welcome(welcome))];
        for peer in self.conversations.keys().cloned().collect::<Vec<_>>() {
            let start = self.start(&peer, hello);
            self.open
                .as_mut()
                .unwrap()
                .shown
                .insert(peer.clone(), start);
            while let Some(frame) = self.deliver(&peer) {
                frames.push(frame);
            }
        }
        for cursor in &hello.cursors {
            frames.push(self.advance(cursor));
        }
        let sync_token = format!("{}", self.accepted);
        frames.push(down(Down::CaughtUp(wire::CaughtUp { sync_token })));
        frames
    }

    fn start(&self, peer: &UserId, hello: &wire::Hello) -> u64 {
        let named = hello.positions.iter().find(|it| it.peer == peer.as_str());
        if let Some(named) = named {
            assert!(Seq(named.seq) <= self.head(peer), "no position is ahead");
            return named.seq;
        }
        if let Ok(token) = hello.sync_token.parse::<u64>() {
            let before = |slot: &&Slot| slot.accepted < token.saturating_sub(SLACK);
            return self.slots(peer).iter().take_while(before).count() as u64;
        }
        self.cursor(peer).delivered.0
    }

    /// The next envelope that the session lacks.
    fn deliver(&mut self, peer: &UserId) -> Option<wire::ConverseResponse> {
        let open = self.open.as_mut()?;
        let shown = open.shown.entry(peer.clone()).or_default();
        let index = usize::try_from(*shown).unwrap();
        let slot = self.conversations.get(peer)?.get(index)?.clone();
        *shown += 1;
        let envelope = Some(self.envelope(peer, index, &slot));
        Some(down(Down::MessageDelivered(wire::MessageDelivered {
            envelope,
        })))
    }

    fn send(&mut self, send: &wire::SendMessage, flavour: Flavour) -> Vec<wire::ConverseResponse> {
        let peer = UserId::parse(&send.peer).unwrap();
        let id = MessageId::parse(send.message_id.as_ref().unwrap()).unwrap();
        let after = send.after_seq.unwrap();
        assert!(Seq(after) <= self.head(&peer), "no after_seq is ahead");
        if self.head(&peer).0 - after > MAX_SEARCH {
            return self.defer(&peer, &id, wire::DeferredReason::AfterSeqTooOld);
        }
        let found = self
            .slots(&peer)
            .iter()
            .enumerate()
            .skip(usize::try_from(after).unwrap());
        let found = found
            .filter(|(_, slot)| slot.id == id && slot.sender == self.own)
            .map(|(index, _)| index as u64 + 1)
            .next();
        if let Some(seq) = found {
            return self.answer(&peer, &id, seq, true, Flavour::Store);
        }
        let list = self.open.as_ref().unwrap().deferred.get(&peer);
        if list
            .and_then(VecDeque::front)
            .is_some_and(|first| *first != id)
        {
            return self.defer(&peer, &id, wire::DeferredReason::BehindEarlier);
        }
        match flavour {
            Flavour::Defer => return self.defer(&peer, &id, wire::DeferredReason::Unavailable),
            Flavour::Limit => return self.defer(&peer, &id, wire::DeferredReason::RateLimited),
            Flavour::DeferButLand => {
                self.put(&peer, id.clone(), self.own.clone());
                return self.defer(&peer, &id, wire::DeferredReason::Unavailable);
            }
            Flavour::Store | Flavour::DeliverThenAnswer | Flavour::AnswerThenDeliver => {}
        }
        self.put(&peer, id.clone(), self.own.clone());
        let seq = self.head(&peer).0;
        self.answer(&peer, &id, seq, false, flavour)
    }

    fn answer(
        &mut self,
        peer: &UserId,
        id: &MessageId,
        seq: u64,
        duplicate: bool,
        flavour: Flavour,
    ) -> Vec<wire::ConverseResponse> {
        let open = self.open.as_mut().unwrap();
        if let Some(list) = open.deferred.get_mut(peer) {
            list.retain(|deferred| deferred != id);
        }
        let stored = down(Down::Stored(wire::Stored {
            message_id: id.as_str().into(),
            peer: peer.as_str().into(),
            seq,
            duplicate,
            accepted_at: None,
        }));
        let shown = open.shown.entry(peer.clone()).or_default();
        if matches!(flavour, Flavour::Store) && *shown + 1 == seq {
            *shown = seq;
        }
        let mut delivered = Vec::new();
        while let Some(frame) = self.deliver(peer) {
            delivered.push(frame);
        }
        if matches!(flavour, Flavour::DeliverThenAnswer) {
            delivered.push(stored);
            delivered
        } else {
            std::iter::once(stored).chain(delivered).collect()
        }
    }

    fn defer(
        &mut self,
        peer: &UserId,
        id: &MessageId,
        reason: wire::DeferredReason,
    ) -> Vec<wire::ConverseResponse> {
        let list = self
            .open
            .as_mut()
            .unwrap()
            .deferred
            .entry(peer.clone())
            .or_default();
        if !list.contains(id) {
            list.push_back(id.clone());
        }
        let limited = reason == wire::DeferredReason::RateLimited;
        let deferred = wire::Deferred {
            message_id: id.as_str().into(),
            peer: peer.as_str().into(),
            reason: reason.into(),
            retry_after: limited.then_some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            head: Some(self.head(peer).0),
        };
        vec![down(Down::Deferred(deferred))]
    }

    fn put(&mut self, peer: &UserId, id: MessageId, sender: UserId) {
        self.accepted += 1;
        let accepted = self.accepted;
        let slots = self.conversations.entry(peer.clone()).or_default();
        slots.push(Slot {
            id,
            sender,
            accepted,
        });
    }

    fn advance(&mut self, advance: &wire::AdvanceCursor) -> wire::ConverseResponse {
        let peer = UserId::parse(&advance.peer).unwrap();
        let asked = Cursor::asked(advance.delivered.map(Seq), advance.read.map(Seq));
        assert!(asked.delivered <= self.head(&peer), "no cursor is ahead");
        let cursor = self.cursor(&peer).max(asked);
        self.cursors.insert(peer, cursor);
        down(Down::CursorStored(wire::CursorStored {
            peer: advance.peer.clone(),
            cursor: Some(cursor.to_wire()),
        }))
    }

    fn envelope(&self, peer: &UserId, index: usize, slot: &Slot) -> wire::Envelope {
        let recipient = if slot.sender == self.own {
            peer
        } else {
            &self.own
        };
        wire::Envelope {
            seq: index as u64 + 1,
            message_id: slot.id.as_str().into(),
            sender: slot.sender.as_str().into(),
            recipient: recipient.as_str().into(),
            body: Some(wire::Body {
                kind: Some(wire::body::Kind::Text("text".into())),
            }),
            ..Default::default()
        }
    }
}

pub(super) fn down(frame: Down) -> wire::ConverseResponse {
    wire::ConverseResponse {
        r#ref: 0,
        frame: Some(frame),
    }
}

/// The peer of a delivery, as `own` sees it.
pub(super) fn delivered_peer(frame: &wire::ConverseResponse, own: &UserId) -> Option<UserId> {
    match &frame.frame {
        Some(Down::MessageDelivered(delivered)) => {
            let envelope = delivered.envelope.clone()?;
            Some(crate::event::Message::from_wire(envelope, own)?.peer)
        }
        _ => None,
    }
}
