//! `docs/configuration.md` is what the command line says of itself.
//!
//! After a change of the flags, write it anew:
//! `cargo test -p duologue write_the_configuration -- --ignored`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::Command;
use duologue_runtime::config::markdown_table;

const FILE: &str = "docs/configuration.md";

const HEAD: &str = "\
# Configuration

Every flag, its environment variable and its default. This page is made from the
command line itself, and a test compares them. After a change of the flags, write it
anew: `cargo test -p duologue write_the_configuration -- --ignored`.

A flag wins over its variable, the variable over the default. Repeatable flags take
their values in one variable separated by commas. Durations are a whole number and
`ms`, `s`, `m` or `h`. `duologue serve --check-config` prints the effective values, with
secrets hidden, and ends. Unknown flags are refused; unknown variables that begin with
`DUOLOGUE_` are warned of at the start of `serve`.
";

/// Lines of a table before its first row.
const HEAD_LINES: usize = 2;

#[test]
fn the_configuration_is_what_the_command_line_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    let written = fs::read_to_string(path).unwrap();
    assert!(
        written == configuration(),
        "{FILE} is out of date: `cargo test -p duologue write_the_configuration -- --ignored`"
    );
}

#[test]
#[ignore = "writes the file that the other test compares"]
fn write_the_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    fs::write(path, configuration()).unwrap();
}

/// The programs of a split system.
fn programs() -> [Command; 4] {
    use clap::CommandFactory as _;
    let mut programs = [
        duologue_chat::serve::ServeConfig::command(),
        duologue_gateway::serve::ServeConfig::command(),
        duologue_history::serve::ServeConfig::command(),
        duologue_presence::serve::ServeConfig::command(),
    ];
    programs.iter_mut().for_each(Command::build);
    programs
}

fn configuration() -> String {
    let mut command = crate::command();
    // Fills in what clap derives, and the subcommand `help`.
    command.build();
    let mut page = HEAD.to_owned();
    write_subcommands(&mut page, "duologue", &command);
    for program in programs() {
        write_command(&mut page, program.get_name(), &program);
    }
    page
}

fn write_subcommands(page: &mut String, title: &str, command: &Command) {
    for command in command.get_subcommands() {
        if command.is_hide_set() || command.get_name() == "help" {
            continue;
        }
        let title = format!("{title} {}", command.get_name());
        write_command(page, &title, command);
    }
}

/// A command, and then its subcommands.
fn write_command(page: &mut String, title: &str, command: &Command) {
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    // Writing to a string does not fail.
    let _ = writeln!(page, "\n## {title}\n\n{about}.");
    let arguments: Vec<_> = command.get_positionals().collect();
    if !arguments.is_empty() {
        page.push('\n');
    }
    for argument in &arguments {
        let value = argument.get_value_names().unwrap_or_default().join(" ");
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = writeln!(page, "- `<{value}>`: {help}");
    }
    let table = markdown_table(command);
    // What only has subcommands has no flags: of its table there is the head alone.
    if table.lines().count() > HEAD_LINES {
        page.push('\n');
        page.push_str(&table);
    }
    write_subcommands(page, title, command);
}
