//! Who is online, and who may know.

use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Availability, GetPresenceRequest, ListUsersRequest, UserPresence};
use duologue_runtime::refusal::Reason;
use tonic::Status;

use crate::support::calls::sent;
use crate::support::frames::{hello, ping};
use crate::support::refused::assert_refused;
use crate::support::{Chat, Server, Session, Watch};

const SHARED: [&str; 2] = ["--presence-visibility", "shared"];

/// The next change of a user's presence.
async fn change(session: &mut Session) -> (String, Availability) {
    session
        .until(|frame| match frame {
            Frame::PresenceChanged(changed) => changed.presence,
            _ => None,
        })
        .await
        .into_pair()
}

trait IntoPair {
    fn into_pair(self) -> (String, Availability);
}

impl IntoPair for UserPresence {
    fn into_pair(self) -> (String, Availability) {
        let availability = self.availability();
        (self.user, availability)
    }
}

async fn presence(chat: &mut Chat, user: &str) -> Result<UserPresence, Status> {
    let user = user.to_owned();
    let answer = chat.get_presence(GetPresenceRequest { user }).await?;
    Ok(answer.into_inner().presence.unwrap())
}

async fn users(chat: &mut Chat) -> Vec<String> {
    let page = chat.list_users(ListUsersRequest::default()).await.unwrap();
    let users = page.into_inner().users.into_iter();
    users.map(|one| one.user).collect()
}

async fn online(server: &Server, user: &str) -> Session {
    Session::caught_up(&server.chat(user).await, hello())
        .await
        .0
}

#[tokio::test]
async fn whoever_may_see_it_is_told_who_comes_and_goes() {
    let server = Server::start(&[]).await;
    let mut alice = online(&server, "alice").await;
    let mut bob = online(&server, "bob").await;
    assert_eq!(
        change(&mut alice).await,
        ("bob".into(), Availability::Online)
    );
    bob.finish();
    assert!(bob.end().await.status.is_ok());
    assert_eq!(
        change(&mut alice).await,
        ("bob".into(), Availability::Offline)
    );
}

#[tokio::test]
async fn a_user_is_online_while_any_session_is_open() {
    let server = Server::start(&[]).await;
    let phone = online(&server, "bob").await;
    let laptop = online(&server, "bob").await;
    let mut chat = server.chat("alice").await;
    drop(phone);
    let now = presence(&mut chat, "bob").await.unwrap();
    assert_eq!(
        (now.availability(), now.last_seen),
        (Availability::Online, None)
    );
    let mut alice = online(&server, "alice").await;
    drop(laptop);
    assert_eq!(
        change(&mut alice).await,
        ("bob".into(), Availability::Offline)
    );
    let now = presence(&mut chat, "bob").await.unwrap();
    assert_eq!(now.availability(), Availability::Offline);
    let seen = now.last_seen.unwrap();
    assert_eq!((seen.seconds % 60, seen.nanos), (0, 0));
}

#[tokio::test]
async fn subscribe_makes_its_user_online_and_unary_calls_do_not() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let mut bob = server.chat("bob").await;
    sent(&mut bob, "alice", "m", "hi").await;
    assert_eq!(
        presence(&mut alice, "bob").await.unwrap().availability(),
        Availability::Offline
    );
    let mut watch = Watch::open(&bob, hello()).await;
    watch.caught_up().await;
    assert_eq!(
        presence(&mut alice, "bob").await.unwrap().availability(),
        Availability::Online
    );
    assert_eq!(users(&mut alice).await, ["bob"]);
}

#[tokio::test]
async fn presence_is_for_who_shares_a_conversation_and_strangers_look_like_nobody() {
    let server = Server::start(&SHARED).await;
    let _bob = online(&server, "bob").await;
    let (mut alice, mut mallory) = (server.chat("alice").await, server.chat("mallory").await);
    sent(&mut alice, "bob", "m", "hi").await;
    assert_eq!(
        presence(&mut alice, "bob").await.unwrap().availability(),
        Availability::Online
    );
    assert_eq!(users(&mut alice).await, ["bob"]);
    let stranger = presence(&mut mallory, "bob").await.unwrap_err();
    let nobody = presence(&mut mallory, "nonexistent").await.unwrap_err();
    assert_refused(&stranger, Reason::PresenceNotVisible);
    assert_eq!(stranger.code(), nobody.code());
    assert_eq!(stranger.message(), nobody.message());
    assert_eq!(stranger.details(), nobody.details());
    assert!(users(&mut mallory).await.is_empty());
    // Everybody may ask for themself.
    presence(&mut mallory, "mallory").await.unwrap();
}

#[tokio::test]
async fn changes_are_pushed_to_who_shares_a_conversation_and_to_nobody_else() {
    let server = Server::start(&SHARED).await;
    let mut alice = online(&server, "alice").await;
    let mut mallory = online(&server, "mallory").await;
    sent(&mut server.chat("alice").await, "bob", "m", "hi").await;
    let _bob = online(&server, "bob").await;
    assert_eq!(
        change(&mut alice).await,
        ("bob".into(), Availability::Online)
    );
    // Alice was told, so mallory would have been by now.
    mallory.say(5, ping()).await;
    loop {
        let heard = mallory.hear().await;
        if heard.r#ref == 5 {
            break;
        }
        assert!(
            !matches!(heard.frame, Some(Frame::PresenceChanged(_))),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn with_the_development_key_everyone_sees_everyone() {
    let server = Server::start(&[]).await;
    let _bob = online(&server, "bob").await;
    let mut alice = server.chat("alice").await;
    assert_eq!(users(&mut alice).await, ["bob"]);
    let nobody = presence(&mut alice, "nonexistent").await.unwrap();
    assert_eq!(
        (nobody.availability(), nobody.last_seen),
        (Availability::Offline, None)
    );
}

#[tokio::test]
async fn a_list_of_users_does_not_name_the_caller() {
    let server = Server::start(&[]).await;
    let _alice = online(&server, "alice").await;
    assert!(users(&mut server.chat("alice").await).await.is_empty());
}
