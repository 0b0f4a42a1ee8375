//! A good record in which everything happens once: alice and bob, a message without
//! an answer, a retry, a resume by position and token, a device from the start.

use std::collections::BTreeMap;

use crate::event::{Connect, Cursor, CursorMove, Door, Envelope, Event, Send, Stored, Way, digest};

/// Alice's first session; it ends with a send in flight.
pub(super) const ALICE: u64 = 1;
/// Bob's first session; it ends.
pub(super) const BOB_LEFT: u64 = 2;
/// Bob's second session, by token and position.
pub(super) const BOB: u64 = 3;
/// Alice's second device, from the start.
pub(super) const ALICE_NEW: u64 = 4;
/// For sessions that are planted.
pub(super) const PLANTED: u64 = 9;

pub(super) fn connect(session: u64, user: &str) -> Connect {
    Connect {
        session,
        user: user.into(),
        device: format!("d{session}"),
        number: session,
        door: Door::Converse,
        way: Way::Native,
        token: String::new(),
        positions: BTreeMap::new(),
        held: BTreeMap::new(),
    }
}

pub(super) fn welcome(session: u64) -> Event {
    Event::Welcome { session }
}

pub(super) fn caught_up(session: u64) -> Event {
    Event::CaughtUp {
        session,
        token: format!("t{session}"),
    }
}

pub(super) fn disconnect(session: u64) -> Event {
    Event::Disconnect {
        session,
        cause: "cut".into(),
    }
}

/// The sender and recipient of message `m<number>`: bob sent the fourth.
fn users(number: u64) -> (String, String) {
    let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
    if number == 4 {
        (bob, alice)
    } else {
        (alice, bob)
    }
}

pub(super) fn send(try_number: u64, lane: u64, number: u64) -> Event {
    let (user, peer) = users(number);
    Event::Send(Send {
        try_number,
        lane,
        session: Some(lane),
        user,
        peer,
        message_id: format!("m{number}"),
        after_seq: Some(0),
        body: digest(&number.to_string()),
    })
}

pub(super) fn stored(try_number: u64, session: u64, number: u64, duplicate: bool) -> Event {
    let (user, peer) = users(number);
    Event::Stored(Stored {
        try_number: Some(try_number),
        session: Some(session),
        user,
        peer,
        message_id: format!("m{number}"),
        seq: number,
        duplicate,
        accepted_at: 1_000 + number,
    })
}

pub(super) fn envelope(number: u64) -> Envelope {
    let (sender, recipient) = users(number);
    Envelope {
        seq: number,
        message_id: format!("m{number}"),
        sender,
        recipient,
        accepted_at: 1_000 + number,
        body: digest(&number.to_string()),
    }
}

pub(super) fn delivered(session: u64, number: u64) -> Event {
    Event::Delivered {
        session,
        envelope: envelope(number),
    }
}

pub(super) const CURSOR: Cursor = Cursor {
    delivered: 3,
    read: 2,
};

pub(super) fn moved(number: u64, cursor: Cursor) -> CursorMove {
    CursorMove {
        number,
        session: Some(BOB_LEFT),
        user: "bob".into(),
        peer: "alice".into(),
        cursor,
    }
}

/// Bob's cursor, as a session with this peer is told.
pub(super) fn receipt(session: u64, peer: &str) -> Event {
    Event::Receipt {
        session,
        peer: peer.into(),
        user: "bob".into(),
        cursor: CURSOR,
    }
}

fn ending() -> Vec<Event> {
    let history = |reader: &str, peer: &str| Event::History {
        reader: reader.into(),
        peer: peer.into(),
        messages: (1..=6).map(envelope).collect(),
    };
    let cursors = |reader: &str, peer: &str, own, other| Event::Cursors {
        reader: reader.into(),
        peer: peer.into(),
        own,
        other,
    };
    vec![
        history("alice", "bob"),
        history("bob", "alice"),
        cursors("alice", "bob", Cursor::default(), CURSOR),
        cursors("bob", "alice", CURSOR, Cursor::default()),
        Event::End {
            open: [BOB, ALICE_NEW].into(),
        },
    ]
}

/// The good record.
pub(super) fn good() -> Vec<Event> {
    let mut events = vec![
        Event::Connect(connect(ALICE, "alice")),
        welcome(ALICE),
        caught_up(ALICE),
        Event::Connect(connect(BOB_LEFT, "bob")),
        welcome(BOB_LEFT),
        caught_up(BOB_LEFT),
        send(1, ALICE, 1),
        stored(1, ALICE, 1, false),
        delivered(BOB_LEFT, 1),
        send(2, ALICE, 2),
        send(3, ALICE, 3),
        stored(2, ALICE, 2, false),
        stored(3, ALICE, 3, false),
        delivered(BOB_LEFT, 2),
        delivered(BOB_LEFT, 3),
        send(4, BOB_LEFT, 4),
        stored(4, BOB_LEFT, 4, false),
        delivered(ALICE, 4),
        Event::CursorAsked(moved(50, CURSOR)),
        Event::CursorStored(moved(50, CURSOR)),
        receipt(ALICE, "bob"),
        disconnect(BOB_LEFT),
        send(5, ALICE, 5),
        stored(5, ALICE, 5, false),
        Event::Connect(Connect {
            token: "t2".into(),
            positions: [("alice".into(), 4)].into(),
            ..connect(BOB, "bob")
        }),
        welcome(BOB),
        receipt(BOB, "alice"),
        delivered(BOB, 5),
        caught_up(BOB),
        send(6, ALICE, 6),
        delivered(BOB, 6),
        send(7, ALICE, 5),
        stored(7, ALICE, 5, true),
        disconnect(ALICE),
        Event::Connect(connect(ALICE_NEW, "alice")),
        welcome(ALICE_NEW),
        receipt(ALICE_NEW, "bob"),
    ];
    events.extend((1..=6).map(|number| delivered(ALICE_NEW, number)));
    events.push(caught_up(ALICE_NEW));
    events.extend(ending());
    events
}
