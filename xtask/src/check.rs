//! The rules of the workspace that neither the compiler nor `cargo deny` keeps:
//! which of our crates may use which.
//!
//! Services meet on the wire, or through the ports that `duologue` wires; they
//! never use each other's crates. Only history and presence talk to AWS, through what
//! they share for it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Our crates, each with those of ours that it may use, also in tests.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("bench", &["duologue-proto", "duologue-runtime"]),
    ("duologue-proto", &[]),
    ("duologue-runtime", &["duologue-proto"]),
    ("duologue-chat", &["duologue-proto", "duologue-runtime"]),
    ("duologue-dynamodb", &["duologue-proto", "duologue-runtime"]),
    ("duologue-gateway", &["duologue-proto", "duologue-runtime"]),
    (
        "duologue-history",
        &["duologue-dynamodb", "duologue-proto", "duologue-runtime"],
    ),
    (
        "duologue-presence",
        &["duologue-dynamodb", "duologue-proto", "duologue-runtime"],
    ),
    ("duologue-client", &["duologue-proto"]),
    (
        "duologue",
        &[
            "duologue-chat",
            "duologue-client",
            "duologue-dynamodb",
            "duologue-gateway",
            "duologue-history",
            "duologue-presence",
            "duologue-proto",
            "duologue-runtime",
        ],
    ),
    (
        "conformance",
        &["duologue-client", "duologue-proto", "duologue-runtime"],
    ),
    (
        // Wired as the program is, with the program's own adapters.
        "simulation",
        &[
            "conformance",
            "duologue",
            "duologue-chat",
            "duologue-history",
            "duologue-presence",
            "duologue-proto",
            "duologue-runtime",
        ],
    ),
    (
        "xtask",
        &["conformance", "duologue-client", "duologue-proto"],
    ),
];

/// The crates that may use the AWS SDK.
const AWS_ALLOWED: [&str; 3] = ["duologue-dynamodb", "duologue-history", "duologue-presence"];

/// Checks all rules; the error lists every breach.
pub(crate) fn run(root: &Path) -> Result<()> {
    let breaches = breaches(&metadata(root)?)?;
    if breaches.is_empty() {
        return Ok(());
    }
    bail!(
        "rules of the workspace are broken:\n- {}",
        breaches.join("\n- ")
    )
}

/// What Cargo knows of our crates.
fn metadata(root: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(root)
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "`cargo metadata` failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("cargo prints something that is not UTF-8")
}

/// What `cargo metadata --no-deps` shows to be against the rules.
fn breaches(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("unreadable cargo metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;

    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let Some((_, allowed)) = ALLOWED.iter().find(|(ours, _)| *ours == name) else {
            breaches.push(format!("{name} has no layer: add it to {}", file!()));
            continue;
        };
        let dependencies = package["dependencies"]
            .as_array()
            .context("a package has no list of dependencies")?;
        for dependency in dependencies {
            // The package's own name, also where the crate is renamed.
            let used = dependency["name"]
                .as_str()
                .context("a dependency has no name")?;
            breaches.extend(breach(name, allowed, used));
        }
    }
    Ok(breaches)
}

/// Why one of our crates may not use a package, if it may not.
fn breach(name: &str, allowed: &[&str], used: &str) -> Option<String> {
    let ours = ALLOWED.iter().any(|(ours, _)| *ours == used);
    if ours && !allowed.contains(&used) {
        return Some(format!("{name} uses {used}, which is not below it"));
    }
    let aws = used == "aws-config" || used.starts_with("aws-sdk-");
    (aws && !AWS_ALLOWED.contains(&name))
        .then(|| format!("{name} uses {used}; only {} may", AWS_ALLOWED.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn breaches_of(name: &str, used: &[&str]) -> Vec<String> {
        let dependencies: Vec<_> = used.iter().map(|used| json!({ "name": used })).collect();
        let metadata = json!({ "packages": [{ "name": name, "dependencies": dependencies }] });
        breaches(&metadata.to_string()).unwrap()
    }

    #[test]
    fn a_service_may_use_the_contract_and_the_runtime() {
        let used = ["duologue-proto", "duologue-runtime", "tokio"];
        assert_eq!(breaches_of("duologue-chat", &used), Vec::<String>::new());
    }

    #[test]
    fn a_service_may_not_use_another_service() {
        assert_eq!(
            breaches_of("duologue-chat", &["duologue-history"]),
            ["duologue-chat uses duologue-history, which is not below it"]
        );
    }

    #[test]
    fn only_history_and_presence_may_use_the_aws_sdk() {
        assert_eq!(breaches_of("duologue-chat", &["aws-sdk-dynamodb"]).len(), 1);
        assert_eq!(breaches_of("duologue", &["aws-config"]).len(), 1);
        assert!(breaches_of("duologue-dynamodb", &["aws-config"]).is_empty());
        assert!(breaches_of("duologue-history", &["aws-sdk-dynamodb"]).is_empty());
        assert!(breaches_of("duologue-presence", &["aws-config"]).is_empty());
    }

    #[test]
    fn the_cryptography_of_aws_is_not_its_sdk() {
        assert!(breaches_of("duologue-runtime", &["aws-lc-rs"]).is_empty());
    }

    #[test]
    fn a_crate_without_a_layer_is_a_breach() {
        assert_eq!(breaches_of("duologue-new", &[]).len(), 1);
    }
}
