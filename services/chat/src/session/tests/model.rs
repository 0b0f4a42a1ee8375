//! Random lives of a session beside a simple history: whatever is lost, late,
//! doubled or slow, the device is shown one gapless order, each message once, and
//! in the end everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use duologue_proto::history::{
    Appended, CursorAdvanced, HistoryError, Intent, ReadPage, ReadRequest, ReadStart, Run,
    SyncPage, SyncRequest, SyncedConversation, Unsettled, UnsettledReason,
};
use duologue_proto::ids::{Incarnation, Seq, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::Registered;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{START, about, envelope, send, user};
use crate::frame::{Down, Hello, Up};
use crate::session::{Effect, Input, Now, OUTBOX_BYTES, Session};

const PEERS: [&str; 3] = ["bob", "carol", "dave"];

/// One step of a life.
#[derive(Debug, Clone)]
enum Step {
    /// A peer's message is stored; its announcement comes, comes twice, or is
    /// lost.
    PeerSends { peer: usize, announced: u8 },
    /// The device sends.
    DeviceSends { peer: usize },
    /// The device sends its oldest deferred message to a peer again.
    DeviceResends { peer: usize },
    /// Something that the session waits for is answered.
    Answer { which: usize, fails: bool },
    /// The device reads.
    DeviceReads { frames: usize },
    /// Time passes.
    Time { millis: u64 },
    /// Lost announcements are suspected.
    Resync,
    /// The node has a new incarnation.
    RegisterAgain { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..PEERS.len();
    prop_oneof![
        4 => (peer.clone(), 0..4u8).prop_map(|(peer, announced)| Step::PeerSends { peer, announced }),
        2 => peer.clone().prop_map(|peer| Step::DeviceSends { peer }),
        2 => peer.prop_map(|peer| Step::DeviceResends { peer }),
        6 => (any::<usize>(), prop::bool::weighted(0.15))
            .prop_map(|(which, fails)| Step::Answer { which, fails }),
        3 => (1..200usize).prop_map(|frames| Step::DeviceReads { frames }),
        1 => (1..3_000u64).prop_map(|millis| Step::Time { millis }),
        1 => Just(Step::Resync),
        1 => (0..3_000u64).prop_map(|millis| Step::RegisterAgain { millis }),
    ]
}

/// The session, its history, its device, and what is on the way between them.
struct World {
    session: Session,
    now: Now,
    history: BTreeMap<UserId, Vec<Envelope>>,
    waiting: Vec<Waiting>,
    outbox: Vec<Down>,
    outbox_bytes: usize,
    device: Device,
    next_id: usize,
}

/// A question of the session that is not answered yet. Reads see what was stored
/// when they were asked, and may be answered late.
enum Waiting {
    Ready(Input),
    Read(UserId, ReadPage),
    Sync(SyncPage),
    Append(Run),
    Cursor(UserId, Cursor),
}

/// What the device has seen, checked frame by frame.
#[derive(Default)]
struct Device {
    /// The last sequence held without a gap, by conversation.
    position: BTreeMap<UserId, u64>,
    /// What was delivered, and what it knows by its own answers.
    delivered: BTreeSet<(UserId, u64)>,
    answered: BTreeSet<(UserId, u64)>,
    /// Ids in the order in which they were first sent, by conversation.
    sent: BTreeMap<UserId, Vec<String>>,
    /// Those of them that are not settled and not on the way.
    deferred: BTreeMap<UserId, BTreeSet<usize>>,
    caught_up: usize,
}

impl Device {
    /// Moves the position over everything that follows without a gap.
    fn advance(&mut self, peer: &UserId) {
        let position = self.position.get_mut(peer).unwrap();
        let mut next = (peer.clone(), *position + 1);
        while self.delivered.contains(&next) || self.answered.contains(&next) {
            *position = next.1;
            next.1 += 1;
        }
    }
}

impl World {
    fn new(positions: &[u64], before: &[u64]) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: START,
        };
        let mut world = Self {
            session: Session::new(about(), now),
            now,
            history: BTreeMap::new(),
            waiting: Vec::new(),
            outbox: Vec::new(),
            outbox_bytes: 0,
            device: Device::default(),
            next_id: 0,
        };
        let mut hello = Hello::default();
        for (index, peer) in PEERS.iter().enumerate() {
            (0..before[index]).for_each(|_| drop(world.peer_stores(peer)));
            let position = positions[index].min(before[index]);
            hello.positions.push((user(peer), Seq(position)));
            world.device.position.insert(user(peer), position);
        }
        world.give(Input::Up(0, Up::Hello(Ok(Box::new(hello)))));
        world
    }

    fn peer_stores(&mut self, peer: &str) -> Envelope {
        self.next_id += 1;
        let id = format!("p{}", self.next_id);
        let log = self.history.entry(user(peer)).or_default();
        let stored = envelope(peer, "alice", log.len() as u64 + 1, &id);
        log.push(stored.clone());
        stored
    }

    fn give(&mut self, input: Input) {
        let inputs = [Input::Outbox(self.outbox_bytes), input];
        for effect in self.session.handle(inputs, self.now) {
            match effect {
                Effect::Push(_, down) => {
                    self.outbox_bytes += down.cost();
                    self.outbox.push(down);
                }
                Effect::Read(request) => {
                    let page = self.read(&request);
                    self.waiting.push(Waiting::Read(request.peer, page));
                }
                Effect::Sync(request) => {
                    let page = self.sync(&request);
                    self.waiting.push(Waiting::Sync(page));
                }
                Effect::Register(_) => {
                    let registered = Registered::InForce {
                        replaced: Vec::new(),
                    };
                    self.waiting
                        .push(Waiting::Ready(Input::Registered(Ok(registered))));
                }
                Effect::Append(run) => self.waiting.push(Waiting::Append(run)),
                Effect::WriteCursor(peer, cursor) => {
                    self.waiting.push(Waiting::Cursor(peer, cursor));
                }
                Effect::AnnounceCursor(..) | Effect::AskPresence(..) | Effect::Release => {}
                Effect::End(refusal) => panic!("the session ended: {refusal:?}"),
            }
        }
        let due = self.session.next_deadline();
        assert!(due.is_none_or(|due| due > self.now.instant));
        let more = self.session.handle([], self.now);
        assert!(more.is_empty(), "a call more changes nothing: {more:?}");
        // Beside what is pushed, answers to sends, of which so many may wait.
        assert!(
            self.outbox_bytes <= OUTBOX_BYTES + 256 * 256,
            "the outbox is bounded"
        );
    }

    fn read(&self, request: &ReadRequest) -> ReadPage {
        let ReadStart::After(after) = request.start else {
            panic!("every start is a position")
        };
        let log = self.history.get(&request.peer).cloned().unwrap_or_default();
        let start = usize::try_from(after.0).unwrap();
        // A small page: a read seldom brings everything.
        let messages = log.iter().skip(start).take(3).cloned().collect();
        ReadPage {
            after,
            messages,
            head: Seq(log.len() as u64),
        }
    }

    fn sync(&self, request: &SyncRequest) -> SyncPage {
        let after = request.after.clone();
        let rest: Vec<SyncedConversation> = PEERS
            .iter()
            .map(|peer| user(peer))
            .filter(|peer| after.as_ref().is_none_or(|after| peer > after))
            .map(|peer| SyncedConversation {
                head: Seq(self.history.get(&peer).map_or(0, Vec::len) as u64),
                peer,
                own_cursor: Cursor::default(),
                peer_cursor: Cursor {
                    delivered: Seq(1),
                    read: Seq(0),
                },
            })
            .collect();
        SyncPage {
            history_id: about().history_id,
            token: "token".into(),
            token_floor: START,
            since: None,
            more: rest.len() > 2,
            conversations: rest.into_iter().take(2).collect(),
        }
    }

    fn answer(&mut self, which: usize, fails: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let unavailable = HistoryError::Unavailable { retry_after: None };
        let input = match self.waiting.remove(which % self.waiting.len()) {
            Waiting::Ready(input) => input,
            Waiting::Read(peer, _) if fails => Input::Read(peer, Err(unavailable)),
            Waiting::Read(peer, page) => Input::Read(peer, Ok(page)),
            Waiting::Sync(_) if fails => Input::Synced(Err(unavailable)),
            Waiting::Sync(page) => Input::Synced(Ok(page)),
            Waiting::Append(run) => {
                let peer = run.peer.clone();
                Input::Appended(peer, self.append(&run, fails))
            }
            Waiting::Cursor(peer, cursor) => Input::CursorWritten(
                peer,
                Ok(CursorAdvanced::Stored {
                    cursor,
                    moved: true,
                }),
            ),
        };
        self.give(input);
    }

    /// Stores a run as history does; if it fails, from its middle on.
    fn append(&mut self, run: &Run, fails: bool) -> Vec<Appended> {
        let fail_at = if fails {
            run.drafts.len() / 2
        } else {
            usize::MAX
        };
        let log = self.history.entry(run.peer.clone()).or_default();
        let mut blocked = false;
        let mut answers = Vec::new();
        for (index, draft) in run.drafts.iter().enumerate() {
            let unsettled = |reason| {
                Appended::Unsettled(Unsettled {
                    reason,
                    head: None,
                    retry_after: None,
                })
            };
            let found = log
                .iter()
                .find(|stored| stored.message_id == draft.message_id);
            answers.push(if let Some(stored) = found {
                Appended::Stored {
                    envelope: stored.clone(),
                    duplicate: true,
                }
            } else if blocked || draft.intent == Intent::FindOnly {
                unsettled(UnsettledReason::NotFound)
            } else if index >= fail_at {
                blocked = true;
                unsettled(UnsettledReason::Unavailable)
            } else {
                let id = draft.message_id.as_str();
                let seq = log.len() as u64 + 1;
                let stored = envelope("alice", run.peer.as_str(), seq, id);
                log.push(stored.clone());
                Appended::Stored {
                    envelope: stored,
                    duplicate: false,
                }
            });
        }
        answers
    }

    fn device_sends(&mut self, peer: &str) {
        if self.session.input_room() == 0 {
            return;
        }
        let sent = self.device.sent.entry(user(peer)).or_default();
        let id = format!("d-{peer}-{}", sent.len());
        sent.push(id.clone());
        self.give(send(peer, &id));
    }

    fn device_resends(&mut self, peer: &str) {
        let deferred = self.device.deferred.entry(user(peer)).or_default();
        let Some(index) = deferred
            .first()
            .copied()
            .filter(|_| self.session.input_room() > 0)
        else {
            return;
        };
        deferred.remove(&index);
        self.give(send(peer, &format!("d-{peer}-{index}")));
    }

    fn device_reads(&mut self, frames: usize) {
        let frames: Vec<Down> = self.outbox.drain(..frames.min(self.outbox.len())).collect();
        for down in frames {
            self.outbox_bytes -= down.cost();
            self.look_at(down);
        }
        self.give(Input::Tick);
    }

    fn look_at(&mut self, down: Down) {
        match down {
            Down::Delivered(envelope) => self.shown(envelope.peer_of(&user("alice")), envelope.seq),
            Down::Stored {
                message_id,
                peer,
                seq,
                ..
            } => {
                let stored = &self.history[&peer][usize::try_from(seq.0).unwrap() - 1];
                assert_eq!(stored.message_id, message_id, "acknowledged and not stored");
                self.device.answered.insert((peer.clone(), seq.0));
                self.device.advance(&peer);
            }
            Down::Deferred {
                message_id, peer, ..
            } => {
                let index = self.device.sent[&peer]
                    .iter()
                    .position(|id| id == message_id.as_str());
                self.device
                    .deferred
                    .entry(peer)
                    .or_default()
                    .insert(index.unwrap());
            }
            Down::CaughtUp { .. } => self.device.caught_up += 1,
            _ => {}
        }
    }

    fn shown(&mut self, peer: &UserId, seq: Seq) {
        let position = self.device.position[peer];
        assert!(
            seq.0 <= position + 1,
            "{seq} of {peer} was shown after {position}: a gap"
        );
        let first = self.device.delivered.insert((peer.clone(), seq.0));
        assert!(first, "{seq} of {peer} was shown twice");
        self.device.advance(peer);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::PeerSends { peer, announced } => {
                let stored = self.peer_stores(PEERS[peer]);
                (0..announced).for_each(|_| self.give(Input::Announced([stored.clone()].into())));
            }
            Step::DeviceSends { peer } => self.device_sends(PEERS[peer]),
            Step::DeviceResends { peer } => self.device_resends(PEERS[peer]),
            Step::Answer { which, fails } => self.answer(which, fails),
            Step::DeviceReads { frames } => self.device_reads(frames),
            Step::Time { millis } => {
                self.now.instant += Duration::from_millis(millis);
                self.give(Input::Tick);
            }
            Step::Resync => self.give(Input::Resync),
            Step::RegisterAgain { millis } => {
                self.next_id += 1;
                let incarnation = Incarnation::parse(&format!("i{}", self.next_id)).unwrap();
                let delay = Duration::from_millis(millis);
                self.give(Input::RegisterAgain(Some(incarnation), delay));
            }
        }
    }

    /// Lets everything that is under way come to its end, and loses nothing more.
    fn settle(&mut self) {
        self.give(Input::Resync);
        for _ in 0..2_000 {
            if !self.waiting.is_empty() {
                self.answer(0, false);
            }
            self.device_reads(usize::MAX);
            for peer in PEERS {
                self.device_resends(peer);
            }
            self.now.instant += Duration::from_millis(100);
            self.give(Input::Tick);
        }
    }

    /// The order in which the device's messages stand in history.
    fn stored_order(&self, peer: &UserId) -> Vec<String> {
        let log = self.history.get(peer).into_iter().flatten();
        let own = log.filter(|stored| stored.sender == user("alice"));
        own.map(|stored| stored.message_id.to_string()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_device_is_shown_one_gapless_order_and_in_the_end_everything(
        before in prop::collection::vec(0..12u64, 3),
        positions in prop::collection::vec(0..12u64, 3),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(&positions, &before);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        for peer in PEERS.map(user) {
            let head = world.history.get(&peer).map_or(0, Vec::len) as u64;
            prop_assert_eq!(world.device.position[&peer], head, "not everything of {} was shown", peer);
            let sent = world.device.sent.get(&peer).cloned().unwrap_or_default();
            prop_assert_eq!(world.stored_order(&peer), sent, "the order of sends was not kept");
        }
        prop_assert!(world.device.caught_up > 0);
    }
}
