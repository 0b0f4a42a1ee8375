//! Unary calls with fields outside their rules, or of no known kind.

use duologue_proto::chat::v1::{
    Body, Direction, GetPresenceRequest, ListConversationsRequest, ListMessagesRequest,
    ListUsersRequest, SendMessageRequest,
};
use duologue_runtime::refusal::Reason;

use crate::support::calls::{advance, send};
use crate::support::refused::{assert_field, assert_refused, violation};
use crate::support::{Server, raw};

const SERVICE: &str = "/duologue.chat.v1.ChatService";

#[tokio::test]
async fn a_send_outside_its_rules_names_the_field_and_the_rule() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let long = "x".repeat(65);
    let body = |body| SendMessageRequest {
        body,
        ..send("bob", "m", "")
    };
    for (request, field, rule) in [
        (send("", "m", "hi"), "peer", "1 to 64"),
        (send("b b", "m", "hi"), "peer", "letters, digits"),
        (send(&long, "m", "hi"), "peer", "65 bytes"),
        (send("bob", "", "hi"), "message_id", "1 to 64"),
        (send("bob", "a.b", "hi"), "message_id", "letters, digits"),
        (send("bob", &long, "hi"), "message_id", "65 bytes"),
        (send("bob", "m", ""), "body.text", "not be empty"),
        (send("bob", "m", &"x".repeat(8_193)), "body.text", "8192"),
        (body(None), "body", "must be given"),
        (body(Some(Body { kind: None })), "body.kind", "text"),
    ] {
        let status = alice.send_message(request).await.unwrap_err();
        assert_field(&status, field);
        let (_, description) = violation(&status);
        assert!(description.contains(rule), "{description}");
    }
    let most = "x".repeat(8_192);
    alice.send_message(send("bob", "m", &most)).await.unwrap();
}

#[tokio::test]
async fn a_cursor_move_outside_its_rules_names_the_field() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    for (request, field) in [
        (advance("", Some(1), None), "peer"),
        (advance("b b", Some(1), None), "peer"),
        (advance("bob", None, None), "delivered"),
    ] {
        let status = alice.advance_cursor(request).await.unwrap_err();
        assert_field(&status, field);
    }
}

#[tokio::test]
async fn a_user_outside_the_rule_is_named_by_every_call_that_takes_one() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let long = "x".repeat(65);
    for bad in ["", " ", "b/b", "b\u{e9}b", "b\nb", &long] {
        let peer = bad.to_owned();
        let list = ListMessagesRequest {
            peer,
            ..Default::default()
        };
        assert_field(&alice.list_messages(list).await.unwrap_err(), "peer");
        let user = bad.to_owned();
        let presence = GetPresenceRequest { user };
        assert_field(&alice.get_presence(presence).await.unwrap_err(), "user");
    }
}

#[tokio::test]
async fn a_page_size_may_be_zero_or_huge_but_not_negative() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    for page_size in [-1, i32::MIN] {
        let messages = ListMessagesRequest {
            peer: "bob".into(),
            page_size,
            ..Default::default()
        };
        assert_field(
            &alice.list_messages(messages).await.unwrap_err(),
            "page_size",
        );
        let conversations = ListConversationsRequest {
            page_size,
            ..Default::default()
        };
        let refused = alice.list_conversations(conversations).await.unwrap_err();
        assert_field(&refused, "page_size");
        let users = ListUsersRequest {
            page_size,
            ..Default::default()
        };
        assert_field(&alice.list_users(users).await.unwrap_err(), "page_size");
    }
    for page_size in [0, i32::MAX] {
        let messages = ListMessagesRequest {
            peer: "bob".into(),
            page_size,
            ..Default::default()
        };
        alice.list_messages(messages).await.unwrap();
        let conversations = ListConversationsRequest {
            page_size,
            ..Default::default()
        };
        alice.list_conversations(conversations).await.unwrap();
        let users = ListUsersRequest {
            page_size,
            ..Default::default()
        };
        alice.list_users(users).await.unwrap();
    }
}

#[tokio::test]
async fn a_direction_that_is_not_known_is_refused_and_none_means_backward() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    crate::support::calls::sent_many(&mut alice, "bob", 2).await;
    let list = |direction| ListMessagesRequest {
        peer: "bob".into(),
        direction,
        ..Default::default()
    };
    for direction in [3, -1] {
        let status = alice.list_messages(list(direction)).await.unwrap_err();
        assert_field(&status, "direction");
    }
    for direction in [Direction::Unspecified, Direction::Backward] {
        let page = alice.list_messages(list(direction.into())).await.unwrap();
        let page = page.into_inner();
        assert_eq!(page.messages[0].seq, 2);
        assert_eq!(page.head, 2);
    }
}

#[tokio::test]
async fn a_request_that_is_not_protobuf_is_refused_by_every_call() {
    let server = Server::start(&[]).await;
    let token = server.token("alice");
    for method in [
        "SendMessage",
        "AdvanceCursor",
        "ListMessages",
        "ListConversations",
        "ListUsers",
        "GetPresence",
        "Subscribe",
    ] {
        let path = format!("{SERVICE}/{method}");
        let garbage = vec![vec![0xff; 16]];
        let answer = raw::call(server.channel().await, Some(&token), &path, garbage).await;
        assert_field(&raw::status_of(answer).await.unwrap_err(), "request");
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let request = send("bob", "m", &"x".repeat(65_536));
    let status = alice.send_message(request).await.unwrap_err();
    assert!(status.message().contains("65536"), "{status:?}");
    assert_field(&status, "request");
}

#[tokio::test]
async fn an_unknown_method_or_service_is_unimplemented_for_who_has_a_token() {
    let server = Server::start(&[]).await;
    let token = server.token("alice");
    for path in [
        "/duologue.chat.v1.ChatService/Connect",
        "/duologue.chat.v2.ChatService/SendMessage",
        "/x/y",
    ] {
        let known = raw::call(server.channel().await, Some(&token), path, vec![vec![]]).await;
        assert_refused(
            &raw::status_of(known).await.unwrap_err(),
            Reason::UnknownMethod,
        );
        let stranger = raw::call(server.channel().await, None, path, vec![vec![]]).await;
        assert_refused(
            &raw::status_of(stranger).await.unwrap_err(),
            Reason::TokenMissing,
        );
    }
}
