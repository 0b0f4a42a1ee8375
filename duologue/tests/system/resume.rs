//! Being away: whoever comes back gets exactly what was missed.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Envelope, GoodbyeReason, Hello};
use duologue_runtime::refusal::Reason;

use crate::support::calls::{advance, sent, sent_many, seqs, text_of};
use crate::support::frames::{hello, position, send};
use crate::support::refused::{assert_refused, metadata};
use crate::support::{Chat, End, Place, Server, Session};

fn with_token(token: &str) -> Hello {
    Hello {
        sync_token: token.to_owned(),
        ..hello()
    }
}

/// What a device is shown that says this.
async fn shown(chat: &Chat, hello: Hello) -> Vec<Envelope> {
    Session::caught_up(chat, hello).await.1
}

async fn end_of(chat: &Chat, hello: Hello) -> End {
    Session::end_of(chat, Up::Hello(hello)).await
}

#[tokio::test]
async fn a_device_with_nothing_gets_what_no_device_of_its_user_has_received() {
    let server = Server::start(&[]).await;
    let (mut alice, mut bob) = (server.chat("alice").await, server.chat("bob").await);
    sent_many(&mut alice, "bob", 5).await;
    assert_eq!(seqs(&shown(&bob, hello()).await), [1, 2, 3, 4, 5]);
    bob.advance_cursor(advance("alice", Some(3), None))
        .await
        .unwrap();
    assert_eq!(seqs(&shown(&bob, hello()).await), [4, 5]);
}

#[tokio::test]
async fn a_position_says_exactly_what_is_missing() {
    let server = Server::start(&[]).await;
    let (mut alice, mut bob) = (server.chat("alice").await, server.chat("bob").await);
    sent_many(&mut alice, "bob", 5).await;
    // The phone has received everything; what the laptop lacks is another matter.
    bob.advance_cursor(advance("alice", Some(5), Some(5)))
        .await
        .unwrap();
    for (seq, missing) in [(0, &[1, 2, 3, 4, 5][..]), (3, &[4, 5]), (5, &[])] {
        let hello = Hello {
            positions: vec![position("alice", seq)],
            ..hello()
        };
        assert_eq!(seqs(&shown(&bob, hello).await), missing);
    }
}

#[tokio::test]
async fn a_token_brings_everything_since_and_at_least_that() {
    let server = Server::start(&[]).await;
    let (mut alice, bob) = (server.chat("alice").await, server.chat("bob").await);
    sent_many(&mut alice, "bob", 3).await;
    let (session, _, token) = Session::caught_up(&bob, hello()).await;
    drop(session);
    sent(&mut alice, "bob", "later", "while away").await;
    sent(&mut server.chat("carol").await, "bob", "m", "from another").await;
    let all = shown(&bob, with_token(&token)).await;
    let from = |sender: &str| -> Vec<Envelope> {
        let of = all.iter().filter(|one| one.sender == sender);
        of.cloned().collect()
    };
    // It may show again what is about as old as the token, but without a gap.
    let of_alice = seqs(&from("alice"));
    assert_eq!(of_alice.last(), Some(&4));
    assert!(
        of_alice.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{of_alice:?}"
    );
    assert_eq!(text_of(&from("carol")[0]), "from another");
    // With a position it is exact.
    let exact = Hello {
        positions: vec![position("alice", 3), position("carol", 1)],
        ..with_token(&token)
    };
    assert_eq!(seqs(&shown(&bob, exact).await), [4]);
}

#[tokio::test]
async fn a_device_s_own_messages_are_not_left_out() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 2).await;
    let all = Hello {
        positions: vec![position("bob", 0)],
        ..hello()
    };
    assert_eq!(seqs(&shown(&alice, all).await), [1, 2]);
}

#[tokio::test]
async fn a_long_absence_in_many_conversations_is_caught_up_completely() {
    let server = Server::start(&["--sends", "10000/10000", "--calls", "10000/10000"]).await;
    let bob = server.chat("bob").await;
    for number in 0..120 {
        let mut peer = server.chat(&format!("peer{number:03}")).await;
        sent_many(&mut peer, "bob", 4).await;
    }
    let all = shown(&bob, hello()).await;
    assert_eq!(all.len(), 480);
    for number in 0..120 {
        let sender = format!("peer{number:03}");
        let of = all
            .iter()
            .filter(|one| one.sender == sender)
            .map(|one| one.seq);
        assert!(of.eq(1..=4), "{sender}");
    }
}

#[tokio::test]
async fn a_position_above_the_head_is_never_ignored() {
    let server = Server::start(&[]).await;
    let bob = server.chat("bob").await;
    sent_many(&mut server.chat("alice").await, "bob", 2).await;
    let (_, _, token) = Session::caught_up(&bob, hello()).await;
    for (peer, seq, head) in [
        ("alice", 3, "2"),
        ("carol", 1, "0"),
        ("alice", u64::MAX, "2"),
    ] {
        for known in [hello(), with_token(&token)] {
            let ahead = Hello {
                positions: vec![position(peer, seq)],
                ..known
            };
            let end = end_of(&bob, ahead).await;
            assert_eq!(end.goodbye().reason(), GoodbyeReason::HistoryChanged);
            assert_refused(end.status(), Reason::PositionAhead);
            assert_eq!(metadata(end.status())["head"], head);
        }
    }
}

#[tokio::test]
async fn a_client_that_knows_another_history_is_told_to_forget_it() {
    let server = Server::start(&[]).await;
    let foreign = Hello {
        history_id: "another".into(),
        ..hello()
    };
    let end = end_of(&server.chat("alice").await, foreign).await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::HistoryChanged);
    assert_refused(end.status(), Reason::HistoryChanged);
}

#[tokio::test]
async fn a_sync_token_that_is_garbled_or_somebody_else_s_is_refused() {
    let server = Server::start(&[]).await;
    let (alice, bob) = (server.chat("alice").await, server.chat("bob").await);
    let (_, _, of_alice) = Session::caught_up(&alice, hello()).await;
    let (_, _, elsewhere) =
        Session::caught_up(&Server::start(&[]).await.chat("bob").await, hello()).await;
    for token in ["garbage", "%", &of_alice[1..], &of_alice, &elsewhere] {
        let end = end_of(&bob, with_token(token)).await;
        assert_eq!(
            end.goodbye().reason(),
            GoodbyeReason::ProtocolError,
            "{token}"
        );
        assert_refused(end.status(), Reason::InvalidSyncToken);
    }
    shown(&alice, with_token(&of_alice)).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_so_do_history_and_tokens() {
    let place = Place::new();
    let server = place.serve(&[]).await;
    let (alice, bob) = (server.chat("alice").await, server.chat("bob").await);
    let (bobs, _, token) = Session::caught_up(&bob, hello()).await;
    let history = bobs.welcome.history_id.clone();
    let (mut alice, ..) = Session::caught_up(&alice, hello()).await;
    let mut acknowledged = 0;
    for number in 1..=40_u64 {
        alice
            .say(number, send("bob", &format!("m{number}"), "hi"))
            .await;
    }
    // Killed in the middle of it.
    while acknowledged < 10 {
        let stored = |frame| matches!(frame, Frame::Stored(_)).then_some(());
        alice.until(stored).await;
        acknowledged += 1;
    }
    server.kill().await;

    let server = place.serve(&[]).await;
    let known = Hello {
        history_id: history,
        positions: vec![position("alice", 0)],
        ..with_token(&token)
    };
    let all = shown(&server.chat("bob").await, known).await;
    assert!(all.len() >= acknowledged, "{}", all.len());
    assert!(all.iter().map(|one| one.seq).eq(1..=all.len() as u64));
    // The retries of everything make nothing twice.
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    for number in 1..=40_u64 {
        match alice
            .ask(number, send("bob", &format!("m{number}"), "hi"))
            .await
        {
            Frame::Stored(stored) => {
                assert_eq!(stored.seq, number);
                assert_eq!(stored.duplicate, number <= all.len() as u64);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn tables_of_a_server_that_was_killed_ten_times_are_whole() {
    let place = Place::new();
    for round in 1..=10_u64 {
        let server = place.serve(&[]).await;
        let mut alice = server.chat("alice").await;
        assert_eq!(
            sent(&mut alice, "bob", &format!("m{round}"), "hi").await,
            round
        );
        server.kill().await;
    }
}
