//! docker-compose.yml and what stands beside it: every command must be one that the
//! programs understand, every number that is drawn or alarmed on one that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::Command;
use serde::Deserialize;

use super::{architecture, code, rows};

#[derive(Deserialize)]
struct File {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    profiles: Vec<String>,
    command: Option<Vec<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    healthcheck: Option<Healthcheck>,
    #[serde(default)]
    volumes: Vec<String>,
    read_only: Option<bool>,
    restart: String,
}

#[derive(Deserialize)]
struct Healthcheck {
    test: Vec<String>,
}

const OURS: &str = concat!("duologue:", env!("CARGO_PKG_VERSION"));

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn compose() -> File {
    serde_saphyr::from_str(&read("docker-compose.yml")).unwrap()
}

/// The services that run a program of ours.
fn ours(file: &File) -> impl Iterator<Item = (&String, &Service)> {
    let ours = file.services.iter();
    ours.filter(|(_, service)| service.image.starts_with("duologue"))
}

/// The command line of a program, as it is built.
fn program(name: &str) -> Command {
    use clap::CommandFactory as _;
    match name {
        "duologue" => crate::command(),
        "duologue-chat" => duologue_chat::serve::ServeConfig::command(),
        "duologue-gateway" => duologue_gateway::serve::ServeConfig::command(),
        "duologue-history" => duologue_history::serve::ServeConfig::command(),
        "duologue-presence" => duologue_presence::serve::ServeConfig::command(),
        other => panic!("{other} is no program of ours"),
    }
}

/// The flags that take their values from these variables, as they would be written.
fn from_environment(command: &Command, environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut flags = Vec::new();
    for (name, value) in environment {
        // The SDK's own.
        if name.starts_with("AWS_") {
            continue;
        }
        let mut arguments = command.get_arguments();
        let argument = arguments.find(|it| it.get_env().is_some_and(|env| env == name.as_str()));
        let argument = argument.unwrap_or_else(|| panic!("{name} is read by no flag"));
        // Compose puts something else in place of it, or nothing.
        if !value.contains("${") {
            flags.push(format!("--{}={value}", argument.get_long().unwrap()));
        }
    }
    flags
}

/// Parses a command as its program would, with what its environment says.
fn parse(service: &str, words: &[String], environment: &BTreeMap<String, String>) {
    let (name, arguments) = words.split_first().unwrap();
    let mut whole = program(name);
    whole.build();
    let first = arguments.first().filter(|word| !word.starts_with('-'));
    let called = match first {
        Some(subcommand) => whole.find_subcommand(subcommand).unwrap(),
        None => &whole,
    };
    let mut line = words.to_vec();
    line.extend(from_environment(called, environment));
    // What the machine that runs the test has set must not make up for what is missing.
    let whole = without_environment(whole);
    if let Err(error) = whole.try_get_matches_from(&line) {
        panic!("service {service}: {error}");
    }
}

fn without_environment(command: Command) -> Command {
    let command = command.mut_args(|argument| argument.env(None));
    command.mut_subcommands(without_environment)
}

#[test]
fn every_command_is_one_that_its_program_understands() {
    let file = compose();
    let mut programs = BTreeSet::new();
    for (name, service) in ours(&file) {
        let command = service.command.as_ref().unwrap();
        programs.insert(command[0].clone());
        parse(name, command, &service.environment);
        if let Some(health) = &service.healthcheck {
            assert_eq!(health.test[0], "CMD", "{name}: there is no shell");
            parse(name, &health.test[1..], &BTreeMap::new());
        }
    }
    let all = [
        "duologue",
        "duologue-chat",
        "duologue-gateway",
        "duologue-history",
        "duologue-presence",
    ];
    assert_eq!(programs, all.map(str::to_owned).into());
}

#[test]
#[should_panic(expected = "--no-such-flag")]
fn a_flag_that_is_gone_is_found() {
    let words = ["duologue-history", "--no-such-flag"].map(str::to_owned);
    parse("history-1", &words, &BTreeMap::new());
}

#[test]
fn every_server_of_ours_is_of_this_version_is_closed_and_is_asked_for_its_health() {
    let file = compose();
    for (name, service) in ours(&file) {
        assert_eq!(service.image, OURS, "{name}");
        assert_eq!(service.read_only, Some(true), "{name}");
        assert!(!service.profiles.is_empty(), "{name} would always run");
        let serves = service.restart != "no";
        assert_eq!(serves, service.healthcheck.is_some(), "{name}");
    }
}

#[test]
fn images_are_pinned_and_files_that_are_mounted_are_there() {
    let file = compose();
    for (name, service) in &file.services {
        let (_, tag) = service.image.split_once(':').unwrap();
        assert!(tag.contains('.'), "{name}: {tag} is no version");
        for mount in &service.volumes {
            let source = mount.split(':').next().unwrap();
            let Some(ours) = source.strip_prefix("./") else {
                assert!(file.volumes.contains_key(source), "{name}: {source}");
                continue;
            };
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(ours);
            assert!(path.exists(), "{name}: {source} is not there");
        }
    }
}

/// The names in a text that are of metrics of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("duologue_"));
    let base = |word| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| str::strip_suffix(word, part));
        base.unwrap_or(word)
    };
    words.map(base).collect()
}

#[test]
fn dashboard_and_alarms_use_numbers_that_there_are() {
    let page = read("docs/operations.md");
    let rows = rows(&page, "Metrics");
    let documented: BTreeSet<&str> = rows.iter().map(|row| code(&row[0])).collect();
    for file in [
        "deploy/observability/alerts.yml",
        "deploy/observability/grafana/dashboards/duologue.json",
    ] {
        let text = read(file);
        let used = metrics_in(&text);
        assert!(used.len() > 5, "{file}");
        for name in used {
            // Documented as one row: the same at the other listeners.
            let outer = name.replace("duologue_inner_", "duologue_");
            let outer = outer.replace("duologue_web_", "duologue_");
            assert!(documented.contains(outer.as_str()), "{file}: {name}");
        }
    }
}

/// The names that a source registers its metrics under, without what the encoding adds.
fn registered_in(source: &str) -> Vec<String> {
    // Tests have metrics of their own.
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut prefix = "duologue".to_owned();
    let mut names = Vec::new();
    for call in source.split("registry.").skip(1) {
        let Some((method, arguments)) = call.split_once('(') else {
            continue;
        };
        let quoted = arguments.trim_start().strip_prefix('"');
        let Some((name, _)) = quoted.and_then(|quoted| quoted.split_once('"')) else {
            continue;
        };
        match method {
            "sub_registry_with_prefix" => prefix = format!("duologue_{name}"),
            "register" => names.push(format!("{prefix}_{name}")),
            _ => {}
        }
    }
    names
}

#[test]
fn every_number_that_a_program_shows_is_documented() {
    let page = read("docs/operations.md");
    let rows = rows(&page, "Metrics");
    let documented: BTreeSet<&str> = rows.iter().map(|row| code(&row[0])).collect();
    let sources = architecture::sources();
    let registered = sources.iter().flat_map(|(_, text)| registered_in(text));
    let registered: BTreeSet<String> = registered.collect();
    assert!(registered.len() > 20, "only {registered:?} were found");
    for name in &registered {
        let shown = ["", "_total", "_info"].map(|kind| format!("{name}{kind}"));
        let is_documented = shown.iter().any(|name| documented.contains(name.as_str()));
        assert!(is_documented, "{name} is not in docs/operations.md");
    }
}

#[test]
fn every_alarm_is_explained() {
    #[derive(Deserialize)]
    struct Alerts {
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        rules: Vec<Rule>,
    }
    #[derive(Deserialize)]
    struct Rule {
        alert: String,
    }
    let alerts: Alerts = serde_saphyr::from_str(&read("deploy/observability/alerts.yml")).unwrap();
    let rules = alerts.groups.into_iter().flat_map(|group| group.rules);
    let rules: BTreeSet<String> = rules.map(|rule| rule.alert).collect();
    let page = read("docs/operations.md");
    let explained = rows(&page, "What to alarm on");
    let explained = explained.iter().map(|row| code(&row[0]).to_owned());
    assert_eq!(explained.collect::<BTreeSet<_>>(), rules);
}
