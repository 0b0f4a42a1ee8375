//! How a device opens a session: by either door, mostly with all that it has,
//! sometimes with less, since a client may have lost some.

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use tonic::Status;

use super::behaviour::Behaviour;
use super::device::Device;
use super::stream::{Link, Stream, converse, subscribe};
use crate::event::{Connect, Cursor, CursorMove, Door, Event, SessionNumber, User};

/// Small, so that who does not read is soon felt by the server.
const WINDOW_BYTES: u32 = 16 * 1024;

impl Device {
    /// A way to the server of its own.
    pub(super) fn link(&self) -> Link {
        let (chat, gate) = self.world.link(&self.way, WINDOW_BYTES);
        Link { chat, gate }
    }

    /// Opens a session, by either door, from where the device is. `afresh` names
    /// positions before everything.
    pub(super) async fn open(
        &mut self,
        lifetime: Duration,
        afresh: bool,
    ) -> Result<Stream, Status> {
        let world = self.world.clone();
        let session = world.recorder.number();
        let (connect, hello) = self.hello(session, afresh);
        self.by_cursor = connect.positions.is_empty() && connect.token.is_empty();
        self.begun.clear();
        self.moves = hello.cursors.len();
        let door = connect.door;
        let cursors = connect_cursors(&connect, &hello);
        let behaviour = match (connect.positions.is_empty(), connect.token.is_empty()) {
            (false, _) => Behaviour::ByPosition,
            (true, false) => Behaviour::ByToken,
            (true, true) => Behaviour::ByCursor,
        };
        let stream = if door == Door::Converse {
            let bare = converse(&world, &self.user, self.link(), lifetime).await?;
            cursors.for_each(|moved| world.note(Event::CursorAsked(moved)));
            let stream = bare.hello(&world, connect, hello);
            world.did(Behaviour::Converse);
            stream
        } else {
            cursors.for_each(|moved| world.note(Event::CursorAsked(moved)));
            let stream = subscribe(&world, self.link(), lifetime, connect, hello).await?;
            world.did(Behaviour::Subscribe);
            stream
        };
        world.did(behaviour);
        if self.moves > 0 {
            world.did(Behaviour::CursorRepeated);
        }
        Ok(stream)
    }

    /// A `Hello`: mostly with all that the device has, sometimes with less.
    fn hello(&mut self, session: SessionNumber, afresh: bool) -> (Connect, wire::Hello) {
        let number = self.world.now_millis().max(self.memory.number + 1);
        self.memory.number = number;
        let (token, positions) = match self.rng.between(0, 99) {
            _ if afresh => (String::new(), self.positions(u64::MAX)),
            0..55 => (self.memory.token.clone(), self.positions(0)),
            55..70 => (String::new(), self.positions(0)),
            70..80 => {
                let back = self.rng.between(1, 10);
                (self.memory.token.clone(), self.positions(back))
            }
            80..92 => (self.memory.token.clone(), BTreeMap::new()),
            _ => (String::new(), BTreeMap::new()),
        };
        let converses = self.rng.percent(70) && self.way.way().has_converse();
        let door = if converses {
            Door::Converse
        } else {
            Door::Subscribe
        };
        let connect = Connect {
            session,
            user: self.user.clone(),
            device: self.name.clone(),
            number,
            door,
            way: self.way.way(),
            token,
            positions,
            held: BTreeMap::new(),
        };
        let hello = wire::Hello {
            device_id: Some(self.name.clone()),
            connect_number: Some(number),
            history_id: self.memory.history_id.clone(),
            sync_token: connect.token.clone(),
            positions: wire_positions(&connect),
            cursors: self.unconfirmed(),
            client_name: "conformance".into(),
            ..wire::Hello::default()
        };
        (connect, hello)
    }

    fn positions(&self, back: u64) -> BTreeMap<User, u64> {
        let talks = self.memory.talks.iter().filter(|(_, talk)| talk.known > 0);
        talks
            .map(|(peer, talk)| (peer.clone(), talk.held.saturating_sub(back)))
            .collect()
    }

    fn unconfirmed(&self) -> Vec<wire::AdvanceCursor> {
        let talks = self.memory.talks.iter();
        let open = talks.filter(|(_, talk)| !talk.confirmed.covers(talk.wanted));
        open.map(|(peer, talk)| wire::AdvanceCursor {
            peer: peer.clone(),
            delivered: Some(talk.wanted.delivered),
            read: Some(talk.wanted.read),
        })
        .collect()
    }
}

fn wire_positions(connect: &Connect) -> Vec<wire::Position> {
    let positions = connect.positions.iter();
    positions
        .map(|(peer, seq)| wire::Position {
            peer: peer.clone(),
            seq: *seq,
        })
        .collect()
}

/// The moves that a `Hello` repeats, for the record.
fn connect_cursors(
    connect: &Connect,
    hello: &wire::Hello,
) -> impl Iterator<Item = CursorMove> + use<> {
    let (session, user) = (connect.session, connect.user.clone());
    let cursors = hello.cursors.clone();
    cursors.into_iter().map(move |cursor| CursorMove {
        number: 0,
        session: Some(session),
        user: user.clone(),
        peer: cursor.peer,
        cursor: Cursor {
            delivered: cursor.delivered.unwrap_or_default(),
            read: cursor.read.unwrap_or_default(),
        },
    })
}
