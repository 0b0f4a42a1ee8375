//! What is announced is never lost, only widened: the buffer, the link and the
//! look-ups against a model that remembers everything that was said.

mod peer;
mod receipts;

use std::collections::{BTreeMap, BTreeSet};

use duologue_proto::ids::{DeviceId, MessageId, Seq, SessionId, UnixMillis};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::ConnectNumber;
use proptest::prelude::*;

use super::link::Link;
use super::news::{Batch, Buffer};
use super::wire::{arrived, not_here};
use super::*;

fn user(number: u8) -> UserId {
    UserId::parse(&format!("u{number}")).unwrap()
}

fn envelope(seq: u64, sender: u8, recipient: u8, bytes: usize) -> Envelope {
    let id = MessageId::parse(&format!("m{seq}")).unwrap();
    let body = vec![b'x'; bytes];
    let (sender, recipient) = (user(sender), user(recipient));
    Envelope::seal(Seq(seq), id, sender, recipient, UnixMillis(0), &body)
}

fn run(seqs: std::ops::Range<u64>, sender: u8, recipient: u8, bytes: usize) -> Arc<[Envelope]> {
    seqs.map(|seq| envelope(seq, sender, recipient, bytes))
        .collect()
}

fn route(user_number: u8, session: &str) -> Route {
    Route {
        user: user(user_number),
        device: DeviceId::parse(&format!("d-{session}")).unwrap(),
        number: ConnectNumber {
            connect: 1,
            registration: 0,
        },
        session: SessionId::parse(session).unwrap(),
        node: NodeId::parse("two").unwrap(),
        incarnation: Incarnation::parse("i").unwrap(),
    }
}

/// What a peer's sessions were told: enough to know what they would read.
#[derive(Debug, Default)]
struct Peers {
    messages: BTreeSet<(UserId, UserId, Seq)>,
    raised: BTreeMap<(UserId, UserId), Seq>,
    receipts: BTreeMap<(UserId, UserId, UserId), Cursor>,
    superseded: BTreeSet<SessionId>,
    looked_at: BTreeSet<UserId>,
    resynced: BTreeSet<UserId>,
    everyone: bool,
}

impl Peers {
    fn take(&mut self, batch: &Batch) {
        self.everyone |= batch.everyone;
        for (user, entry) in &batch.users {
            for envelope in entry.news.runs.iter().flat_map(|run| run.iter()) {
                let peer = envelope.peer_of(user).clone();
                self.messages.insert((user.clone(), peer, envelope.seq));
            }
            for (peer, seq) in &entry.news.raised {
                let key = (user.clone(), peer.clone());
                let target = self.raised.entry(key).or_default();
                *target = (*target).max(*seq);
            }
            for ((peer, whose), cursor) in &entry.news.receipts {
                let key = (user.clone(), peer.clone(), whose.clone());
                let latest = self.receipts.entry(key).or_default();
                *latest = latest.max(*cursor);
            }
            self.superseded
                .extend(entry.news.superseded.iter().cloned());
            if entry.news.look_at_presence {
                self.looked_at.insert(user.clone());
            }
            if entry.news.resync {
                self.resynced.insert(user.clone());
            }
        }
    }

    /// Whether a session of `user` knows of this, or will read it.
    fn knows(&self, user: &UserId, said: &Said) -> bool {
        let syncs = self.everyone || self.resynced.contains(user);
        match said {
            Said::Message(peer, seq) => {
                let raised = self.raised.get(&(user.clone(), peer.clone()));
                let pushed = (user.clone(), peer.clone(), *seq);
                syncs || raised >= Some(seq) || self.messages.contains(&pushed)
            }
            Said::Cursor(peer, whose, cursor) => {
                let key = (user.clone(), peer.clone(), whose.clone());
                syncs
                    || self
                        .receipts
                        .get(&key)
                        .is_some_and(|known| known.max(*cursor) == *known)
            }
            Said::Superseded(session) => syncs || self.superseded.contains(session),
            Said::Presence => self.everyone || self.looked_at.contains(user),
        }
    }
}

#[derive(Debug, Clone)]
enum Said {
    Message(UserId, Seq),
    Cursor(UserId, UserId, Cursor),
    Superseded(SessionId),
    Presence,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many messages of so many bytes, from one to another.
    Messages(u8, u8, u64, usize),
    Cursor(u8, u8, u64),
    Superseded(u8),
    Presence(u8),
    /// As many batches are sent as may be.
    Send,
    /// The peer takes the oldest batch that was sent to it and answers.
    Answer,
    /// The peer takes it and the answer is lost with the stream, or neither.
    Break(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..12u8;
    let step = prop_oneof![
        6 => (who(), who(), 1..60u64, prop_oneof![Just(20usize), Just(6_000)])
            .prop_map(|(one, other, count, bytes)| Step::Messages(one, other, count, bytes)),
        2 => (who(), who(), 1..9u64).prop_map(|(one, other, at)| Step::Cursor(one, other, at)),
        1 => who().prop_map(Step::Superseded),
        1 => who().prop_map(Step::Presence),
        3 => Just(Step::Send),
        2 => Just(Step::Answer),
        1 => any::<bool>().prop_map(Step::Break),
    ];
    prop::collection::vec(step, 1..120)
}

/// A link, the peer at its other end, and everything that was said.
#[derive(Default)]
struct World {
    link: Link,
    on_the_way: std::collections::VecDeque<(u64, Batch)>,
    peers: Peers,
    said: Vec<(UserId, Said)>,
    next_seq: u64,
}

impl World {
    fn step(&mut self, step: &Step, now: Instant) {
        match step {
            Step::Messages(one, other, count, bytes) => {
                let first = self.next_seq + 1;
                self.next_seq += count;
                let run = run(first..first + count, *one, *other, *bytes);
                let to = user(*other);
                for envelope in run.iter() {
                    let peer = envelope.peer_of(&to).clone();
                    self.said
                        .push((to.clone(), Said::Message(peer, envelope.seq)));
                }
                self.link.add(&to, News::of_run(run), Vec::new());
            }
            Step::Cursor(one, other, at) => {
                let cursor = Cursor {
                    delivered: Seq(*at),
                    read: Seq(*at),
                };
                let (to, whose) = (user(*one), user(*other));
                let news = News::of_cursor(whose.clone(), whose.clone(), cursor);
                self.link.add(&to, news, Vec::new());
                self.said
                    .push((to, Said::Cursor(whose.clone(), whose, cursor)));
            }
            Step::Superseded(who) => {
                let session = SessionId::parse(&format!("s{}", self.said.len())).unwrap();
                self.link.add(
                    &user(*who),
                    News::of_superseded(session.clone()),
                    Vec::new(),
                );
                self.said.push((user(*who), Said::Superseded(session)));
            }
            Step::Presence(who) => {
                self.link.add(&user(*who), News::of_presence(), Vec::new());
                self.said.push((user(*who), Said::Presence));
            }
            Step::Send => {
                while let Some((number, batch)) = self.link.next(now) {
                    self.on_the_way.push_back((number, batch.clone()));
                }
                assert!(self.on_the_way.len() <= MAX_IN_FLIGHT);
            }
            Step::Answer => self.answer(),
            Step::Break(taken) => {
                if let Some((_, batch)) = self.on_the_way.pop_front().filter(|_| *taken) {
                    self.peers.take(&batch);
                }
                self.on_the_way.clear();
                self.link.broke(7);
                self.link.opened();
            }
        }
    }

    fn answer(&mut self) {
        if let Some((number, batch)) = self.on_the_way.pop_front() {
            self.peers.take(&batch);
            self.link.answered(number, &[]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_announced_is_lost_on_a_link_that_breaks_only_widened(steps in steps()) {
        let (mut world, now) = (World::default(), Instant::now());
        for step in &steps {
            world.step(step, now);
        }
        while !world.link.is_idle() {
            world.step(&Step::Send, now);
            world.answer();
        }
        for (user, said) in &world.said {
            prop_assert!(world.peers.knows(user, said), "{user} does not know of {said:?}");
        }
    }

    #[test]
    fn whatever_is_sent_arrives_as_it_was(steps in steps()) {
        let mut link = Link::default();
        let (mut world, now) = (World::default(), Instant::now());
        std::mem::swap(&mut link, &mut world.link);
        for step in &steps {
            if !matches!(step, Step::Send | Step::Answer | Step::Break(_)) {
                world.step(step, now);
            }
        }
        while let Some((number, batch)) = world.link.next(now) {
            let (number, batch) = (number, batch.clone());
            let request = super::wire::batch(number, &batch);
            prop_assert!(prost::Message::encoded_len(&request) <= RELAY_REQUEST_BYTES);
            let arrived = arrived(request).unwrap();
            prop_assert_eq!((arrived.number, arrived.everyone), (number, batch.everyone));
            for (sent, there) in batch.users.iter().zip(&arrived.users) {
                prop_assert_eq!(&sent.0, &there.user);
                let mut news = sent.1.news.clone();
                // A run may be joined with the next one of its conversation.
                let envelopes = |news: &News| -> Vec<Envelope> {
                    news.runs.iter().flat_map(|run| run.iter().cloned()).collect()
                };
                prop_assert_eq!(envelopes(&news), envelopes(&there.news));
                news.runs.clone_from(&there.news.runs);
                prop_assert_eq!(&news, &there.news);
            }
            world.link.answered(number, &[]).unwrap();
        }
    }

    #[test]
    fn no_bytes_make_the_receiver_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = <duologue_proto::relay::v1::RelayRequest as prost::Message>::decode(&bytes[..]) {
            let _ = arrived(request.clone());
            let _ = super::wire::open(Some(request));
        }
    }
}

#[test]
pub(crate) fn what_finds_no_room_on_a_link_is_raised_and_not_forgotten() {
    let mut link = Link::default();
    let count = u64::try_from(RELAY_BYTES / 4_000).unwrap();
    let mut widened = false;
    for seq in 1..=count {
        let news = News::of_run(run(seq..seq + 1, 1, 2, 8_000));
        widened |= link.add(&user(2), news, Vec::new());
    }
    assert!(widened);
    let mut peers = Peers::default();
    while let Some((number, batch)) = link.next(Instant::now()) {
        peers.take(batch);
        link.answered(number, &[]).unwrap();
    }
    assert!(!peers.messages.is_empty());
    for seq in 1..=count {
        let said = Said::Message(user(1), Seq(seq));
        assert!(peers.knows(&user(2), &said), "message {seq} is forgotten");
    }
}

#[test]
fn too_much_for_too_many_becomes_a_sync_of_everyone() {
    let mut buffer = Buffer::default();
    for number in 0..40_000_u32 {
        let user = UserId::parse(&format!("user{number}")).unwrap();
        buffer.add(&user, News::of_presence(), Vec::new());
    }
    let batch = buffer.take(BATCH_BYTES);
    assert!(batch.everyone && batch.users.is_empty());
    assert!(buffer.is_empty());
}

#[test]
fn each_user_has_a_turn_however_much_waits_for_another() {
    let mut buffer = Buffer::default();
    buffer.add(&user(1), News::of_run(run(1..200, 3, 1, 8_000)), Vec::new());
    buffer.add(&user(2), News::of_run(run(1..2, 3, 2, 10)), Vec::new());
    let first = buffer.take(BATCH_BYTES);
    assert_eq!(first.users.len(), 1);
    let second = buffer.take(BATCH_BYTES);
    assert_eq!(second.users.first().map(|(user, _)| user), Some(&user(2)));
}

#[test]
fn an_answer_names_the_rows_of_sessions_that_are_not_there_and_no_others() {
    let mut link = Link::default();
    let routes = vec![route(1, "here"), route(1, "gone")];
    link.add(&user(1), News::of_run(run(1..2, 2, 1, 10)), routes);
    let (number, batch) = link.next(Instant::now()).unwrap();
    let arrived = arrived(super::wire::batch(number, batch)).unwrap();
    assert_eq!(arrived.users[0].sessions.len(), 2);
    let gone = SessionId::parse("gone").unwrap();
    let stale = link.answered(number, &[(user(1), gone)]).unwrap();
    assert_eq!(stale, [route(1, "gone")]);
    assert!(
        link.answered(number, &[]).is_err(),
        "it was answered before"
    );
    assert!(not_here(&duologue_proto::relay::v1::RelayResponse::default()).is_ok());
}

fn announce(lookups: &mut Lookups, seq: u64) {
    lookups.announce(Announcement::messages(run(seq..seq + 1, 1, 2, 10)));
}

fn seqs(news: &News) -> Vec<u64> {
    let envelopes = news.runs.iter().flat_map(|run| run.iter());
    envelopes.map(|envelope| envelope.seq.0).collect()
}

#[test]
fn a_look_up_serves_only_what_was_announced_before_it_began() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    announce(&mut lookups, 1);
    assert_eq!(lookups.next(now), Some(Lookup::User(user(1))));
    assert_eq!(lookups.next(now), Some(Lookup::User(user(2))));
    announce(&mut lookups, 2);
    announce(&mut lookups, 3);
    assert_eq!(lookups.next(now), None, "both are being looked up");
    assert_eq!(seqs(&lookups.found(&user(2), &[], now)), [1]);
    // What came meanwhile is served together, by another look-up.
    assert_eq!(lookups.next(now), Some(Lookup::User(user(2))));
    assert_eq!(lookups.next(now), None);
    assert_eq!(seqs(&lookups.found(&user(2), &[], now)), [2, 3]);
    assert_eq!(seqs(&lookups.found(&user(1), &[], now)), [1]);
}

#[test]
fn a_look_up_that_fails_is_made_again_for_a_raised_target() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    announce(&mut lookups, 1);
    let lookup = lookups.next(now).unwrap();
    announce(&mut lookups, 2);
    lookups.failed(&lookup, now, 0);
    assert_eq!(
        lookups.next(now),
        None,
        "presence is left in peace for a while"
    );
    let due = lookups.due().unwrap();
    assert!(due > now);
    let mut found = BTreeMap::new();
    while let Some(Lookup::User(user)) = lookups.next(due + MAX_LOOKUP_PAUSE) {
        found.insert(user.clone(), lookups.found(&user, &[], now));
    }
    let failed = &found[&user(1)];
    assert_eq!((failed.raised[&user(2)], seqs(failed)), (Seq(1), vec![2]));
    let waited = &found[&user(2)];
    assert_eq!((waited.raised.len(), seqs(waited)), (0, vec![1, 2]));
}

#[test]
fn a_notes_conversation_costs_one_look_up() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    lookups.announce(Announcement::messages(run(1..3, 1, 1, 10)));
    let cursor = Cursor {
        delivered: Seq(1),
        read: Seq(1),
    };
    lookups.announce(Announcement::Cursor {
        user: user(1),
        peer: user(1),
        cursor,
    });
    assert_eq!(lookups.next(now), Some(Lookup::User(user(1))));
    assert_eq!(lookups.next(now), None);
    let news = lookups.found(&user(1), &[], now);
    assert_eq!((seqs(&news), news.receipts.len()), (vec![1, 2], 1));
}

#[test]
fn too_many_hints_become_a_look_at_everything() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    for number in 0..=MAX_HINTS {
        let user = UserId::parse(&format!("user{number}")).unwrap();
        lookups.announce(Announcement::Presence(user));
    }
    assert_eq!(lookups.next(now), Some(Lookup::Nodes));
    lookups.failed(&Lookup::Nodes, now, 0);
    assert_eq!(lookups.next(now + MAX_LOOKUP_PAUSE), Some(Lookup::Nodes));
    assert!(lookups.found_nodes().everyone);
}
