//! What a session does, by both subprotocols.

use std::time::Duration;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{GoodbyeReason, Hello, Position};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, JSON, PROTO, advance, send, soon};
use crate::system::System;

fn hello(user: &str) -> Hello {
    Hello {
        access_token: user.to_owned(),
        ..Hello::default()
    }
}

async fn goodbye(client: &mut Client) -> GoodbyeReason {
    let reason = |frame| match frame {
        Frame::Goodbye(goodbye) => Some(goodbye.reason()),
        _ => None,
    };
    client.until(reason).await
}

#[tokio::test]
async fn users_of_either_subprotocol_talk_with_each_other() {
    let text = "Grüße <b>\u{202e}👋</b>";
    for (one, other) in [(PROTO, PROTO), (PROTO, JSON), (JSON, PROTO), (JSON, JSON)] {
        let system = System::start().await;
        let (mut alice, _) = system.open(one, "alice").await;
        let (mut bob, _) = system.open(other, "bob").await;
        let stored = alice.store("bob", "m-1", text).await;
        assert_eq!((stored.seq, stored.duplicate), (1, false));
        assert_eq!(bob.delivered().await, (1, text.to_owned()));
        bob.say(2, advance("alice", 1)).await;
        let receipt = |frame| match frame {
            Frame::ReceiptAdvanced(receipt) => {
                receipt.cursor.map(|cursor| (receipt.user, cursor.read))
            }
            _ => None,
        };
        assert_eq!(alice.until(receipt).await, ("bob".to_owned(), 1));
        // A retry is told from a message.
        let again = alice.store("bob", "m-1", text).await;
        assert_eq!((again.seq, again.duplicate), (1, true));
    }
}

#[tokio::test]
async fn a_device_resumes_where_it_was() {
    for protocol in [PROTO, JSON] {
        let system = System::start().await;
        let (mut alice, _) = system.open(PROTO, "alice").await;
        let (mut bob, token) = system.open(protocol, "bob").await;
        alice.store("bob", "m-1", "seen").await;
        assert_eq!(bob.delivered().await.0, 1);
        bob.close().await;
        assert_eq!(bob.closed().await, (1000, "all is answered".to_owned()));
        alice.store("bob", "m-2", "missed").await;
        let resumed = Hello {
            sync_token: token,
            positions: vec![Position {
                peer: "alice".to_owned(),
                seq: 1,
            }],
            ..hello("bob")
        };
        let mut bob = system.connect(protocol).await;
        bob.say(1, Up::Hello(resumed)).await;
        assert_eq!(bob.delivered().await, (2, "missed".to_owned()));
    }
}

#[tokio::test]
async fn a_person_with_any_tool_sees_these_texts() {
    let system = System::start().await;
    let mut client = system.connect(JSON).await;
    client
        .send(Message::text(
            r#"{"ref":1,"hello":{"accessToken":"alice"}}"#,
        ))
        .await;
    let welcome = client.heard_json().await;
    assert_eq!(welcome["welcome"]["user"], "alice");
    assert_eq!(welcome["welcome"]["heartbeatInterval"], "25s");
    assert_eq!(welcome["welcome"]["limits"]["maxFrameBytes"], 65_536);
    while client.heard_json().await.get("caughtUp").is_none() {}
    let send = r#"{"ref":2,"sendMessage":{"peer":"alice","messageId":"m-1","afterSeq":"0","body":{"text":"hi"}}}"#;
    client.send(Message::text(send)).await;
    let mut stored = client.heard_json().await;
    assert!(
        stored["stored"]["acceptedAt"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    stored["stored"]
        .as_object_mut()
        .unwrap()
        .remove("acceptedAt");
    let expected = json!({"ref": "2", "stored": {"messageId": "m-1", "peer": "alice", "seq": "1"}});
    assert_eq!(stored, expected);
    client.send(Message::text(r#"{"ref":"3","ping":{}}"#)).await;
    match client.message().await {
        Message::Text(text) => assert_eq!(text.as_str(), r#"{"ref":"3","pong":{}}"#),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_newer_session_of_the_device_takes_over() {
    let system = System::start().await;
    let device = |number| Hello {
        device_id: Some("phone".to_owned()),
        connect_number: Some(number),
        ..hello("alice")
    };
    let (mut old, _) = system.open_with(PROTO, device(1)).await;
    let (_new, _) = system.open_with(JSON, device(2)).await;
    assert_eq!(goodbye(&mut old).await, GoodbyeReason::Superseded);
    let (code, reason) = old.closed().await;
    assert_eq!(code, 4409);
    assert!(reason.starts_with("SUPERSEDED: "), "{reason}");
}

#[tokio::test]
async fn another_history_is_told() {
    let system = System::start().await;
    let mut client = system.connect(JSON).await;
    let foreign = Hello {
        history_id: "another".to_owned(),
        ..hello("alice")
    };
    client.say(1, Up::Hello(foreign)).await;
    assert_eq!(goodbye(&mut client).await, GoodbyeReason::HistoryChanged);
    assert_eq!(client.closed().await.0, 4412);
}

#[tokio::test]
async fn a_token_that_is_none_is_refused() {
    let system = System::start().await;
    let mut client = system.connect(PROTO).await;
    client.say(1, Up::Hello(hello("no user"))).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 4401);
    assert_eq!(reason, "TOKEN_INVALID: the token is not accepted");
}

#[tokio::test]
async fn too_many_streams_are_told_when_to_come_again() {
    let mut config = crate::system::config();
    config.connects.per_second = 1;
    config.connects.burst = 1;
    let system = System::with(config).await;
    let mut open = Vec::new();
    // It gains one every second: on a slow machine that one is opened, too.
    let closed = loop {
        assert!(open.len() < 30, "nobody is refused");
        let mut next = system.connect(PROTO).await;
        next.say(1, Up::Hello(hello("alice"))).await;
        match next.message().await {
            Message::Close(Some(frame)) => break frame,
            _ => open.push(next),
        }
    };
    let reason = closed.reason.as_str();
    assert!(!open.is_empty());
    assert_eq!(u16::from(closed.code), 4429);
    assert!(reason.starts_with("RATE_LIMITED: "), "{reason}");
    assert!(reason.contains("; retry after "), "{reason}");
}

#[tokio::test]
async fn a_client_that_closes_is_answered_first() {
    let system = System::start().await;
    let (mut alice, _) = system.open(JSON, "alice").await;
    for number in 1..=20 {
        alice
            .say(number, send("bob", &format!("m-{number}"), "hi"))
            .await;
    }
    alice.close().await;
    let mut stored = 0;
    loop {
        match alice.message().await {
            Message::Text(text) => stored += u32::from(text.contains("\"stored\"")),
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 1000);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stored, 20);
}

#[tokio::test]
async fn a_server_that_goes_away_says_so_and_ends() {
    let system = System::start().await;
    let (mut alice, _) = system.open(PROTO, "alice").await;
    let (mut bob, _) = system.open(JSON, "bob").await;
    system.shutdown.trigger();
    soon(system.chat.drain(Duration::ZERO)).await;
    for client in [&mut alice, &mut bob] {
        assert_eq!(goodbye(client).await, GoodbyeReason::ShuttingDown);
        let (code, reason) = client.closed().await;
        assert_eq!(code, 1001);
        assert!(reason.starts_with("SHUTTING_DOWN: "), "{reason}");
    }
    soon(system.served).await.unwrap();
}

#[tokio::test]
async fn what_is_left_at_the_end_of_the_grace_period_is_cut_off() {
    let system = System::start().await;
    let (mut alice, _) = system.open(PROTO, "alice").await;
    system.shutdown.stop();
    let ended = async { while alice.try_message().await.is_some() {} };
    soon(ended).await;
    soon(system.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_is_offline_at_once() {
    let system = System::start().await;
    let (mut bob, _) = system.open(PROTO, "bob").await;
    let (alice, _) = system.open(JSON, "alice").await;
    let presence = |wanted: i32| {
        move |frame| match frame {
            Frame::PresenceChanged(changed) => {
                let presence = changed.presence?;
                (presence.user == "alice" && presence.availability == wanted).then_some(())
            }
            _ => None,
        }
    };
    bob.until(presence(1)).await;
    drop(alice);
    bob.until(presence(2)).await;
    assert_eq!(
        system.number("duologue_websocket_sessions{subprotocol=\"duologue.v1.json\"}"),
        0
    );
}
