//! Sync, reading, and history's time.

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_proto::history::{
    HistoryError, ReadPage, ReadRequest, ReadStart, SyncPage, SyncRequest, SyncedConversation,
};
use duologue_proto::ids::{Seq, UnixMillis};
use duologue_proto::limits::MAX_SYNC_TOKEN_AGE;
use duologue_proto::message::Cursor;
use duologue_runtime::clock::Clock as _;
use proptest::prelude::*;

use super::faults::Op;
use super::{START, Told, UNAVAILABLE, World, draft, fill, ids, move_cursor, run, send, user};
use crate::history::History;
use crate::time::{READING_LAG, SYNC_SLACK};

fn request(token: &str) -> SyncRequest {
    SyncRequest {
        user: user("alice"),
        token: token.to_owned(),
        named: Vec::new(),
        after: None,
        max_conversations: 100,
    }
}

async fn sync(history: &History, token: &str) -> SyncPage {
    history.sync(request(token)).await.unwrap()
}

fn peers(page: &SyncPage) -> Vec<&str> {
    let peers = page.conversations.iter();
    peers.map(|listed| listed.peer.as_str()).collect()
}

async fn receive(history: &History, from: &str, message_id: &str) {
    let sent = run(from, "alice", vec![draft(message_id, 0)]);
    assert!(matches!(
        super::told(&history.append(sent).await[0]),
        Told::New(_)
    ));
}

async fn read(history: &History, start: ReadStart) -> Result<ReadPage, HistoryError> {
    let request = ReadRequest {
        user: user("alice"),
        peer: user("bob"),
        start,
        max_messages: 3,
        max_bytes: usize::MAX,
    };
    history.read(request).await
}

#[tokio::test]
async fn without_a_token_every_conversation_is_listed() {
    let world = World::new();
    for from in ["carol", "bob", "alice"] {
        receive(&world.history, from, "m").await;
    }
    world.clock.advance(Duration::from_hours(24 * 90));
    let page = sync(&world.history, "").await;
    assert_eq!(peers(&page), ["alice", "bob", "carol"]);
    assert_eq!((page.since, page.more), (None, false));
    assert_eq!(page.token_floor, world.clock.now().minus(SYNC_SLACK));
}

#[tokio::test]
async fn with_a_token_what_changed_since_is_listed_and_what_is_named() {
    let world = World::new();
    receive(&world.history, "bob", "old").await;
    world.clock.advance(Duration::from_hours(1));
    let token = sync(&world.history, "").await.token;
    let v = world.clock.now();
    world.clock.advance(Duration::from_hours(1));
    receive(&world.history, "carol", "new").await;
    let page = sync(&world.history, &token).await;
    assert_eq!(peers(&page), ["carol"]);
    assert_eq!(page.since, Some(v.minus(SYNC_SLACK)));
    let mut named = request(&token);
    named.named = vec![user("zoe"), user("bob"), user("carol")];
    let page = world.history.sync(named).await.unwrap();
    let heads = page.conversations.iter().map(|listed| listed.head.0);
    assert_eq!(peers(&page), ["bob", "carol", "zoe"]);
    assert_eq!(heads.collect::<Vec<_>>(), [1, 1, 0]);
}

#[tokio::test]
async fn a_cursor_move_is_told_by_the_next_sync_of_both() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    world.clock.advance(Duration::from_hours(1));
    let token = sync(&world.history, "").await.token;
    world.clock.advance(Duration::from_hours(1));
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let moved = move_cursor(&world.history, "bob", "alice", cursor);
    moved.await.unwrap();
    let told = SyncedConversation {
        peer: user("bob"),
        head: Seq(1),
        own_cursor: Cursor::default(),
        peer_cursor: cursor,
    };
    assert_eq!(sync(&world.history, &token).await.conversations, [told]);
}

#[tokio::test]
async fn a_put_that_was_under_way_at_a_sync_is_listed_by_the_next() {
    let world = World::new();
    // As late as it may be stored: its rows are of a reading in the window
    // before, and all of the deadline, the lateness and the skew are used up.
    world.clock.advance(Duration::from_mins(9));
    receive(&world.history, "bob", "m").await;
    world.clock.advance(Duration::from_secs(10 + 5 * 60 + 60));
    let token = sync(&world.history, "").await.token;
    world.clock.advance(Duration::from_hours(2));
    assert_eq!(peers(&sync(&world.history, &token).await), ["bob"]);
}

#[tokio::test]
async fn v_is_read_before_the_rows() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    world.faults.take_log();
    let clock = world.clock.clone();
    let start = clock.now();
    // Time goes on while the rows are read.
    let goes_on = async move { clock.advance(Duration::from_mins(30)) };
    world.faults.before_op(0, Box::new(|| Box::pin(goes_on)));
    let page = sync(&world.history, "").await;
    assert_eq!(page.token_floor, start.minus(SYNC_SLACK));
    assert!(world.clock.now() > start);
}

#[tokio::test]
async fn an_old_token_counts_as_none_and_one_ahead_as_one_of_now() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    world.clock.advance(Duration::from_hours(1));
    let token = sync(&world.history, "").await.token;
    world.clock.advance(MAX_SYNC_TOKEN_AGE);
    assert!(sync(&world.history, &token).await.since.is_some());
    world.clock.advance(Duration::from_millis(1));
    let page = sync(&world.history, &token).await;
    assert_eq!((peers(&page), page.since), (vec!["bob"], None));

    // A replica whose clock is behind, within what may be lost at a restart.
    let ahead = world.history.sync(request("")).await.unwrap().token;
    let behind = world.replica();
    world.clock.set(world.clock.now().minus(READING_LAG / 2));
    let page = sync(&behind, &ahead).await;
    assert!(page.since.unwrap() <= page.token_floor);
}

#[tokio::test]
async fn a_garbled_token_or_one_of_another_user_or_history_is_refused() {
    let world = World::new();
    let token = sync(&world.history, "").await.token;
    let refused = Some(HistoryError::InvalidSyncToken);
    for at in 0..token.len() {
        let mut garbled = token.clone();
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        garbled.replace_range(at..=at, other);
        assert_eq!(world.history.sync(request(&garbled)).await.err(), refused);
    }
    for garbled in ["x", "====", &token[1..], &format!("{token}A")] {
        assert_eq!(world.history.sync(request(garbled)).await.err(), refused);
    }
    let mut of_bob = request(&token);
    of_bob.user = user("bob");
    assert_eq!(world.history.sync(of_bob).await.err(), refused);
    let random = duologue_runtime::clock::SeededRandom::new(9);
    let clock = std::sync::Arc::new(world.clock.clone());
    let other = crate::memory::MemoryStore::new(clock.clone(), &random);
    let other = History::new(std::sync::Arc::new(other), clock);
    assert_eq!(other.sync(request(&token)).await.err(), refused);
}

#[tokio::test]
async fn time_given_to_a_sync_outlives_the_process_but_for_a_minute() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    world.clock.advance(Duration::from_hours(5));
    world.faults.take_log();
    for _ in 0..60 {
        sync(&world.history, "").await;
        world.clock.advance(Duration::from_secs(2));
    }
    let log = world.faults.take_log();
    let readings = log.iter().filter(|op| matches!(op, Op::Reading(_))).count();
    assert_eq!(readings, 2, "{log:?}");
    let v = sync(&world.history, "").await.token_floor;
    world.clock.set(START);
    let restarted = world.replica();
    assert!(sync(&restarted, "").await.token_floor >= v.minus(READING_LAG));
    assert!(sync(&world.history, "").await.token_floor >= v);
    world.clock.advance(Duration::from_hours(6));
    // A store that takes no writes any longer is still read, from an earlier time.
    world.faults.fail_reads(1);
    let stopped = sync(&world.history, "").await;
    assert_eq!(peers(&stopped), ["bob"]);
    assert!(stopped.token_floor <= v.plus(READING_LAG + Duration::from_mins(2)));
}

#[tokio::test]
async fn messages_stored_while_the_clock_is_set_back_are_found() {
    let world = World::new();
    world.clock.advance(Duration::from_hours(5));
    let token = sync(&world.history, "").await.token;
    world.clock.set(START);
    receive(&world.history, "bob", "m").await;
    receive(&world.replica(), "carol", "m").await;
    let page = sync(&world.replica(), &token).await;
    assert_eq!(peers(&page), ["bob", "carol"]);
    let start = ReadStart::AcceptedSince(page.since.unwrap());
    assert_eq!(read(&world.history, start).await.unwrap().messages.len(), 1);
}

#[tokio::test]
async fn a_read_goes_on_from_a_position_and_refuses_one_above_the_head() {
    let world = World::new();
    let empty = read(&world.history, ReadStart::After(Seq(0)))
        .await
        .unwrap();
    assert_eq!((empty.after, empty.head), (Seq(0), Seq(0)));
    fill(&world.history, 1, 5).await;
    let page = read(&world.history, ReadStart::After(Seq(1)))
        .await
        .unwrap();
    assert_eq!(ids(&page.messages), ["m2", "m3", "m4"]);
    assert_eq!((page.after, page.head), (Seq(1), Seq(5)));
    let page = read(&world.history, ReadStart::After(Seq(4)))
        .await
        .unwrap();
    assert_eq!(ids(&page.messages), ["m5"]);
    let page = read(&world.history, ReadStart::After(Seq(5)))
        .await
        .unwrap();
    assert_eq!((page.messages.len(), page.after), (0, Seq(5)));
    let ahead = read(&world.history, ReadStart::After(Seq(6))).await.err();
    assert_eq!(ahead, Some(HistoryError::PositionAhead { head: Seq(5) }));
    world.faults.fail_reads(1);
    let failed = read(&world.history, ReadStart::After(Seq(0))).await;
    assert!(matches!(failed, Err(HistoryError::Unavailable { .. })));
}

#[tokio::test]
async fn a_send_answered_unavailable_for_want_of_rows_is_there_at_the_next_sync() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    let token = sync(&world.history, "").await.token;
    world.clock.advance(Duration::from_hours(1));
    world.faults.fail_rows(1);
    let sent = || async { send(&world.history, vec![draft("a", 0)]).await };
    assert_eq!(sent().await, [Told::New(2)]);
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(sent().await, [UNAVAILABLE]);
    assert_eq!(peers(&sync(&world.history, &token).await), ["bob"]);
}

/// Every page of a sync, one conversation at a time.
async fn all_pages(history: &History, token: &str, max: usize) -> BTreeMap<String, u64> {
    let mut request = request(token);
    request.max_conversations = max;
    request.named = vec![user("zoe"), user("aaron")];
    let mut listed = BTreeMap::new();
    loop {
        let page = history.sync(request.clone()).await.unwrap();
        assert!(page.conversations.len() <= max);
        for conversation in &page.conversations {
            assert!(request.after.as_ref() < Some(&conversation.peer));
            request.after = Some(conversation.peer.clone());
            let peer = conversation.peer.to_string();
            assert_eq!(listed.insert(peer, conversation.head.0), None);
        }
        if !page.more {
            return listed;
        }
        assert!(!page.conversations.is_empty());
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pages_of_a_sync_are_the_whole_of_it(
        old in prop::collection::vec(0_u8..20, 0..30),
        new in prop::collection::vec((0_u8..20, 0_u64..30), 0..30),
        max in 1_usize..9,
    ) {
        block_on(async {
            let world = World::new();
            let mut heads = BTreeMap::new();
            let mut changed = BTreeMap::from([("zoe".to_owned(), 0), ("aaron".to_owned(), 0)]);
            for (number, peer) in old.into_iter().enumerate() {
                let peer = format!("p{peer}");
                receive(&world.history, &peer, &format!("o{number}")).await;
                *heads.entry(peer).or_insert(0) += 1;
            }
            world.clock.advance(Duration::from_hours(1));
            let token = sync(&world.history, "").await.token;
            world.clock.advance(Duration::from_hours(1));
            for (number, (peer, minutes)) in new.into_iter().enumerate() {
                let peer = format!("p{peer}");
                receive(&world.history, &peer, &format!("n{number}")).await;
                *heads.entry(peer.clone()).or_insert(0) += 1;
                changed.insert(peer.clone(), heads[&peer]);
                world.clock.advance(Duration::from_mins(minutes));
            }
            assert_eq!(all_pages(&world.history, &token, max).await, changed);
            heads.extend([("zoe".to_owned(), 0), ("aaron".to_owned(), 0)]);
            assert_eq!(all_pages(&world.history, "", max).await, heads);
        });
    }

    #[test]
    fn a_read_since_a_time_starts_at_the_first_message_accepted_then_or_later(
        steps in prop::collection::vec(0_u64..4, 1..60),
        since in 0_u64..130,
    ) {
        block_on(async {
            let world = World::new();
            for (number, seconds) in steps.iter().enumerate() {
                world.clock.advance(Duration::from_secs(*seconds));
                send(&world.history, vec![draft(&format!("m{number}"), 0)]).await;
            }
            let since: UnixMillis = START.plus(Duration::from_secs(since));
            let page = read(&world.history, ReadStart::AcceptedSince(since)).await.unwrap();
            let stored = world.stored().await;
            let before = stored.iter().filter(|envelope| envelope.accepted_at < since).count();
            assert_eq!(page.after.0, before as u64);
            assert!(page.messages.iter().eq(stored[before..].iter().take(3)));
        });
    }
}
