//! The data directory: one process at a time, a key that only its owner reads.

use std::os::unix::fs::PermissionsExt as _;

use duologue_runtime::auth::DEV_KEY_FILE;

use crate::support::calls::{Bearer, sent};
use crate::support::frames::hello;
use crate::support::{Place, Session, program, soon};

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let server = place.serve(&[]).await;
    let output = soon(place.command(&[]).output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap();
    assert!(last.starts_with("error: "), "{error}");
    assert!(last.contains("another process"), "{error}");
    assert!(last.contains(place.data().to_str().unwrap()), "{error}");
    sent(&mut server.chat("alice").await, "bob", "m", "hi").await;
}

#[tokio::test]
async fn a_directory_is_free_again_after_any_end() {
    let place = Place::new();
    place.serve(&[]).await.kill().await;
    let mut server = place.serve(&[]).await;
    server.signal("INT").await;
    assert!(server.ended().await.success());
    place.serve(&[]).await;
}

#[tokio::test]
async fn a_token_can_be_made_while_the_server_runs_and_is_all_that_is_printed() {
    let place = Place::new();
    let server = place.serve(&[]).await;
    let mut command = program();
    command.args(["token", "alice", "--data"]).arg(place.data());
    let output = soon(command.output()).await.unwrap();
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap();
    let token = token.strip_suffix('\n').unwrap();
    assert!(
        token
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
        "{token}"
    );
    let chat = server.chat_with(Bearer::new(token)).await;
    let (session, ..) = Session::caught_up(&chat, hello()).await;
    assert_eq!(session.welcome.user, "alice");
}

#[tokio::test]
async fn a_token_that_was_made_before_the_first_start_is_good() {
    let place = Place::new();
    let mut command = program();
    command.args(["token", "alice", "--data"]).arg(place.data());
    let output = soon(command.output()).await.unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    let server = place.serve(&[]).await;
    let chat = server.chat_with(Bearer::new(token.trim_end())).await;
    Session::caught_up(&chat, hello()).await;
}

#[tokio::test]
async fn a_user_outside_the_rule_gets_no_token() {
    let place = Place::new();
    let mut command = program();
    command
        .args(["token", "no spaces", "--data"])
        .arg(place.data());
    let output = soon(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("letters, digits"));
    assert!(!place.data().exists());
}

#[tokio::test]
async fn the_key_is_readable_by_its_owner_only_and_used_only_then() {
    let place = Place::new();
    place.serve(&[]).await.kill().await;
    let key = place.data().join(DEV_KEY_FILE);
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let directory = std::fs::metadata(place.data())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(directory & 0o077, 0);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = soon(place.command(&[]).output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn a_format_that_is_not_known_is_refused_and_left_as_it_is() {
    let place = Place::new();
    place.serve(&[]).await.kill().await;
    let format = place.data().join("history/format");
    std::fs::write(&format, "99\n").unwrap();
    let output = soon(place.command(&[]).output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("99"), "{error}");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "99\n");
}

#[tokio::test]
async fn a_place_that_cannot_be_a_data_directory_is_named() {
    let place = Place::new();
    std::fs::write(place.data(), "a file").unwrap();
    let output = soon(place.command(&[]).output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(place.data().to_str().unwrap()), "{error}");
    assert_eq!(std::fs::read_to_string(place.data()).unwrap(), "a file");
}

#[tokio::test]
async fn there_is_no_token_for_a_server_in_memory_but_those_that_it_prints() {
    let output = soon(
        program()
            .args(["token", "alice", "--data", "memory"])
            .output(),
    );
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}
