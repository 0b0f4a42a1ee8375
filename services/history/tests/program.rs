//! The program `duologue-history`, as its operator meets it: what is dangerous or wrong
//! is refused before anything is made. The other thin programs begin by the same code.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_duologue-history"));
    program.env_clear().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn beyond_loopback_it_must_know_who_calls() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let flags = ["--data", &data, "--internal-listen", "0.0.0.0:0"];
    let output = run(&flags);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("--internal-secret") && error.contains("0.0.0.0:0"),
        "{error}"
    );
    assert!(!dir.path().join("data").exists());

    let secret = dir.path().join("secret").display().to_string();
    std::fs::write(&secret, "too short").unwrap();
    let mut flags = flags.to_vec();
    flags.extend(["--internal-secret", &secret, "--check-config"]);
    let output = run(&flags);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("at least 32") && !error.contains("too short"),
        "{error}"
    );

    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let output = run(&flags);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("internal-listen = 0.0.0.0:0\n"), "{shown}");
    assert!(shown.ends_with("the configuration is valid\n"), "{shown}");
    assert!(!shown.contains("0123456789"), "{shown}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn what_is_unknown_or_missing_or_half_given_is_named() {
    for (flags, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&[], "--internal-listen"),
        (
            &["--internal-listen=127.0.0.1:0", "--internal-tls-cert=x"],
            "--internal-tls-key",
        ),
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(
            text(&output.stderr).contains(named),
            "{}",
            text(&output.stderr)
        );
    }
    let output = run(&[
        "--internal-listen=127.0.0.1:0",
        "--internal-peer=history.internal",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--internal-tls-cert"));
}
