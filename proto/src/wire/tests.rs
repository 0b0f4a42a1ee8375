//! What is written is read as it was; whatever else comes is refused or harmless.

use std::fmt::Debug;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::chat::v1 as chat;
use crate::history::*;
use crate::ids::{DeviceId, HistoryId, Incarnation, MessageId, NodeId, Seq, SessionId, UnixMillis};
use crate::limits::{MAX_BODY_BYTES, MAX_INTERNAL_USERS, MAX_POSITIONS, MAX_RUN_DRAFTS};
use crate::message::Cursor;
use crate::presence::*;
use crate::{history::v1 as history_wire, presence::v1 as presence_wire};

fn user_id() -> impl Strategy<Value = UserId> {
    "[A-Za-z0-9._@+-]{1,64}".prop_map(|text| UserId::parse(&text).unwrap())
}

fn client_id<T: Debug>(parse: fn(&str) -> Result<T, InvalidId>) -> impl Strategy<Value = T> {
    "[A-Za-z0-9_-]{1,64}".prop_map(move |text| parse(&text).unwrap())
}

fn seq() -> impl Strategy<Value = Seq> {
    any::<u64>().prop_map(Seq)
}

fn time() -> impl Strategy<Value = UnixMillis> {
    any::<u64>().prop_map(UnixMillis)
}

fn wait() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (seq(), seq()).prop_map(|(delivered, read)| Cursor::asked(Some(delivered), Some(read)))
}

fn body() -> impl Strategy<Value = Bytes> {
    let body = ".{0,40}".prop_map(|text| chat::Body {
        kind: Some(chat::body::Kind::Text(text)),
    });
    body.prop_map(|body| body.encode_to_vec().into())
}

fn sealed() -> impl Strategy<Value = Envelope> {
    let ids = (client_id(MessageId::parse), user_id(), user_id());
    (seq(), ids, time(), body()).prop_map(|(seq, (id, sender, peer), at, body)| {
        // Times of envelopes go as far as the contract's.
        let at = UnixMillis(at.0 / 1_000_000);
        Envelope::seal(seq, id, sender, peer, at, &body)
    })
}

fn route() -> impl Strategy<Value = Route> {
    let number = (any::<u64>(), any::<u32>());
    let ids = (
        user_id(),
        client_id(DeviceId::parse),
        client_id(SessionId::parse),
        client_id(NodeId::parse),
        client_id(Incarnation::parse),
    );
    (number, ids).prop_map(
        |((connect, registration), (user, device, session, node, incarnation))| Route {
            user,
            device,
            number: ConnectNumber {
                connect,
                registration,
            },
            session,
            node,
            incarnation,
        },
    )
}

fn draft() -> impl Strategy<Value = Draft> {
    let intent = prop_oneof![Just(Intent::Store), Just(Intent::FindOnly)];
    let id = client_id(MessageId::parse);
    (id, option::of(seq()), body(), intent).prop_map(|(message_id, after_seq, body, intent)| {
        Draft {
            message_id,
            after_seq,
            body,
            intent,
        }
    })
}

fn appended() -> impl Strategy<Value = Appended> {
    let reason = prop_oneof![
        Just(UnsettledReason::NotFound),
        Just(UnsettledReason::AfterSeqTooOld),
        Just(UnsettledReason::AfterSeqAhead),
        Just(UnsettledReason::Contended),
        Just(UnsettledReason::Unavailable),
    ];
    let unsettled = (reason, option::of(seq()), option::of(wait()));
    prop_oneof![
        (sealed(), any::<bool>()).prop_map(|(envelope, duplicate)| Appended::Stored {
            envelope,
            duplicate
        }),
        Just(Appended::MessageIdReused),
        unsettled.prop_map(|(reason, head, retry_after)| {
            Appended::Unsettled(Unsettled {
                reason,
                head,
                retry_after,
            })
        }),
    ]
}

/// The same message after it has been bytes.
fn sent<M: Message + Default>(message: M) -> M {
    M::decode(&message.encode_to_vec()[..]).unwrap()
}

/// Both are the same in every field that is shown.
fn same(one: &impl Debug, other: &impl Debug) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

proptest! {
    #[test]
    fn a_run_travels_as_it_is(
        sender in user_id(),
        peer in user_id(),
        drafts in vec(draft(), 1..8),
        reference: u64,
    ) {
        let run = Run { sender, peer, drafts };
        let wire = sent(history::write_run(reference, run.clone(), String::new()));
        prop_assert_eq!(wire.r#ref, reference);
        let read = history::read_run(wire).unwrap();
        prop_assert_eq!((read.sender, read.peer, read.drafts), (run.sender, run.peer, run.drafts));
    }

    #[test]
    fn answers_travel_as_they_are(answers in vec(appended(), 1..8), reference: u64) {
        let wire = sent(history::write_answers(reference, &answers));
        prop_assert_eq!((wire.r#ref, wire.refused.as_str()), (reference, ""));
        prop_assert_eq!(history::read_answers(wire.drafts).unwrap(), answers);
    }

    #[test]
    fn a_read_travels_as_it_is(
        user in user_id(),
        peer in user_id(),
        start in prop_oneof![
            seq().prop_map(ReadStart::After),
            time().prop_map(ReadStart::AcceptedSince),
        ],
        sizes: (u32, u32),
    ) {
        let request = ReadRequest {
            user,
            peer,
            start,
            max_messages: count(sizes.0),
            max_bytes: count(sizes.1),
        };
        same(&history::read_read(&sent(history::write_read(&request))).unwrap(), &request);
    }

    #[test]
    fn a_page_of_a_read_travels_as_it_is_and_without_a_gap_only(
        after in 0..1_000_u64,
        heads in vec(sealed(), 0..5),
        head in seq(),
        missing in option::of(0..5_usize),
    ) {
        let mut messages: Vec<_> = (after + 1..).zip(&heads).map(|(seq, envelope)| {
            let (id, sender) = (envelope.message_id.clone(), envelope.sender.clone());
            let (peer, at) = (envelope.recipient.clone(), envelope.accepted_at);
            Envelope::seal(Seq(seq), id, sender, peer, at, envelope.body())
        }).collect();
        // With the last one missing, there is no gap.
        let gap = missing.is_some_and(|index| index + 1 < messages.len());
        if let Some(index) = missing.filter(|index| *index < messages.len()) {
            messages.remove(index);
        }
        let page = ReadPage { after: Seq(after), messages, head };
        match history::read_read_page(&sent(history::write_read_page(&page))) {
            Ok(read) => {
                prop_assert!(!gap);
                prop_assert_eq!((read.after, read.messages, read.head), (page.after, page.messages, page.head));
            }
            Err(fault) => prop_assert!(gap, "{fault}"),
        }
    }

    #[test]
    fn a_sync_travels_as_it_is(
        user in user_id(),
        token in "[A-Za-z0-9_.-]{0,200}",
        named in vec(user_id(), 0..8),
        after in option::of(user_id()),
        max: u32,
    ) {
        let request = SyncRequest { user, token, named, after, max_conversations: count(max) };
        same(&history::read_sync(sent(history::write_sync(&request))).unwrap(), &request);
    }

    #[test]
    fn what_changed_travels_as_it_is(
        history_id in client_id(HistoryId::parse),
        token in "[A-Za-z0-9_.-]{0,200}",
        (token_floor, since) in (time(), option::of(time())),
        conversations in vec((user_id(), seq(), cursor(), cursor()), 0..8),
        more: bool,
    ) {
        let conversations = conversations.into_iter().map(|(peer, head, own_cursor, peer_cursor)| {
            SyncedConversation { peer, head, own_cursor, peer_cursor }
        });
        let conversations = conversations.collect();
        let page = SyncPage { history_id, token, token_floor, since, conversations, more };
        same(&history::read_sync_page(sent(history::write_sync_page(&page))).unwrap(), &page);
    }

    #[test]
    fn a_cursor_move_and_its_outcome_travel_as_they_are(
        (user, peer) in (user_id(), user_id()),
        asked in cursor(),
        head in seq(),
        moved: bool,
    ) {
        let wire = sent(history::write_advance(&user, &peer, asked));
        prop_assert_eq!(history::read_advance(&wire).unwrap(), (user, peer, asked));
        for outcome in [CursorAdvanced::Stored { cursor: asked, moved }, CursorAdvanced::AboveHead { head }] {
            let wire = sent(history::write_advanced(outcome));
            prop_assert_eq!(history::read_advanced(&wire).unwrap(), outcome);
        }
    }

    #[test]
    fn lists_travel_as_they_are(
        (user, peer) in (user_id(), user_id()),
        page_size in 1..=100_usize,
        page_token in "[A-Za-z0-9_.-]{0,200}",
        forward: bool,
        bounds in (option::of(seq()), option::of(seq())),
        messages in vec(sealed(), 0..5),
        summaries in vec((user_id(), sealed(), any::<u64>(), cursor(), cursor()), 0..5),
        head in seq(),
    ) {
        let list = ListMessages {
            user: user.clone(),
            peer,
            page_size,
            page_token: page_token.clone(),
            forward,
            after_seq: bounds.0,
            before_seq: bounds.1,
        };
        same(&history::read_list_messages(sent(history::write_list_messages(&list))).unwrap(), &list);
        let page = MessagesPage { messages, next_page_token: page_token.clone(), head };
        let read = history::read_messages(sent(history::write_messages(&page))).unwrap();
        prop_assert_eq!((&read.messages, read.head), (&page.messages, page.head));
        prop_assert_eq!(read.next_page_token, page.next_page_token);

        let list = ListConversations { user, page_size, page_token: page_token.clone() };
        let wire = sent(history::write_list_conversations(&list));
        same(&history::read_list_conversations(wire).unwrap(), &list);
        let conversations = summaries.into_iter().map(|(peer, last_message, unread, own_cursor, peer_cursor)| {
            ConversationSummary { peer, last_message, unread, own_cursor, peer_cursor }
        });
        let page = ConversationsPage { conversations: conversations.collect(), next_page_token: page_token };
        same(&history::read_conversations(sent(history::write_conversations(&page))).unwrap(), &page);
    }

    #[test]
    fn questions_of_peers_travel_as_they_are(
        (user, peer) in (user_id(), user_id()),
        after in option::of(user_id()),
        max in 1..=MAX_INTERNAL_USERS,
        peers in vec(user_id(), 0..8),
    ) {
        let wire = sent(history::write_list_peers(&user, after.as_ref(), max));
        prop_assert_eq!(history::read_list_peers(&wire).unwrap(), (user.clone(), after.clone(), max));
        prop_assert_eq!(&history::read_peers(&sent(history::write_peers(&peers))).unwrap(), &peers);
        let wire = sent(history::write_share(&user, &peer));
        prop_assert_eq!(history::read_share(&wire).unwrap(), (user, peer));
        let wire = sent(presence::write_list_online(after.as_ref(), max));
        prop_assert_eq!(presence::read_list_online(&wire).unwrap(), (after, max));
        let wire = sent(presence::write_get_presence(&peers));
        prop_assert_eq!(presence::read_get_presence(&wire).unwrap(), peers);
    }

    #[test]
    fn routes_travel_as_they_are(one in route(), others in vec(route(), 0..4)) {
        let wire = sent(presence::write_route(&one));
        prop_assert_eq!(&presence::read_route(Some(wire)).unwrap(), &one);
        let wire = sent(presence::write_routes(&others));
        prop_assert_eq!(&presence::read_routes(wire).unwrap(), &others);
        let outcomes = [
            Registered::InForce { replaced: Vec::new() },
            Registered::InForce { replaced: vec![one] },
            Registered::InForce { replaced: others },
            Registered::Superseded,
        ];
        for outcome in outcomes {
            let wire = sent(presence::write_registered(&outcome));
            prop_assert_eq!(presence::read_registered(wire).unwrap(), outcome);
        }
    }

    #[test]
    fn presence_travels_as_it_is(users in vec((user_id(), any::<bool>(), option::of(time())), 0..8)) {
        let users = users.into_iter().map(|(user, online, last_seen)| UserPresence { user, online, last_seen });
        let users: Vec<_> = users.collect();
        let wire = sent(presence_wire::GetPresenceResponse { users: presence::write_presences(&users) });
        prop_assert_eq!(presence::read_presences(wire.users).unwrap(), users);
    }

    #[test]
    fn leases_and_nodes_travel_as_they_are(
        node in client_id(NodeId::parse),
        incarnation in client_id(Incarnation::parse),
        address in ".{1,64}",
        counter: u64,
    ) {
        let lease = Lease { node, incarnation, address, counter };
        let wire = sent(presence::write_lease(&lease));
        prop_assert_eq!(&presence::read_lease(Some(wire)).unwrap(), &lease);
        let nodes = [Liveness::Alive, Liveness::Dead, Liveness::Unknown].map(|liveness| NodeInfo {
            node: lease.node.clone(),
            incarnation: lease.incarnation.clone(),
            address: lease.address.clone(),
            liveness,
        });
        let wire = sent(presence::write_nodes(nodes.to_vec()));
        prop_assert_eq!(presence::read_nodes(wire).unwrap(), nodes);
        for renewed in [Renewed::InForce, Renewed::Lost] {
            let wire = sent(presence::write_renewed(renewed));
            prop_assert_eq!(presence::read_renewed(wire), renewed);
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(bytes in vec(any::<u8>(), 0..300)) {
        whatever_comes(&bytes);
    }

    /// Bytes that are nearly a message get further than any.
    #[test]
    fn no_damaged_message_makes_anything_panic(
        drafts in vec(draft(), 1..3),
        answers in vec(appended(), 1..3),
        route in route(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (sender, peer) = (route.user.clone(), route.user.clone());
        let run = history::write_run(1, Run { sender, peer, drafts }, String::new());
        let mut messages = [
            history_wire::AppendRequest { runs: vec![run] }.encode_to_vec(),
            history_wire::AppendResponse { answers: vec![history::write_answers(1, &answers)] }.encode_to_vec(),
            presence::write_registered(&Registered::InForce { replaced: vec![route] }).encode_to_vec(),
        ];
        for message in &mut messages {
            for (index, byte) in &flips {
                let index = index.index(message.len());
                message[index] = *byte;
            }
            whatever_comes(message);
        }
    }
}

/// Reads bytes as every message there is.
fn whatever_comes(bytes: &[u8]) {
    fn read<M: Message + Default, T>(bytes: &[u8], read: impl Fn(M) -> Read<T>) {
        if let Ok(message) = M::decode(bytes) {
            drop(read(message));
        }
    }
    read(bytes, |m: history_wire::AppendRequest| {
        each("runs", m.runs, history::read_run)
    });
    read(bytes, |m: history_wire::AppendResponse| {
        each("answers", m.answers, |answer| {
            history::read_answers(answer.drafts)
        })
    });
    read(bytes, history::read_run);
    read(bytes, |m: history_wire::RunAnswer| {
        history::read_answers(m.drafts)
    });
    read(bytes, |m| history::read_read(&m));
    read(bytes, |m| history::read_read_page(&m));
    read(bytes, history::read_sync);
    read(bytes, history::read_sync_page);
    read(bytes, |m| history::read_advance(&m));
    read(bytes, |m| history::read_advanced(&m));
    read(bytes, history::read_list_messages);
    read(bytes, history::read_messages);
    read(bytes, history::read_list_conversations);
    read(bytes, history::read_conversations);
    read(bytes, |m| history::read_list_peers(&m));
    read(bytes, |m| history::read_peers(&m));
    read(bytes, |m| history::read_share(&m));
    read(bytes, |m| presence::read_route(Some(m)));
    read(bytes, presence::read_registered);
    read(bytes, presence::read_routes);
    read(bytes, |m| presence::read_get_presence(&m));
    read(bytes, |m: presence_wire::GetPresenceResponse| {
        presence::read_presences(m.users)
    });
    read(bytes, |m| presence::read_list_online(&m));
    read(bytes, |m| presence::read_lease(Some(m)));
    read(bytes, presence::read_nodes);
}

fn run_of(drafts: usize) -> history_wire::Run {
    let draft = history_wire::Draft {
        message_id: "m".into(),
        intent: history_wire::Intent::Store.into(),
        ..Default::default()
    };
    history_wire::Run {
        r#ref: 1,
        sender: "alice".into(),
        peer: "bob".into(),
        drafts: vec![draft; drafts],
        traceparent: String::new(),
    }
}

/// The field that is at fault after a change to a run that is right.
fn fault_of(change: impl FnOnce(&mut history_wire::Run)) -> String {
    let mut run = run_of(2);
    change(&mut run);
    history::read_run(run).unwrap_err().field
}

#[test]
fn a_run_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    assert!(history::read_run(run_of(MAX_RUN_DRAFTS)).is_ok());
    assert_eq!(fault_of(|run| run.drafts.clear()), "drafts");
    assert_eq!(fault_of(|run| *run = run_of(MAX_RUN_DRAFTS + 1)), "drafts");
    assert_eq!(fault_of(|run| run.sender.clear()), "sender");
    assert_eq!(fault_of(|run| run.peer = "a b".into()), "peer");
    assert_eq!(
        fault_of(|run| run.drafts[1].message_id = "é".into()),
        "drafts[1].message_id"
    );
    assert_eq!(fault_of(|run| run.drafts[0].intent = 0), "drafts[0].intent");
    assert_eq!(fault_of(|run| run.drafts[0].intent = 9), "drafts[0].intent");
    let no_body = Bytes::from_static(&[0xFF]);
    assert_eq!(
        fault_of(|run| run.drafts[1].body = no_body),
        "drafts[1].body"
    );
    let long = Bytes::from(vec![0; MAX_BODY_BYTES + 1]);
    assert_eq!(fault_of(|run| run.drafts[0].body = long), "drafts[0].body");
}

#[test]
fn a_fault_repeats_nothing_that_was_sent() {
    let mut run = run_of(1);
    run.sender = "no secret here".into();
    let fault = history::read_run(run).unwrap_err().to_string();
    assert!(
        fault.starts_with("sender ") && !fault.contains("secret"),
        "{fault}"
    );
}

#[test]
fn what_is_needed_must_be_there_and_bounds_are_kept() {
    let sync = history_wire::SyncRequest {
        user: "alice".into(),
        named: vec!["bob".into(); MAX_POSITIONS + 1],
        ..Default::default()
    };
    assert_eq!(history::read_sync(sync).unwrap_err().field, "named");
    let read = history_wire::ReadRequest {
        user: "alice".into(),
        peer: "bob".into(),
        ..Default::default()
    };
    assert_eq!(history::read_read(&read).unwrap_err().field, "start");
    let advance = |cursor| history_wire::AdvanceCursorRequest {
        user: "alice".into(),
        peer: "bob".into(),
        cursor,
    };
    assert_eq!(
        history::read_advance(&advance(None)).unwrap_err().field,
        "cursor"
    );
    let backward = chat::Cursor {
        delivered: 1,
        read: 2,
    };
    assert_eq!(
        history::read_advance(&advance(Some(backward)))
            .unwrap_err()
            .field,
        "cursor"
    );
    assert_eq!(presence::read_route(None).unwrap_err().field, "route");
    let route = presence_wire::Route::default();
    assert_eq!(
        presence::read_route(Some(route)).unwrap_err().field,
        "route.user"
    );
    let users = vec!["bob".to_owned(); MAX_INTERNAL_USERS + 1];
    let asked = presence_wire::GetPresenceRequest { users };
    assert_eq!(
        presence::read_get_presence(&asked).unwrap_err().field,
        "users"
    );
}

#[test]
fn a_wait_is_never_told_shorter_than_it_is() {
    assert_eq!(millis(Duration::from_nanos(1)), 1);
    assert_eq!(millis(Duration::from_millis(7)), 7);
    assert_eq!(millis(Duration::MAX), u64::MAX);
}
