//! What is promised of any run above the store, each promise by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use duologue_proto::history::{Appended, SyncRequest};
use duologue_proto::ids::{Seq, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};

use super::{Told, pair, stored, told, user};
use crate::history::History;
use crate::store::{Activity, Store, Window};

/// The promises that a run has broken, with what was seen.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Vec<(&'static str, String)>>);

impl Findings {
    pub(super) fn check(&self, promise: &'static str, kept: bool, seen: impl ToString) {
        if !kept {
            self.0.lock().unwrap().push((promise, seen.to_string()));
        }
    }

    pub(super) fn all(self) -> Vec<(&'static str, String)> {
        self.0.into_inner().unwrap()
    }
}

/// What one try was told, and when it was made.
pub(super) struct Try {
    pub(super) sender: UserId,
    pub(super) message: String,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) told: Option<Appended>,
}

/// Checks what is stored between two users, and returns it.
pub(super) async fn check_conversation(
    store: &Arc<dyn Store>,
    (one, other): (&str, &str),
    findings: &Findings,
) -> Vec<Envelope> {
    let conversation = pair(one, other);
    let messages = stored(store, &conversation).await;
    let mut sent = [0, 0];
    let mut accepted_at = UnixMillis(0);
    let mut ids = BTreeSet::new();
    for (envelope, expected) in messages.iter().zip(1..) {
        findings.check("one_order", envelope.seq.0 == expected, envelope.seq);
        let monotone = envelope.accepted_at >= accepted_at;
        findings.check("accepted_at_monotone", monotone, envelope.seq);
        accepted_at = accepted_at.max(envelope.accepted_at);
        let key = (envelope.sender.clone(), envelope.message_id.clone());
        let first = ids.insert(key);
        findings.check("at_most_once", first, &envelope.message_id);
        sent[conversation.side_of(&envelope.sender).unwrap()] += 1;
        for person in conversation.users() {
            let row = Activity {
                window: Window::of(envelope.accepted_at),
                peer: envelope.peer_of(person).clone(),
            };
            let rows = store.activity_from(person, row.window, None, 100);
            let marked = rows.await.unwrap().contains(&row);
            findings.check("rows_before_message", marked, envelope.seq);
        }
    }
    let head = store.head(&conversation).await.unwrap();
    let counted = head.map_or([0, 0], |head| head.sent);
    findings.check("counts_true", counted == sent, format!("{counted:?}"));
    messages
}

/// Of one run always a prefix is newly stored.
pub(super) fn check_run(answers: &[Option<Appended>], findings: &Findings) {
    let mut held = false;
    for answer in answers.iter().flatten() {
        match told(answer) {
            Told::New(seq) => findings.check("prefix_of_run", !held, seq),
            Told::Left(..) => held = true,
            Told::Duplicate(_) => {}
            Told::Reused => findings.check("body_kept", false, "nobody reuses an id"),
        }
    }
}

/// Every answer is true of the final history.
pub(super) fn check_tries(tries: &[Try], messages: &[Envelope], findings: &Findings) {
    for one in tries {
        let Some(Appended::Stored {
            envelope,
            duplicate,
        }) = &one.told
        else {
            continue;
        };
        let present =
            messages.contains(envelope) && envelope.message_id.as_str() == one.message.as_str();
        findings.check("acknowledged_present", present, &one.message);
        let of_same = |other: &&Try| other.sender == one.sender && other.message == one.message;
        let mut others = tries.iter().filter(of_same);
        let truthful = if *duplicate {
            others.any(|other| other.began < one.began)
        } else {
            !others.any(|other| {
                matches!(other.told, Some(Appended::Stored { .. })) && other.ended < one.began
            })
        };
        findings.check("duplicate_flag_truthful", truthful, &one.message);
    }
}

/// What one device knows of one conversation: its head, and both cursors.
type Known = (Seq, Cursor, Cursor);

/// A device that syncs from token to token.
pub(super) struct Device {
    name: &'static str,
    token: String,
    known: BTreeMap<UserId, Known>,
}

impl Device {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            token: String::new(),
            known: BTreeMap::new(),
        }
    }

    /// Syncs: what was stored before it began the device must know when it ends.
    /// Each page may be of another replica.
    pub(super) async fn sync<'a>(
        &mut self,
        store: &Arc<dyn Store>,
        peers: &[&str],
        replica: impl Fn() -> &'a History,
        findings: &Findings,
    ) {
        let mut before = BTreeMap::new();
        for peer in peers {
            let cursors = store.cursors(&user(self.name), &user(peer)).await.unwrap();
            let head = store.head(&pair(self.name, peer)).await.unwrap();
            let head = head.map_or(Seq::ZERO, |head| head.envelope.seq);
            before.insert(user(peer), (head, cursors.own, cursors.peer));
        }
        let Some(next) = self.pages(replica).await else {
            return;
        };
        self.token = next;
        for (peer, (head, own, other)) in before {
            let known = self.known.get(&peer).copied().unwrap_or_default();
            let seen = format!("{} and {peer}: {known:?}", self.name);
            findings.check("sync_lists_messages", known.0 >= head, &seen);
            let cursors = known.1.covers(own) && known.2.covers(other);
            findings.check("sync_lists_cursors", cursors, &seen);
        }
    }

    async fn pages<'a>(&mut self, replica: impl Fn() -> &'a History) -> Option<String> {
        let mut first_token = None;
        let mut after = None;
        loop {
            let request = SyncRequest {
                user: user(self.name),
                token: self.token.clone(),
                named: Vec::new(),
                after: after.clone(),
                max_conversations: 1,
            };
            let page = replica().sync(request).await.ok()?;
            first_token.get_or_insert(page.token);
            for listed in page.conversations {
                after = Some(listed.peer.clone());
                let entry = self.known.entry(listed.peer).or_default();
                *entry = (
                    entry.0.max(listed.head),
                    entry.1.max(listed.own_cursor),
                    entry.2.max(listed.peer_cursor),
                );
            }
            if !page.more {
                return first_token;
            }
        }
    }
}
