//! The first frame up: what the device has.

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame;
use duologue_proto::limits::{MAX_CLIENT_NAME_BYTES, MAX_POSITIONS};
use prost::Message as _;

use super::Session;
use super::cursors::advance_cursor;
use crate::limits::MAX_HELLO_ITEMS_BYTES;

impl Session {
    /// The first frame of the wanted link. Cursors that it repeats count as asked
    /// for; those for which it has no room follow as frames.
    pub(crate) fn hello(&mut self) -> wire::ConverseRequest {
        let mut room = Room(MAX_HELLO_ITEMS_BYTES);
        let cursors = self.hello_cursors(&mut room);
        let positions = self.hello_positions(&mut room);
        let hello = wire::Hello {
            device_id: Some(self.device.as_str().to_owned()),
            connect_number: Some(self.connect_number),
            history_id: self.history_id.clone(),
            sync_token: self.token.clone(),
            positions,
            cursors,
            client_name: shortened(&self.options.client_name),
            client_version: shortened(&self.options.client_version),
            features: Vec::new(),
            access_token: String::new(),
        };
        wire::ConverseRequest {
            r#ref: 0,
            frame: Some(Frame::Hello(hello)),
        }
    }

    fn hello_positions(&self, room: &mut Room) -> Vec<wire::Position> {
        let all = self.conversations.by_activity();
        let positions = all.into_iter().filter_map(|(peer, conversation)| {
            Some(wire::Position {
                peer: peer.as_str().to_owned(),
                seq: conversation.position?.0,
            })
        });
        positions
            .take(MAX_POSITIONS)
            .take_while(|position| room.take(position.encoded_len()))
            .collect()
    }

    fn hello_cursors(&mut self, room: &mut Room) -> Vec<wire::AdvanceCursor> {
        let unconfirmed: Vec<_> = self
            .conversations
            .by_activity()
            .into_iter()
            .filter(|(_, conversation)| conversation.is_unconfirmed())
            .map(|(peer, _)| peer.clone())
            .collect();
        // Positions matter more: half of the room at most.
        let mut half = Room(room.0 / 2);
        let mut cursors = Vec::new();
        for peer in unconfirmed {
            let Some(conversation) = self.conversations.get_mut(&peer) else {
                continue;
            };
            let cursor = advance_cursor(&peer, conversation.wanted);
            if cursors.len() < MAX_POSITIONS && half.take(cursor.encoded_len()) {
                conversation.asked = conversation.wanted;
                room.take(cursor.encoded_len());
                cursors.push(cursor);
            } else {
                self.cursors_due.insert(peer);
            }
        }
        cursors
    }
}

/// Bytes that are left.
struct Room(usize);

impl Room {
    /// Takes room for one repeated message: its bytes, tag and length.
    fn take(&mut self, bytes: usize) -> bool {
        const TAG_AND_LENGTH: usize = 4;
        match self.0.checked_sub(bytes + TAG_AND_LENGTH) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

fn shortened(name: &str) -> String {
    let mut end = name.len().min(MAX_CLIENT_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
