//! The session against a model of a server, over a link that may be cut, lose a
//! delivery, defer and answer twice, with a client that may crash at any step.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events that it is about"
)]

mod model;
mod rules;

use std::collections::{BTreeMap, VecDeque};

use duologue_proto::chat::v1 as wire;
use duologue_proto::ids::{DeviceId, MessageId, Seq, UnixMillis, UserId};
use proptest::prelude::*;

use self::model::{Flavour, Server};
use super::*;
use crate::event::Message;
use crate::saved::Saved;

const PEERS: [&str; 3] = ["alice", "bob", "carol"];

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send(usize),
    PeerSends(usize),
    OtherDeviceSends(usize),
    ServerReads(Flavour),
    ClientReads,
    AppTakes,
    AppReads(usize),
    LoseDelivery,
    Cut,
    Crash,
    Wait(u64),
}

/// A client's process, the link, the server, and the application's memory.
struct World {
    session: Session,
    disk: Saved,
    now: Duration,
    link: Option<u64>,
    up: VecDeque<wire::ConverseRequest>,
    down: VecDeque<wire::ConverseResponse>,
    server: Server,
    /// Events that wait for the application, and the last one it took.
    queue: VecDeque<(u64, Event)>,
    taken: u64,
    sent: BTreeMap<UserId, Vec<MessageId>>,
    stored: BTreeMap<MessageId, Seq>,
    /// The last message dealt with, and the last shown in this life of the
    /// process.
    dealt: BTreeMap<UserId, Seq>,
    shown: BTreeMap<UserId, Seq>,
    undealt: Option<Message>,
    read: BTreeMap<UserId, Seq>,
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn options() -> Options {
    Options {
        mark_delivered: true,
        client_name: "test".into(),
        client_version: "1".into(),
    }
}

impl World {
    fn new() -> Self {
        let disk = Saved::new(&DeviceId::parse("device").unwrap());
        Self {
            session: Session::new(disk.clone(), options()).unwrap(),
            disk,
            now: Duration::ZERO,
            link: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            server: Server::new(user(PEERS[0])),
            queue: VecDeque::new(),
            taken: 0,
            sent: BTreeMap::new(),
            stored: BTreeMap::new(),
            dealt: BTreeMap::new(),
            shown: BTreeMap::new(),
            undealt: None,
            read: BTreeMap::new(),
        }
    }

    fn at(&self) -> At {
        At {
            now: self.now,
            wall: UnixMillis(1_000),
            dice: 7,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(peer) => self.send(&user(PEERS[peer])),
            Step::PeerSends(peer) => {
                let peer = user(PEERS[peer]);
                let frame = self.server.other_sends(&peer, &peer);
                self.down.extend(frame);
            }
            Step::OtherDeviceSends(peer) => {
                let own = user(PEERS[0]);
                let frame = self.server.other_sends(&user(PEERS[peer]), &own);
                self.down.extend(frame);
            }
            Step::ServerReads(flavour) => {
                if let Some(frame) = self.up.pop_front() {
                    let frames = self.server.read(frame, flavour);
                    self.down.extend(frames);
                }
            }
            Step::ClientReads => {
                if let Some(frame) = self.down.pop_front() {
                    self.session.frame(frame, self.at());
                }
            }
            Step::AppTakes => self.app_takes(),
            Step::AppReads(peer) => self.app_reads(&user(PEERS[peer])),
            Step::LoseDelivery => self.lose_delivery(),
            Step::Cut => self.cut(),
            Step::Crash => self.crash(),
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
        }
        self.pump();
    }

    /// What the driver does after everything that happens.
    fn pump(&mut self) {
        self.session.tick(self.at());
        if self.session.must_save() {
            self.disk = self.session.snapshot();
            self.session.saved();
        }
        let wanted = self.session.wanted_link();
        if wanted != self.link {
            self.link = wanted;
            self.up.clear();
            self.down.clear();
            self.server.hang_up();
            if wanted.is_some() {
                let hello = self.session.hello();
                self.check_hello(&hello);
                self.up.push_back(hello);
                self.session.opened(self.at());
            }
        }
        while self.session.has_frame(self.now) {
            self.up.extend(self.session.next_frame(self.now));
        }
        if let Some(scan) = self.session.next_scan(self.now) {
            let page = self.server.page(&scan.peer, scan.after_seq);
            self.session.scanned(&scan, Some(page), self.at());
        }
        while let Some(event) = self.session.next_event(self.now) {
            self.queue.push_back(event);
        }
    }

    /// The number was on disk before it was used.
    fn check_hello(&self, hello: &wire::ConverseRequest) {
        let Some(Frame::Hello(hello)) = &hello.frame else {
            panic!("the first frame is Hello");
        };
        assert_eq!(hello.connect_number, Some(self.disk.connect_number));
    }

    fn send(&mut self, peer: &UserId) {
        let sent = self.sent.entry(peer.clone()).or_default();
        let id = MessageId::parse(&format!("{peer}-{}", sent.len())).unwrap();
        sent.push(id.clone());
        self.session.send(peer, id, "text".into()).unwrap();
    }

    /// Taking an event says that the one before is dealt with.
    fn app_takes(&mut self) {
        self.session.handed_over(self.taken, self.now);
        if let Some(message) = self.undealt.take() {
            self.dealt.insert(message.peer, message.seq);
        }
        let Some((number, event)) = self.queue.pop_front() else {
            return;
        };
        self.taken = number;
        match event {
            Event::Message(message) => self.app_shows(message),
            Event::Stored(stored) => {
                let seq = *self.stored.entry(stored.message_id).or_insert(stored.seq);
                assert_eq!(seq, stored.seq, "one message has one place");
            }
            other => assert!(
                !matches!(
                    other,
                    Event::Rejected(_) | Event::Stopped(_) | Event::Superseded
                ),
                "{other:?}"
            ),
        }
    }

    fn app_shows(&mut self, message: Message) {
        let truth = self.server.at(&message.peer, message.seq);
        assert_eq!(Some(&message.message_id), truth.as_ref());
        if let Some(last) = self.shown.get(&message.peer) {
            assert_eq!(message.seq, last.next(), "in order, without gaps");
        } else if let Some(last) = self.dealt.get(&message.peer) {
            assert!(message.seq <= last.next(), "nothing is skipped by a crash");
        }
        self.shown.insert(message.peer.clone(), message.seq);
        self.undealt = Some(message);
    }

    fn app_reads(&mut self, peer: &UserId) {
        if let Some(seq) = self.shown.get(peer).copied() {
            self.session.mark_read(peer, seq, self.now);
            self.read.insert(peer.clone(), seq);
        }
    }

    /// The first delivery that is under way vanishes; only where the client can
    /// notice, since it holds something.
    fn lose_delivery(&mut self) {
        let own = user(PEERS[0]);
        let lost = self.down.iter().position(|frame| {
            model::delivered_peer(frame, &own)
                .and_then(|peer| self.session.conversations.get(&peer)?.position)
                .is_some()
        });
        if let Some(index) = lost {
            self.down.remove(index);
        }
    }

    fn cut(&mut self) {
        if self.link.is_some() {
            self.session.ended(LinkEnd::lost("cut"), self.at());
        }
    }

    fn crash(&mut self) {
        self.session = Session::new(self.disk.clone(), options()).unwrap();
        self.link = None;
        self.up.clear();
        self.down.clear();
        self.server.hang_up();
        self.queue.clear();
        self.taken = 0;
        self.undealt = None;
        self.shown.clear();
        // Moves since the last save are the application's to repeat.
        self.read.clear();
    }

    fn run_until_quiet(&mut self) {
        for _ in 0..2_000 {
            let busy = !self.up.is_empty() || !self.down.is_empty() || !self.queue.is_empty();
            self.step(Step::ServerReads(Flavour::Store));
            self.step(Step::ClientReads);
            self.step(Step::AppTakes);
            if !busy {
                if self.session.unsettled() == 0 && self.session.is_welcomed() {
                    break;
                }
                self.step(Step::Wait(500));
            }
        }
        self.step(Step::AppTakes);
    }

    /// Faults have ended: everything becomes true by itself.
    fn check_after_healing(&mut self) {
        self.run_until_quiet();
        // A last delivery that was lost shows at the next sync.
        self.step(Step::Cut);
        self.run_until_quiet();
        self.step(Step::Wait(2_000));
        self.run_until_quiet();
        assert_eq!(self.session.unsettled(), 0, "{:?}", self.session.outbox);
        for (peer, sent) in &self.sent {
            assert_eq!(&self.server.own_ids(peer), sent, "once, in order");
            for id in sent {
                assert!(self.stored.contains_key(id), "{id} is told to be stored");
            }
        }
        for (peer, shown) in &self.shown {
            assert_eq!(*shown, self.server.head(peer), "caught up with {peer}");
        }
        for (peer, read) in &self.read {
            assert!(
                self.server.cursor(peer).read >= *read,
                "cursors are repeated"
            );
        }
        let again = Session::new(self.session.snapshot(), options()).unwrap();
        assert_eq!(again.snapshot(), self.session.snapshot());
    }
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..PEERS.len();
    let other = 1..PEERS.len();
    prop_oneof![
        6 => peer.clone().prop_map(Step::Send),
        4 => other.clone().prop_map(Step::PeerSends),
        2 => peer.clone().prop_map(Step::OtherDeviceSends),
        16 => model::flavour().prop_map(Step::ServerReads),
        16 => Just(Step::ClientReads),
        8 => Just(Step::AppTakes),
        2 => peer.prop_map(Step::AppReads),
        1 => Just(Step::LoseDelivery),
        2 => Just(Step::Cut),
        1 => Just(Step::Crash),
        4 => (1_u64..1_500).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_message_is_stored_once_in_order_and_nothing_is_missed(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check_after_healing();
    }
}
