//! Lists of messages and of conversations, page by page.

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_proto::history::{
    ConversationSummary, ConversationsPage, HistoryError, ListConversations, ListMessages,
    MessagesPage,
};
use duologue_proto::ids::Seq;
use duologue_proto::limits::MAX_PAGE_BYTES;
use duologue_proto::message::Cursor;
use proptest::prelude::*;

use super::{World, draft, fill, ids, move_cursor, run, user};
use crate::history::History;

fn messages(page_size: usize, forward: bool) -> ListMessages {
    ListMessages {
        user: user("alice"),
        peer: user("bob"),
        page_size,
        page_token: String::new(),
        forward,
        after_seq: None,
        before_seq: None,
    }
}

async fn list(history: &History, request: &ListMessages) -> MessagesPage {
    history.list_messages(request.clone()).await.unwrap()
}

fn conversations(page_size: usize, page_token: &str) -> ListConversations {
    ListConversations {
        user: user("alice"),
        page_size,
        page_token: page_token.to_owned(),
    }
}

async fn conversation_page(history: &History, size: usize, token: &str) -> ConversationsPage {
    let request = conversations(size, token);
    history.list_conversations(request).await.unwrap()
}

async fn receive(history: &History, from: &str, message_id: &str) {
    let sent = run(from, "alice", vec![draft(message_id, 0)]);
    let answers = history.append(sent).await;
    assert!(matches!(super::told(&answers[0]), super::Told::New(_)));
}

async fn one(history: &History) -> ConversationSummary {
    let page = conversation_page(history, 9, "").await;
    page.conversations.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_page_token_belongs_to_its_query() {
    let world = World::new();
    fill(&world.history, 1, 5).await;
    let mut request = messages(2, true);
    request.page_token = list(&world.history, &request).await.next_page_token;
    // The page size alone may change.
    request.page_size = 1;
    assert_eq!(ids(&list(&world.history, &request).await.messages), ["m3"]);
    let garble = |token: &mut String| {
        let last = if token.ends_with('A') { "Q" } else { "A" };
        token.replace_range(token.len() - 1.., last);
    };
    let changes: [fn(&mut ListMessages); 5] = [
        |request| request.user = user("bob"),
        |request| request.peer = user("carol"),
        |request| request.forward = false,
        |request| request.after_seq = Some(Seq(0)),
        |request| request.before_seq = Some(Seq(9)),
    ];
    for change in changes {
        let mut other = request.clone();
        change(&mut other);
        let refused = world.history.list_messages(other).await.err();
        assert_eq!(refused, Some(HistoryError::InvalidPageToken));
    }
    garble(&mut request.page_token);
    let refused = world.history.list_messages(request).await.err();
    assert_eq!(refused, Some(HistoryError::InvalidPageToken));

    receive(&world.history, "carol", "m").await;
    let mut token = conversation_page(&world.history, 1, "")
        .await
        .next_page_token;
    let mut of_bob = conversations(1, &token);
    of_bob.user = user("bob");
    let refused = world.history.list_conversations(of_bob).await.err();
    assert_eq!(refused, Some(HistoryError::InvalidPageToken));
    garble(&mut token);
    let refused = world
        .history
        .list_conversations(conversations(1, &token))
        .await
        .err();
    assert_eq!(refused, Some(HistoryError::InvalidPageToken));
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_holds_at_least_one_message() {
    let world = World::new();
    let mut big = draft("big", 0);
    big.body = vec![0; MAX_PAGE_BYTES].into();
    let sent = vec![draft("a", 0), big, draft("b", 0)];
    world.history.append(run("alice", "bob", sent)).await;
    let mut request = messages(200, true);
    for shown in [["a"], ["big"], ["b"]] {
        let page = list(&world.history, &request).await;
        assert_eq!(ids(&page.messages), shown);
        request.page_token = page.next_page_token;
    }
    assert_eq!(request.page_token, "");
}

#[tokio::test]
async fn messages_that_arrive_while_paging_disturb_nothing() {
    let world = World::new();
    fill(&world.history, 1, 4).await;
    let mut back = messages(3, false);
    let page = list(&world.history, &back).await;
    assert_eq!(
        (ids(&page.messages), page.head),
        (vec!["m4", "m3", "m2"], Seq(4))
    );
    fill(&world.history, 5, 1).await;
    back.page_token = page.next_page_token;
    let page = list(&world.history, &back).await;
    assert_eq!((ids(&page.messages), page.head), (vec!["m1"], Seq(5)));
    assert_eq!(page.next_page_token, "");
}

#[tokio::test]
async fn an_unknown_peer_has_an_empty_conversation() {
    let world = World::new();
    let page = list(&world.history, &messages(9, false)).await;
    assert_eq!((page.messages.len(), page.head), (0, Seq(0)));
    assert_eq!(page.next_page_token, "");
    let page = conversation_page(&world.history, 9, "").await;
    assert!(page.conversations.is_empty() && page.next_page_token.is_empty());
    let (alice, bob) = (user("alice"), user("bob"));
    let shared = world.history.share_conversation(&alice, &bob);
    assert!(!shared.await.unwrap());
}

#[tokio::test]
async fn unread_counts_the_peers_messages_after_the_read_cursor() {
    let world = World::new();
    let history = &world.history;
    for n in 0..3 {
        receive(history, "bob", &format!("b{n}")).await;
    }
    fill(history, 1, 2).await;
    receive(history, "bob", "b3").await;
    assert_eq!(one(history).await.unread, 4);
    for (read, unread) in [(1, 3), (3, 1), (5, 1), (6, 0)] {
        let cursor = Cursor::asked(None, Some(Seq(read)));
        let moved = move_cursor(history, "alice", "bob", cursor);
        moved.await.unwrap();
        let summary = one(history).await;
        assert_eq!((summary.unread, summary.own_cursor), (unread, cursor));
    }
    assert_eq!(one(history).await.last_message.message_id.as_str(), "b3");
}

#[tokio::test]
async fn nothing_one_writes_to_oneself_is_unread() {
    let world = World::new();
    receive(&world.history, "alice", "note").await;
    let summary = one(&world.history).await;
    assert_eq!((summary.unread, summary.peer), (0, user("alice")));
}

#[tokio::test]
async fn a_cursor_move_does_not_make_a_conversation_recent() {
    let world = World::new();
    receive(&world.history, "bob", "m").await;
    world.clock.advance(Duration::from_hours(1));
    receive(&world.history, "carol", "m").await;
    world.clock.advance(Duration::from_hours(1));
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let moved = move_cursor(&world.history, "alice", "bob", cursor);
    moved.await.unwrap();
    assert_eq!(walk(&world, 1, Vec::new()).await, ["carol", "bob"]);
}

/// Lists page by page; between pages messages come from `active`.
async fn walk(world: &World, size: usize, active: Vec<String>) -> Vec<String> {
    let mut listed = Vec::new();
    let mut token = String::new();
    let mut active = active.into_iter().enumerate();
    loop {
        let page = conversation_page(&world.history, size, &token).await;
        assert!(page.conversations.len() <= size);
        let peers = page.conversations.iter();
        listed.extend(peers.map(|summary| summary.peer.to_string()));
        token = page.next_page_token;
        if token.is_empty() {
            return listed;
        }
        world.clock.advance(Duration::from_mins(3));
        if let Some((number, peer)) = active.next() {
            receive(&world.history, &peer, &format!("active-{number}")).await;
        }
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
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pages_of_messages_are_the_whole_in_both_directions(
        count in 0_usize..40,
        page_size in 1_usize..12,
        forward: bool,
        after in prop::option::of(0_u64..45),
        before in prop::option::of(0_u64..45),
    ) {
        block_on(async {
            let world = World::new();
            fill(&world.history, 1, count).await;
            let mut request = messages(page_size, forward);
            request.after_seq = after.map(Seq);
            request.before_seq = before.map(Seq);
            let mut seen = Vec::new();
            loop {
                let page = list(&world.history, &request).await;
                assert!(page.messages.len() <= page_size);
                seen.extend(page.messages.iter().map(|envelope| envelope.seq.0));
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            let within = |seq: &u64| after.is_none_or(|a| *seq > a) && before.is_none_or(|b| *seq < b);
            let mut whole: Vec<u64> = (1..=count as u64).filter(within).collect();
            if !forward {
                whole.reverse();
            }
            assert_eq!(seen, whole);
        });
    }

    #[test]
    fn every_conversation_is_listed_once_by_the_time_of_its_last_message(
        sends in prop::collection::vec((0_u8..12, 0_u64..8, any::<bool>()), 0..60),
        active in prop::collection::vec(0_u8..16, 0..20),
        size in 1_usize..7,
    ) {
        block_on(async {
            let world = World::new();
            let mut last = BTreeMap::new();
            for (number, (peer, minutes, moves)) in sends.into_iter().enumerate() {
                world.clock.advance(Duration::from_mins(minutes));
                let peer = format!("p{peer}");
                receive(&world.history, &peer, &format!("m{number}")).await;
                let clock: &dyn duologue_runtime::clock::Clock = &world.clock;
                last.insert(peer.clone(), clock.now());
                if moves {
                    world.clock.advance(Duration::from_mins(11));
                    let cursor = Cursor::asked(Some(Seq(1)), None);
                    let moved = move_cursor(&world.history, "alice", &peer, cursor);
                    moved.await.unwrap();
                }
            }
            let mut expected: Vec<_> = last.into_iter().collect();
            expected.sort_by(|(one, at), (other, then)| then.cmp(at).then(one.cmp(other)));
            let expected: Vec<_> = expected.into_iter().map(|(peer, _)| peer).collect();
            let active = active.into_iter().map(|peer| format!("p{peer}")).collect();
            assert_eq!(walk(&world, size, active).await, expected);
        });
    }
}
