//! The rules of a session, one by one; `model` checks them all together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one effect among all"
)]

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
fn the_next_message_is_pushed_at_once_and_a_gap_that_stays_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(matches!(pushed(&effects).as_slice(), [Down::Delivered(e)] if e.seq == Seq(4)));
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 6, "m6")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.after(GAP_WAIT);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::After(Seq(4))
    ));
}

#[test]
fn nothing_is_pushed_past_a_read_that_is_running() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([Input::Announced([envelope("bob", "alice", 5, "m5")].into())]);
    driven.after(GAP_WAIT);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(pushed(&effects).is_empty());
    let messages = vec![
        envelope("bob", "alice", 4, "m4"),
        envelope("bob", "alice", 5, "m5"),
    ];
    let read = ReadPage {
        after: Seq(3),
        messages,
        head: Seq(5),
    };
    let effects = driven.give([Input::Read(user("bob"), Ok(read))]);
    let seqs: Vec<u64> = pushed(&effects)
        .into_iter()
        .map(|down| match down {
            Down::Delivered(envelope) => envelope.seq.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [4, 5]);
}

#[test]
fn what_is_announced_while_a_read_runs_needs_no_further_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([announced(5)]);
    driven.after(GAP_WAIT);
    // Two that the read does not bring, and one that it does.
    driven.give([announced(5), announced(6), announced(7)]);
    let effects = driven.give([Input::Read(user("bob"), Ok(four_and_five()))]);
    assert_eq!(delivered(&effects), [4, 5, 6, 7]);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Read(_))));
    let effects = driven.give([announced(8)]);
    assert_eq!(delivered(&effects), [8]);
}

#[test]
fn what_is_held_during_a_read_is_bounded_and_the_rest_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([announced(5)]);
    driven.after(GAP_WAIT);
    driven.give((6..1_000).map(announced));
    let effects = driven.give([Input::Read(user("bob"), Ok(four_and_five()))]);
    let last = *delivered(&effects).last().unwrap();
    assert!((6..999).contains(&last), "{last}");
    let next = effects.iter().find_map(|effect| match effect {
        Effect::Read(read) => Some(read.start),
        _ => None,
    });
    assert_eq!(next, Some(ReadStart::After(Seq(last))));
}

/// What the other side writes over another node comes a moment after the own answer.
#[test]
fn a_gap_that_closes_by_itself_needs_no_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([send("bob", "m6")]);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 6, "m6"),
        duplicate: false,
    };
    driven.give([Input::Appended(user("bob"), vec![stored])]);
    let effects = driven.give([announced(7), announced(5)]);
    assert!(delivered(&effects).is_empty(), "{effects:?}");
    let effects = driven.give([announced(4)]);
    assert_eq!(delivered(&effects), [4, 5, 6, 7]);
    let effects = driven.after(GAP_WAIT);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(delivered(&driven.give([announced(8)])), [8]);
}

#[test]
fn what_is_held_behind_a_gap_is_bounded_and_the_rest_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give((5..1_000).map(announced));
    let effects = driven.give([announced(4)]);
    let last = *delivered(&effects).last().unwrap();
    assert!((6..999).contains(&last), "{last}");
    let effects = driven.after(GAP_WAIT);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::After(Seq(last))
    ));
}

#[test]
fn a_session_that_ends_waits_for_no_gap() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1"), send("carol", "x")]);
    driven.give([send("bob", "m2"), Input::Gone]);
    for (seq, id) in [(1, "m1"), (3, "m2")] {
        let stored = Appended::Stored {
            envelope: envelope("alice", "bob", seq, id),
            duplicate: false,
        };
        driven.give([Input::Appended(user("bob"), vec![stored])]);
    }
    driven.after(GAP_WAIT);
}

#[test]
fn a_gap_too_many_is_read_at_once() {
    let peers: Vec<String> = (0..=MAX_GAPS).map(|peer| format!("b{peer}")).collect();
    let listed: Vec<_> = peers.iter().map(|peer| (peer.as_str(), 3)).collect();
    let mut driven = Driven::live(&listed);
    let announced = |peer: &String| Input::Announced([envelope(peer, "alice", 5, "m")].into());
    let effects = driven.give(peers.iter().map(announced));
    let last = user(&peers[MAX_GAPS]);
    assert!(matches!(effects.as_slice(), [Effect::Read(read)] if read.peer == last));
}

/// What a read after 3 brings of bob's five.
fn four_and_five() -> ReadPage {
    ReadPage {
        after: Seq(3),
        messages: vec![
            envelope("bob", "alice", 4, "m"),
            envelope("bob", "alice", 5, "m"),
        ],
        head: Seq(5),
    }
}

/// The sequences of the messages that are pushed.
fn delivered(effects: &[Effect]) -> Vec<u64> {
    let pushed = pushed(effects).into_iter();
    let seqs = pushed.filter_map(|down| match down {
        Down::Delivered(envelope) => Some(envelope.seq.0),
        _ => None,
    });
    seqs.collect()
}

#[test]
fn a_message_announced_twice_is_shown_once() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn before_the_first_sync_an_announcement_never_guesses_what_was_shown() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 9, "m9")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
    let mut listed = page(&[("bob", 9)]);
    listed.conversations[0].own_cursor.delivered = Seq(7);
    let effects = driven.give([Input::Synced(Ok(listed))]);
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Read(read) if read.start == ReadStart::After(Seq(7)))
    ));
}

#[test]
fn a_conversation_that_no_sync_listed_starts_at_the_time_of_the_sync() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give([Input::Announced(
        [envelope("carol", "alice", 3, "m3")].into(),
    )]);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::AcceptedSince(START)
    ));
}

#[test]
fn caught_up_is_said_only_when_every_head_was_shown() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    let mut listed = page(&[("bob", 2)]);
    listed.conversations[0].own_cursor.delivered = Seq(1);
    let effects = driven.give([Input::Synced(Ok(listed))]);
    assert!(
        !pushed(&effects)
            .iter()
            .any(|down| matches!(down, Down::CaughtUp { .. }))
    );
    let messages = vec![envelope("bob", "alice", 2, "m2")];
    let read = ReadPage {
        after: Seq(1),
        messages,
        head: Seq(2),
    };
    let effects = driven.give([Input::Read(user("bob"), Ok(read))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Delivered(_), Down::CaughtUp { token }] if token == "t1"
    ));
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
fn an_own_message_past_a_gap_does_not_move_what_was_shown() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([send("bob", "m5")]);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 5, "m5"),
        duplicate: false,
    };
    driven.give([Input::Appended(user("bob"), vec![stored])]);
    let effects = driven.after(GAP_WAIT);
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Read(read) if read.start == ReadStart::After(Seq(3)))
    ));
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
fn a_drain_answers_appends_under_way_and_then_says_how_long_to_wait() {
    let mut driven = Driven::live(&[("bob", 0)]);
    driven.give([send("bob", "m1")]);
    let effects = driven.give([Input::Drain(Duration::from_secs(3))]);
    assert!(effects.is_empty() && driven.session.input_room() == 0);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 1, "m1"),
        duplicate: false,
    };
    let effects = driven.give([Input::Appended(user("bob"), vec![stored])]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Stored { .. }, Down::Goodbye { reason: GoodbyeReason::ShuttingDown, retry_after: Some(wait), .. }]
            if *wait == Duration::from_secs(3)
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

fn advance(peer: &str, delivered: u64) -> Input {
    let asked = Cursor {
        delivered: Seq(delivered),
        read: Seq::ZERO,
    };
    Input::Up(
        delivered,
        Up::Advance(Advance {
            peer: user(peer),
            asked,
        }),
    )
}

#[test]
fn cursors_are_relayed_at_once_and_written_together_after_five_seconds() {
    let mut driven = Driven::live(&[("bob", 9)]);
    let effects = driven.give([advance("bob", 3), advance("bob", 5)]);
    assert_eq!(
        effects
            .iter()
            .filter(|e| matches!(e, Effect::AnnounceCursor(..)))
            .count(),
        2
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::WriteCursor(..)))
    );
    let effects = driven.after(Duration::from_secs(5));
    let [Effect::WriteCursor(peer, cursor)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(cursor.delivered, Seq(5));
    let stored = CursorAdvanced::Stored {
        cursor: *cursor,
        moved: true,
    };
    let effects = driven.give([Input::CursorWritten(peer.clone(), Ok(stored))]);
    let numbers: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Push(number, Down::CursorStored { .. }) => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [3, 5]);
}

#[test]
fn a_cursor_whose_first_write_lost_its_answer_is_told_to_the_others() {
    for (held, told) in [(Seq(3), true), (Seq(7), false)] {
        let mut driven = Driven::live(&[]);
        driven.give([advance("bob", 3)]);
        let cursor = Cursor::asked(Some(held), None);
        let stored = CursorAdvanced::Stored {
            cursor,
            moved: false,
        };
        let effects = driven.give([Input::CursorWritten(user("bob"), Ok(stored))]);
        let announced = effects.iter().any(
            |effect| matches!(effect, Effect::AnnounceCursor(_, announced) if *announced == cursor),
        );
        assert_eq!(announced, told, "{effects:?}");
    }
}

#[test]
fn a_cursor_that_may_be_above_the_head_is_not_relayed_before_it_is_stored() {
    let mut driven = Driven::live(&[("bob", 2)]);
    let effects = driven.give([advance("bob", 3)]);
    let [Effect::WriteCursor(peer, _)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let refused = CursorAdvanced::AboveHead { head: Seq(2) };
    let effects = driven.give([Input::CursorWritten(peer.clone(), Ok(refused))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::CursorRejected(rejection)] if rejection.head == Some(Seq(2))
    ));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::AnnounceCursor(..)))
    );
}

#[test]
fn cursors_that_wait_are_written_at_the_end_of_the_session() {
    let mut driven = Driven::live(&[("bob", 9)]);
    driven.give([advance("bob", 3)]);
    let effects = driven.give([Input::Gone]);
    let [Effect::Release, Effect::WriteCursor(peer, ..)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let effects = driven.give([Input::CursorWritten(
        peer.clone(),
        Err(HistoryError::Unavailable { retry_after: None }),
    )]);
    assert_eq!(ended(&effects), Some(None));
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
    assert!(matches!(effects.last(), Some(Effect::AskPresence(None))));
    let more = Some(user("carol"));
    let first = (vec![online("carol")], more.clone());
    let effects = driven.give([Input::PresencePage(None, Some(first))]);
    assert_eq!(pushed(&effects), [&Down::Presence(online("carol"))]);
    assert!(matches!(effects.last(), Some(Effect::AskPresence(after)) if *after == more));
    assert!(
        driven
            .give([Input::PresencePage(more.clone(), None)])
            .is_empty()
    );
    let effects = driven.after(super::RETRY_PAUSE);
    assert!(matches!(effects.as_slice(), [Effect::AskPresence(after)] if *after == more));
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
fn cursors_of_a_conversation_that_is_not_known_are_written_one_at_a_time() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give((1..=9).map(|seq| advance("bob", seq)));
    assert!(
        matches!(effects.as_slice(), [Effect::WriteCursor(..)]),
        "{effects:?}"
    );
    let cursor = Cursor::asked(Some(Seq(9)), None);
    let stored = CursorAdvanced::Stored {
        cursor,
        moved: true,
    };
    driven.give([Input::CursorWritten(user("bob"), Ok(stored))]);
    let effects = driven.give([advance("bob", 10), advance("bob", 11)]);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.after(Duration::from_secs(5));
    assert!(
        matches!(effects.as_slice(), [Effect::WriteCursor(_, asked)] if asked.delivered == Seq(11))
    );
}

#[test]
fn a_cursor_above_the_head_does_not_take_a_good_one_with_it() {
    let mut driven = Driven::live(&[]);
    driven.give([advance("bob", 2), advance("bob", 99)]);
    let refused = CursorAdvanced::AboveHead { head: Seq(5) };
    let effects = driven.give([Input::CursorWritten(user("bob"), Ok(refused))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::CursorRejected(_)]
    ));
    assert!(
        matches!(effects.last(), Some(Effect::WriteCursor(_, asked)) if asked.delivered == Seq(2))
    );
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
