//! Pages: in both directions, without gap or overlap, and only of one's own query.

use duologue_proto::chat::v1::{
    Direction, ListConversationsRequest, ListMessagesRequest, ListUsersRequest,
};
use duologue_runtime::refusal::Reason;

use crate::support::calls::{sent, sent_many, seqs};
use crate::support::frames::hello;
use crate::support::refused::assert_refused;
use crate::support::{Chat, Server, Session};

fn list(direction: Direction, page_size: i32) -> ListMessagesRequest {
    ListMessagesRequest {
        peer: "bob".into(),
        direction: direction.into(),
        page_size,
        ..Default::default()
    }
}

/// The places on every page of a query.
async fn pages(chat: &mut Chat, mut request: ListMessagesRequest) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    loop {
        let page = chat
            .list_messages(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(seqs(&page.messages));
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn messages_are_paged_in_both_directions_without_gap_or_overlap() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 7).await;
    let forward = pages(&mut alice, list(Direction::Forward, 3)).await;
    assert_eq!(forward.concat(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(forward[0].len(), 3);
    let backward = pages(&mut alice, list(Direction::Backward, 3)).await;
    assert_eq!(backward.concat(), [7, 6, 5, 4, 3, 2, 1]);
    let between = ListMessagesRequest {
        after_seq: Some(2),
        before_seq: Some(6),
        ..list(Direction::Forward, 2)
    };
    assert_eq!(pages(&mut alice, between).await.concat(), [3, 4, 5]);
    let nothing = ListMessagesRequest {
        after_seq: Some(6),
        before_seq: Some(2),
        ..list(Direction::Backward, 2)
    };
    assert_eq!(pages(&mut alice, nothing).await, [Vec::<u64>::new()]);
}

#[tokio::test]
async fn a_page_has_50_messages_by_default_and_200_at_most() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 210).await;
    for (asked, given) in [(0, 50), (1, 1), (200, 200), (i32::MAX, 200)] {
        let page = alice
            .list_messages(list(Direction::Forward, asked))
            .await
            .unwrap();
        assert_eq!(page.get_ref().messages.len(), given);
        assert!(!page.get_ref().next_page_token.is_empty());
    }
}

#[tokio::test]
async fn a_page_of_the_longest_texts_still_fits_one_response() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let long = "x".repeat(8_192);
    for number in 0..20 {
        sent(&mut alice, "bob", &format!("m{number}"), &long).await;
        sent(&mut alice, &format!("peer{number}"), "m", &long).await;
    }
    let forward = pages(&mut alice, list(Direction::Forward, 200)).await;
    assert_eq!(forward.concat(), (1..=20).collect::<Vec<_>>());
    let mut peers = Vec::new();
    let mut request = ListConversationsRequest::default();
    loop {
        let page = alice
            .list_conversations(request.clone())
            .await
            .unwrap()
            .into_inner();
        peers.extend(page.conversations.into_iter().map(|one| one.peer));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(peers.len(), 21, "{peers:?}");
    peers.sort();
    peers.dedup();
    assert_eq!(peers.len(), 21);
}

#[tokio::test]
async fn a_page_token_is_worth_nothing_for_another_query_or_user() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 5).await;
    sent_many(&mut alice, "carol", 5).await;
    let first = list(Direction::Forward, 2);
    let page = alice
        .list_messages(first.clone())
        .await
        .unwrap()
        .into_inner();
    let next = ListMessagesRequest {
        page_token: page.next_page_token.clone(),
        ..first.clone()
    };
    // The size alone may change.
    let more = ListMessagesRequest {
        page_size: 9,
        ..next.clone()
    };
    assert_eq!(
        seqs(&alice.list_messages(more).await.unwrap().get_ref().messages),
        [3, 4, 5]
    );
    for other in [
        ListMessagesRequest {
            peer: "carol".into(),
            ..next.clone()
        },
        ListMessagesRequest {
            direction: Direction::Backward.into(),
            ..next.clone()
        },
        ListMessagesRequest {
            after_seq: Some(0),
            ..next.clone()
        },
        ListMessagesRequest {
            before_seq: Some(9),
            ..next.clone()
        },
    ] {
        let status = alice.list_messages(other).await.unwrap_err();
        assert_refused(&status, Reason::InvalidPageToken);
    }
    let mut bob = server.chat("bob").await;
    let stolen = ListMessagesRequest {
        peer: "alice".into(),
        ..next
    };
    let status = bob.list_messages(stolen).await.unwrap_err();
    assert_refused(&status, Reason::InvalidPageToken);
    let page_token = page.next_page_token;
    let elsewhere = ListConversationsRequest {
        page_token,
        ..Default::default()
    };
    let status = alice.list_conversations(elsewhere).await.unwrap_err();
    assert_refused(&status, Reason::InvalidPageToken);
}

#[tokio::test]
async fn a_garbled_page_token_is_refused_by_every_list() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    for garbled in ["x", "u1", "u2.bob", "%%%", &"x".repeat(513), "é"] {
        let page_token = garbled.to_owned();
        let messages = ListMessagesRequest {
            page_token,
            ..list(Direction::Forward, 2)
        };
        let status = alice.list_messages(messages).await.unwrap_err();
        assert_refused(&status, Reason::InvalidPageToken);
        let page_token = garbled.to_owned();
        let conversations = ListConversationsRequest {
            page_token,
            ..Default::default()
        };
        let status = alice.list_conversations(conversations).await.unwrap_err();
        assert_refused(&status, Reason::InvalidPageToken);
        let page_token = garbled.to_owned();
        let users = ListUsersRequest {
            page_token,
            ..Default::default()
        };
        assert_refused(
            &alice.list_users(users).await.unwrap_err(),
            Reason::InvalidPageToken,
        );
    }
}

#[tokio::test]
async fn a_page_token_with_a_changed_character_is_refused() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 5).await;
    let first = list(Direction::Forward, 2);
    let page = alice
        .list_messages(first.clone())
        .await
        .unwrap()
        .into_inner();
    for place in 0..page.next_page_token.len() {
        let mut token = page.next_page_token.clone().into_bytes();
        token[place] = if token[place] == b'A' { b'B' } else { b'A' };
        let page_token = String::from_utf8(token).unwrap();
        let changed = ListMessagesRequest {
            page_token,
            ..first.clone()
        };
        // What cannot be told from a token of ours must still be about the query.
        match alice.list_messages(changed).await {
            Err(status) => assert_refused(&status, Reason::InvalidPageToken),
            Ok(page) => assert!(page.get_ref().messages.iter().all(|one| one.seq <= 5)),
        }
    }
}

#[tokio::test]
async fn users_online_are_paged_in_order() {
    let server = Server::start(&[]).await;
    let mut sessions = Vec::new();
    for user in ["dave", "bob", "carol", "alice"] {
        sessions.push(Session::caught_up(&server.chat(user).await, hello()).await);
    }
    let mut alice = server.chat("alice").await;
    let mut users = Vec::new();
    let mut request = ListUsersRequest {
        page_size: 2,
        ..Default::default()
    };
    loop {
        let page = alice
            .list_users(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.users.len() <= 2);
        users.extend(page.users.into_iter().map(|one| one.user));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(users, ["bob", "carol", "dave"]);
}
