//! Flags and environment: what is wrong is named, what is dangerous is refused.

use std::process::Output;

use crate::support::frames::hello;
use crate::support::{Place, program, soon};

/// Runs the program to its end.
async fn run(args: &[&str]) -> Output {
    soon(program().args(args).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_bad_value_names_the_flag_and_what_is_allowed() {
    for (flag, value, rule) in [
        ("--grpc-listen", "nowhere", "socket address"),
        ("--admin-listen", "127.0.0.1", "socket address"),
        ("--max-text-bytes", "8193", "8192"),
        ("--max-text-bytes", "0", "1"),
        ("--sends", "fast", "two whole numbers"),
        ("--calls", "0/5", "two whole numbers"),
        ("--connects", "5", "two whole numbers"),
        ("--grace", "soon", "duration"),
        ("--unary-deadline", "1 week", "duration"),
        ("--presence-visibility", "nobody", "shared"),
        ("--log-format", "xml", "json"),
        ("--node", "no spaces", "letters"),
        ("--sessions-per-user", "-1", "--sessions-per-user"),
    ] {
        let given = format!("{flag}={value}");
        let output = run(&["serve", "--data", "memory", &given]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{given}: {error}");
        assert!(error.contains(flag), "{given}: {error}");
        assert!(error.contains(rule), "{given}: {error}");
    }
}

#[tokio::test]
async fn an_unknown_flag_is_refused() {
    let output = run(&["serve", "--no-such-flag"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--no-such-flag"));
}

#[tokio::test]
async fn an_unknown_variable_of_ours_is_warned_of_and_a_known_one_is_taken() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.env("DUOLOGUE_GRPC_LISTN", "127.0.0.1:1");
    command.env("DUOLOGUE_NODE", "from-the-environment");
    let server = place.serve_as(command).await;
    let chat = server.chat("alice").await;
    let session = crate::support::Session::open(&chat, hello()).await;
    assert_eq!(session.welcome.node_id, "from-the-environment");
    let log = place.log();
    let line = log
        .lines()
        .find(|line| line.contains("DUOLOGUE_GRPC_LISTN"));
    assert!(line.is_some_and(|line| line.contains("WARN")), "{log}");
    assert!(!log.contains("DUOLOGUE_NODE"), "{log}");
}

#[tokio::test]
async fn the_development_key_is_refused_beyond_loopback() {
    let place = Place::new();
    for beyond in ["0.0.0.0:0", "[::]:0"] {
        for more in [&[][..], &["--plaintext-behind-proxy"]] {
            let mut flags = vec!["--grpc-listen", beyond];
            flags.extend(more);
            let output = soon(place.command(&flags).output()).await.unwrap();
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains("--jwt-public-key"), "{error}");
        }
    }
    // Nothing was made on the way to the refusal.
    assert!(!place.data().exists());
}

/// A public key in a file.
fn public_key(place: &Place) -> String {
    let pair = rcgen::KeyPair::generate().unwrap();
    let file = place.path("public.pem");
    std::fs::write(&file, pair.public_key_pem()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn plaintext_beyond_loopback_must_be_asked_for_and_is_said_loudly() {
    let place = Place::new();
    let key = public_key(&place);
    let flags = ["--grpc-listen", "0.0.0.0:0", "--jwt-public-key", &key];
    let output = soon(place.command(&flags).output()).await.unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("--plaintext-behind-proxy"), "{error}");
    assert!(error.contains("--tls-cert"), "{error}");

    let flags = [&flags[..], &["--plaintext-behind-proxy"]].concat();
    let server = place.serve(&flags).await;
    assert!(server.banner.contains("0.0.0.0"), "{}", server.banner);
    let log = place.log();
    assert!(
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("tls")),
        "{log}"
    );
}

#[tokio::test]
async fn checking_the_configuration_shows_it_and_touches_nothing() {
    let place = Place::new();
    let mut command = place.command(&["--check-config", "--sends", "7/9"]);
    command.env("DUOLOGUE_GRACE", "3s");
    let output = soon(command.output()).await.unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in ["sends = 7/9", "grace = 3s", "calls = 100/500"] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in {shown}"
        );
    }
    assert!(!place.data().exists());
    // Nor does it mind a server that runs there, and it shows no key.
    let _server = place.serve(&[]).await;
    let output = soon(place.command(&["--check-config"]).output())
        .await
        .unwrap();
    assert!(output.status.success());
    let key = std::fs::read_to_string(place.data().join("development-key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!text(&output.stdout).contains(secret));
}

#[tokio::test]
async fn checking_the_configuration_finds_what_serving_would_stumble_over() {
    let place = Place::new();
    let missing = place.path("missing.pem");
    let missing = missing.to_str().unwrap();
    for (flags, named) in [
        (&["--jwt-public-key", missing][..], missing),
        (&["--tls-cert", missing, "--tls-key", missing], missing),
        (&["--log", "duologue=very"], "log filter"),
        (&["--grpc-listen", "0.0.0.0:0"], "0.0.0.0:0"),
        (&["--drain-delay", "20s", "--grace", "20s"], "--drain-delay"),
    ] {
        let flags = [&["--check-config"], flags].concat();
        let output = soon(place.command(&flags).output()).await.unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?} {error}");
        assert!(error.contains(named), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let place = Place::new();
    let server = place.serve(&[]).await;
    let taken = server.grpc.to_string();
    let elsewhere = Place::new();
    let output = soon(elsewhere.command(&["--grpc-listen", &taken]).output())
        .await
        .unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&taken), "{error}");
}

#[tokio::test]
async fn health_tells_whether_a_server_serves() {
    let place = Place::new();
    let server = place.serve(&[]).await;
    let address = format!("http://{}", server.grpc);
    let output = run(&["health", "--addr", &address]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "SERVING\n");
    let output = run(&["health", "--addr", &address, "--service", "no.such.Service"]).await;
    assert_eq!(output.status.code(), Some(1));
    let admin = format!("http://{}", server.admin);
    let output = run(&["health", "--admin", &admin]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    server.kill().await;
    let output = run(&["health", "--admin", &admin]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&admin));
    let output = run(&["health", "--addr", &address]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&address));
}

#[tokio::test]
async fn without_a_subcommand_the_system_is_served() {
    let place = Place::new();
    let mut command = program();
    command.arg("--data").arg(place.data());
    for listen in ["--grpc-listen", "--web-listen", "--admin-listen"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    let server = place.serve_as(command).await;
    crate::support::Session::caught_up(&server.chat("alice").await, hello()).await;
}

#[tokio::test]
async fn output_that_cannot_be_written_is_a_failure_and_not_a_crash() {
    for arguments in [
        &["serve", "--check-config", "--data", "memory"][..],
        &["--help"],
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = program();
        command.args(arguments).stdout(full);
        let output = soon(command.output()).await.unwrap();
        let error = text(&output.stderr);
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
        assert_ne!(output.status.code(), Some(101), "{arguments:?}: {error}");
    }
}
