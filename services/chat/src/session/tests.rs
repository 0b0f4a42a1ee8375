//! The rules of a session, one by one; `model` checks them all together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one effect among all"
)]

mod catch_up;
mod cursors;
mod model;
#[cfg(feature = "faults")]
mod mutants;
mod registering;

use std::time::Duration;

use bytes::Bytes;
use duologue_proto::history::{
    Appended, CursorAdvanced, HistoryError, Intent, ReadPage, ReadStart, SyncPage,
    SyncedConversation, Unsettled, UnsettledReason,
};
use duologue_proto::ids::{
    DeviceId, HistoryId, Incarnation, MessageId, NodeId, Seq, SessionId, UnixMillis, UserId,
};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::{PresenceError, Registered, UserPresence};
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::server::COMES_BACK_AFTER;
use tokio::time::Instant;

use super::{About, Effect, GAP_WAIT, Input, MAX_GAPS, Now, Session};
use crate::frame::{
    Advance, DeferredReason, Down, GoodbyeReason, Hello, RejectedReason, Rejection, Send, Up,
};

const START: UnixMillis = UnixMillis(1_700_000_000_000);

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn message_id(name: &str) -> MessageId {
    MessageId::parse(name).unwrap()
}

pub(super) fn about() -> About {
    About {
        user: user("alice"),
        expires_at: START.plus(Duration::from_hours(1)),
        session: SessionId::parse("s1").unwrap(),
        fresh_device: DeviceId::parse("fresh").unwrap(),
        node: NodeId::parse("n1").unwrap(),
        incarnation: Incarnation::parse("i1").unwrap(),
        history_id: HistoryId::parse("h1").unwrap(),
        max_text_bytes: 8_192,
        jitter: 1,
    }
}

pub(super) fn envelope(sender: &str, recipient: &str, seq: u64, id: &str) -> Envelope {
    let (sender, recipient) = (user(sender), user(recipient));
    Envelope::seal(Seq(seq), message_id(id), sender, recipient, START, b"x")
}

pub(super) fn send(peer: &str, id: &str) -> Input {
    Input::Up(
        0,
        Up::Send(Send {
            peer: user(peer),
            message_id: message_id(id),
            after_seq: Some(Seq::ZERO),
            body: Bytes::from_static(b"x"),
            over_rate: None,
            too_long: None,
        }),
    )
}

/// A session whose time a test moves.
struct Driven {
    session: Session,
    now: Now,
}

impl Driven {
    fn new() -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: START,
        };
        Self {
            session: Session::new(about(), now),
            now,
        }
    }

    fn give(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        let effects = self.session.handle(inputs, self.now);
        // Else its task would never rest.
        let due = self.session.next_deadline();
        assert!(due.is_none_or(|due| due > self.now.instant));
        effects
    }

    fn after(&mut self, duration: Duration) -> Vec<Effect> {
        self.now.instant += duration;
        self.now.wall = self.now.wall.plus(duration);
        self.give([Input::Tick])
    }

    fn hello(&mut self, hello: Hello) -> Vec<Effect> {
        let mut effects = self.give([Input::Up(0, Up::Hello(Ok(Box::new(hello))))]);
        if matches!(effects.as_slice(), [Effect::Register(_)]) {
            let registered = Registered::InForce {
                replaced: Vec::new(),
            };
            effects = self.give([Input::Registered(Ok(registered))]);
        }
        effects
    }

    /// A live session that has been told of these conversations and their heads.
    fn live(conversations: &[(&str, u64)]) -> Self {
        let mut driven = Self::new();
        driven.hello(Hello::default());
        driven.give([Input::Synced(Ok(page(conversations)))]);
        driven
    }
}

fn page(conversations: &[(&str, u64)]) -> SyncPage {
    let listed = |(peer, head): &(&str, u64)| SyncedConversation {
        peer: user(peer),
        head: Seq(*head),
        own_cursor: Cursor {
            delivered: Seq(*head),
            read: Seq::ZERO,
        },
        peer_cursor: Cursor::default(),
    };
    SyncPage {
        history_id: about().history_id,
        token: "t1".into(),
        token_floor: START,
        since: None,
        conversations: conversations.iter().map(listed).collect(),
        more: false,
    }
}

fn pushed(effects: &[Effect]) -> Vec<&Down> {
    let mut downs = Vec::new();
    for effect in effects {
        if let Effect::Push(_, down) = effect {
            downs.push(down);
        }
    }
    downs
}

#[expect(
    clippy::option_option,
    reason = "not ended, ended well, or for a reason"
)]
fn ended(effects: &[Effect]) -> Option<Option<Reason>> {
    effects.iter().find_map(|effect| match effect {
        Effect::End(refusal) => Some(refusal.as_ref().map(Refusal::reason)),
        _ => None,
    })
}

fn goodbye(effects: &[Effect]) -> Option<GoodbyeReason> {
    pushed(effects).into_iter().find_map(|down| match down {
        Down::Goodbye { reason, .. } => Some(*reason),
        _ => None,
    })
}

fn unsettled(reason: UnsettledReason) -> Appended {
    Appended::Unsettled(Unsettled {
        reason,
        head: None,
        retry_after: None,
    })
}

fn intents(effects: &[Effect]) -> Vec<(String, Intent)> {
    let runs = effects.iter().filter_map(|effect| match effect {
        Effect::Append(run) => Some(run),
        _ => None,
    });
    let drafts = runs.flat_map(|run| &run.drafts);
    drafts
        .map(|draft| (draft.message_id.to_string(), draft.intent))
        .collect()
}

#[test]
fn welcome_comes_first_and_the_sync_begins_only_when_the_route_is_confirmed() {
    let mut driven = Driven::new();
    let effects = driven.give([Input::Up(0, Up::Hello(Ok(Box::default())))]);
    assert!(
        matches!(effects.as_slice(), [Effect::Register(_)]),
        "{effects:?}"
    );
    let registered = Registered::InForce {
        replaced: Vec::new(),
    };
    let effects = driven.give([Input::Registered(Ok(registered))]);
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::Push(0, Down::Welcome(_)), Effect::Sync(_)]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_stream_without_hello_ends_after_five_seconds() {
    let mut driven = Driven::new();
    assert_eq!(
        driven.session.next_deadline(),
        Some(driven.now.instant + Duration::from_secs(5))
    );
    let effects = driven.after(Duration::from_secs(5));
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::Idle));
    assert_eq!(ended(&effects), Some(Some(Reason::HelloTimeout)));
}

#[test]
fn a_first_frame_that_is_not_hello_ends_the_stream() {
    let mut driven = Driven::new();
    let effects = driven.give([Input::Up(3, Up::Ping)]);
    assert_eq!(ended(&effects), Some(Some(Reason::FirstFrameNotHello)));
}

#[test]
fn a_connect_number_of_the_day_after_tomorrow_is_refused() {
    let number = START.plus(Duration::from_hours(48)).0;
    let device = Some((DeviceId::parse("d1").unwrap(), number));
    let effects = Driven::new().hello(Hello {
        device,
        ..Hello::default()
    });
    assert_eq!(ended(&effects), Some(Some(Reason::InvalidField)));
}

#[test]
fn another_history_ends_the_stream_before_anything_is_registered() {
    let history_id = Some(HistoryId::parse("other").unwrap());
    let effects = Driven::new().hello(Hello {
        history_id,
        ..Hello::default()
    });
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::HistoryChanged));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Register(_)))
    );
}

#[test]
fn a_position_above_the_head_ends_the_stream() {
    let mut driven = Driven::new();
    driven.hello(Hello {
        positions: vec![(user("bob"), Seq(4))],
        ..Hello::default()
    });
    let effects = driven.give([Input::Synced(Ok(page(&[("bob", 3)])))]);
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::HistoryChanged));
    assert_eq!(ended(&effects), Some(Some(Reason::PositionAhead)));
}

#[test]
fn a_session_syncs_again_within_twelve_minutes() {
    let mut driven = Driven::live(&[]);
    let effects = driven.after(Duration::from_mins(12));
    let syncs = |effects: &[Effect]| {
        let sync = |effect: &Effect| matches!(effect, Effect::Sync(sync) if sync.token == "t1");
        effects.iter().any(sync)
    };
    assert!(!syncs(&effects), "the route is to be confirmed first");
    let registered = Registered::InForce {
        replaced: Vec::new(),
    };
    assert!(syncs(&driven.give([Input::Registered(Ok(registered))])));
}

#[test]
fn a_session_that_was_registered_late_syncs_again() {
    let mut driven = Driven::new();
    driven.give([Input::Up(0, Up::Hello(Ok(Box::default())))]);
    let unavailable = PresenceError::Unavailable { retry_after: None };
    driven.give([Input::Registered(Err(unavailable))]);
    driven.give([Input::Synced(Ok(page(&[])))]);
    let effects = driven.after(2 * super::RETRY_PAUSE);
    assert!(
        matches!(effects.as_slice(), [Effect::Register(_)]),
        "{effects:?}"
    );
    let registered = Registered::InForce {
        replaced: Vec::new(),
    };
    let effects = driven.give([Input::Registered(Ok(registered))]);
    assert!(
        matches!(effects.as_slice(), [Effect::Sync(_)]),
        "{effects:?}"
    );
}

#[test]
fn after_a_deferral_only_the_first_deferred_message_is_accepted() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give([send("bob", "m1"), send("bob", "m2")]);
    assert_eq!(
        intents(&effects),
        [("m1".into(), Intent::Store), ("m2".into(), Intent::Store)]
    );
    let answers = vec![
        unsettled(UnsettledReason::Unavailable),
        unsettled(UnsettledReason::NotFound),
    ];
    driven.give([Input::Appended(user("bob"), answers)]);
    let effects = driven.give([send("bob", "m3")]);
    assert_eq!(intents(&effects), [("m3".into(), Intent::FindOnly)]);
    let effects = driven.give([Input::Appended(
        user("bob"),
        vec![unsettled(UnsettledReason::NotFound)],
    )]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Deferred {
            reason: DeferredReason::BehindEarlier,
            ..
        }]
    ));
    // The whole list, in its order, may go in one run.
    let effects = driven.give([send("bob", "m1"), send("bob", "m2"), send("bob", "m3")]);
    let stored = |id: &str| (id.to_owned(), Intent::Store);
    assert_eq!(
        intents(&effects),
        [stored("m1"), stored("m2"), stored("m3")]
    );
}

#[test]
fn the_second_deferred_message_does_not_pass_the_first() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1"), send("bob", "m2")]);
    let answers = vec![
        unsettled(UnsettledReason::Unavailable),
        unsettled(UnsettledReason::NotFound),
    ];
    driven.give([Input::Appended(user("bob"), answers)]);
    let effects = driven.give([send("bob", "m2")]);
    assert_eq!(intents(&effects), [("m2".into(), Intent::FindOnly)]);
}

#[test]
fn an_abandoned_message_lets_the_next_one_pass() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1")]);
    let answer = vec![unsettled(UnsettledReason::Unavailable)];
    driven.give([Input::Appended(user("bob"), answer)]);
    let effects = driven.give([
        Input::Up(0, Up::Abandon(message_id("m1"))),
        send("bob", "m2"),
    ]);
    assert_eq!(intents(&effects), [("m2".into(), Intent::Store)]);
}

#[test]
fn a_send_above_the_rate_is_searched_for_before_it_is_deferred() {
    let mut driven = Driven::live(&[]);
    let Input::Up(_, Up::Send(mut over)) = send("bob", "m1") else {
        panic!()
    };
    over.over_rate = Some(Duration::from_secs(2));
    let effects = driven.give([Input::Up(0, Up::Send(over))]);
    assert_eq!(intents(&effects), [("m1".into(), Intent::FindOnly)]);
    assert!(
        driven.session.input_room() == 0,
        "sending on regardless must not be free"
    );
    let effects = driven.give([Input::Appended(
        user("bob"),
        vec![unsettled(UnsettledReason::NotFound)],
    )]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Deferred { reason: DeferredReason::RateLimited, retry_after: Some(wait), .. }]
            if *wait == Duration::from_secs(2)
    ));
}

#[test]
fn at_256_sends_in_flight_the_stream_is_not_read() {
    let mut driven = Driven::live(&[]);
    driven.give((0..255).map(|number| send("bob", &format!("m{number}"))));
    assert!(driven.session.input_room() > 0);
    driven.give([send("carol", "one-more")]);
    assert!(driven.session.input_room() == 0);
}

#[test]
fn half_close_answers_what_is_in_flight_then_ends_with_ok() {
    let mut driven = Driven::live(&[("bob", 0)]);
    let effects = driven.give([send("bob", "m1"), Input::UpClosed]);
    assert_eq!(ended(&effects), None);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 1, "m1"),
        duplicate: false,
    };
    let effects = driven.give([Input::Appended(user("bob"), vec![stored])]);
    assert_eq!(ended(&effects), Some(None));
    assert_eq!(goodbye(&effects), None);
}

#[test]
fn half_close_reaches_caught_up_first() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    assert_eq!(ended(&driven.give([Input::UpClosed])), None);
    let effects = driven.give([Input::Synced(Ok(page(&[])))]);
    assert!(
        pushed(&effects)
            .iter()
            .any(|down| matches!(down, Down::CaughtUp { .. }))
    );
    assert_eq!(ended(&effects), Some(None));
}

#[test]
fn a_drain_answers_appends_under_way_and_then_says_goodbye() {
    let mut driven = Driven::live(&[("bob", 0)]);
    driven.give([send("bob", "m1")]);
    let effects = driven.give([Input::Drain]);
    assert!(effects.is_empty() && driven.session.input_room() == 0);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 1, "m1"),
        duplicate: false,
    };
    let effects = driven.give([Input::Appended(user("bob"), vec![stored])]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Stored { .. }, Down::Goodbye { reason: GoodbyeReason::ShuttingDown, retry_after: Some(wait), .. }]
            if *wait == COMES_BACK_AFTER
    ));
    assert_eq!(ended(&effects), Some(Some(Reason::ShuttingDown)));
}

#[test]
fn a_device_that_is_gone_is_offline_at_once_and_what_it_sent_is_still_awaited() {
    let mut driven = Driven::live(&[("bob", 0)]);
    driven.give([send("bob", "m1")]);
    let effects = driven.give([Input::Gone]);
    assert!(matches!(effects.as_slice(), [Effect::Release]));
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 1, "m1"),
        duplicate: false,
    };
    let effects = driven.give([Input::Appended(user("bob"), vec![stored])]);
    assert!(matches!(effects.as_slice(), [Effect::End(None)]));
}

#[test]
fn an_expired_token_ends_the_session_in_mid_stream() {
    let mut driven = Driven::live(&[]);
    let effects = driven.after(Duration::from_hours(1));
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::Unauthenticated));
    assert_eq!(ended(&effects), Some(Some(Reason::TokenExpired)));
}

#[test]
fn a_superseded_session_is_told_so_and_ends() {
    let effects = Driven::live(&[]).give([Input::Superseded]);
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::Superseded));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Release))
    );
}

#[test]
fn a_silent_stream_gets_a_heartbeat_every_25_seconds() {
    let mut driven = Driven::live(&[]);
    driven.give([Input::Outbox(0)]);
    assert!(driven.after(Duration::from_secs(24)).is_empty());
    let effects = driven.after(Duration::from_secs(1));
    assert_eq!(pushed(&effects), [&Down::Heartbeat]);
}

#[test]
fn a_stuck_store_does_not_hold_a_closed_session_for_ever() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1")]);
    driven.give([Input::Gone]);
    assert_eq!(ended(&driven.after(super::CLOSING_TIMEOUT)), Some(None));
}

fn online(name: &str) -> UserPresence {
    UserPresence {
        user: user(name),
        online: true,
        last_seen: None,
    }
}

#[test]
fn every_page_of_a_sync_is_asked_for_as_soon_as_the_last_one_was_told() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    let mut first = page(&[("bob", 3), ("carol", 2)]);
    first.more = true;
    let effects = driven.give([Input::Synced(Ok(first))]);
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Sync(request) => Some(request.after.clone()),
        _ => None,
    });
    assert_eq!(asked, Some(Some(user("carol"))));
}

#[test]
fn a_device_that_missed_changes_of_presence_is_told_to_forget_and_then_who_is_online() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give([Input::Presence(online("bob")), Input::PresenceLost]);
    assert_eq!(pushed(&effects), [&Down::PresenceReset]);
    assert_eq!(asked(&effects), Some((1, None)));
    let more = Some(user("carol"));
    let first = (vec![online("carol")], more.clone());
    let effects = driven.give([Input::PresencePage(1, Some(first))]);
    assert_eq!(pushed(&effects), [&Down::Presence(online("carol"))]);
    assert_eq!(asked(&effects), Some((2, more.clone())));
    assert!(driven.give([Input::PresencePage(2, None)]).is_empty());
    let effects = driven.after(super::RETRY_PAUSE);
    assert_eq!(asked(&effects), Some((3, more)));
}

/// The page of who is online that is asked for.
fn asked(effects: &[Effect]) -> Option<(u64, Option<UserId>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::AskPresence(number, after) => Some((*number, after.clone())),
        _ => None,
    })
}

fn offline(name: &str) -> UserPresence {
    UserPresence {
        online: false,
        ..online(name)
    }
}

#[test]
fn a_page_of_a_picture_that_was_lost_since_is_not_shown() {
    let mut driven = Driven::live(&[]);
    driven.give([Input::PresenceLost]);
    let effects = driven.give([Input::PresenceLost]);
    assert_eq!(asked(&effects), Some((2, None)));
    let late = (vec![online("bob")], None);
    assert!(driven.give([Input::PresencePage(1, Some(late))]).is_empty());
    let page = (vec![online("carol")], None);
    let effects = driven.give([Input::PresencePage(2, Some(page))]);
    assert_eq!(pushed(&effects), [&Down::Presence(online("carol"))]);
}

#[test]
fn a_change_is_newer_than_the_page_that_was_asked_for_before_it() {
    let mut driven = Driven::live(&[]);
    driven.give([Input::PresenceLost]);
    let effects = driven.give([Input::Presence(offline("bob"))]);
    assert_eq!(pushed(&effects), [&Down::Presence(offline("bob"))]);
    let page = (vec![online("bob"), online("carol")], None);
    let effects = driven.give([Input::PresencePage(1, Some(page))]);
    assert_eq!(pushed(&effects), [&Down::Presence(online("carol"))]);
    // With too many of them it is asked for again.
    driven.give([Input::PresenceLost]);
    let changes = (0..=super::MAX_PRESENCE).map(|n| Input::Presence(online(&format!("u{n}"))));
    let effects: Vec<_> = changes
        .flat_map(|change| driven.give([change, Input::Outbox(0)]))
        .collect();
    assert_eq!(asked(&effects), Some((3, None)));
    assert!(driven.give([Input::PresencePage(2, None)]).is_empty());
}

#[test]
fn who_does_not_read_is_not_asked_for_before_there_is_room() {
    let mut driven = Driven::live(&[]);
    driven.give([Input::PresenceLost]);
    driven.give([
        Input::PresencePage(1, None),
        Input::Outbox(super::OUTBOX_BYTES),
    ]);
    // `give` sees to it that the session rests.
    assert_eq!(asked(&driven.after(super::RETRY_PAUSE)), None);
    assert_eq!(asked(&driven.give([Input::Outbox(0)])), Some((2, None)));
}

#[test]
fn too_many_changes_of_presence_do_not_end_a_slow_reader() {
    let mut driven = Driven::live(&[]);
    let full = Input::Outbox(super::OUTBOX_BYTES);
    let changes = (0..=super::MAX_PRESENCE).map(|n| Input::Presence(online(&format!("u{n}"))));
    let effects = driven.give(std::iter::once(full).chain(changes));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.give([Input::Outbox(0)]);
    assert_eq!(pushed(&effects), [&Down::PresenceReset]);
}

#[test]
fn a_text_above_a_lowered_limit_is_refused_only_if_no_earlier_try_was_stored() {
    let too_long = || {
        let Input::Up(reference, Up::Send(mut send)) = send("bob", "m1") else {
            panic!()
        };
        send.too_long = Some(Box::new(Rejection {
            message_id: "m1".into(),
            peer: "bob".into(),
            reason: RejectedReason::TooLong,
            field: "body.text",
            detail: String::new(),
        }));
        Input::Up(reference, Up::Send(send))
    };
    let mut driven = Driven::live(&[]);
    let effects = driven.give([too_long()]);
    assert_eq!(intents(&effects), [("m1".into(), Intent::FindOnly)]);
    let not_found = vec![unsettled(UnsettledReason::NotFound)];
    let effects = driven.give([Input::Appended(user("bob"), not_found)]);
    assert!(matches!(pushed(&effects).as_slice(), [Down::Rejected(_)]));
    // It holds up nothing.
    let effects = driven.give([send("bob", "m2")]);
    assert_eq!(intents(&effects), [("m2".into(), Intent::Store)]);
}

#[test]
fn a_message_that_is_abandoned_in_flight_holds_up_nothing() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1")]);
    driven.give([Input::Up(0, Up::Abandon(message_id("m1")))]);
    let answer = vec![unsettled(UnsettledReason::Unavailable)];
    driven.give([Input::Appended(user("bob"), answer)]);
    let effects = driven.give([send("bob", "m2")]);
    assert_eq!(intents(&effects), [("m2".into(), Intent::Store)]);
}
