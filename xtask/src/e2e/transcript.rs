//! Reads what a Markdown page shows of a terminal.
//!
//! A fenced block marked `console` is run: lines that begin with `$ ` are
//! commands, the lines below each are what it prints. A command goes on in the
//! next line after a `\` at its end, and in lines that begin with `> ` (as a
//! shell shows the rest of a here-document or of an open quote). `...` alone on
//! a line stands for any lines, or none.
//!
//! `console serve` shows how the server is started and what it prints first.
//! `console no-e2e` is not run. Other blocks are not looked at.

use anyhow::{Result, bail, ensure};

/// What a page shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    /// How the server is started, where that is shown.
    pub(super) serve: Option<Step>,
    /// The commands of all blocks, in order.
    pub(super) steps: Vec<Step>,
}

/// One command and what it prints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The line of the page, from 1.
    pub(super) line: usize,
    /// The command; may have several lines.
    pub(super) command: String,
    /// The lines that it prints.
    pub(super) printed: Vec<String>,
}

/// What a fenced block is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run,
    Serve,
    Skipped,
}

const FENCE: &str = "```";

/// Reads a page.
pub(super) fn read(page: &str) -> Result<Transcript> {
    let mut transcript = Transcript::default();
    let mut lines = (1..).zip(page.lines());
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix(FENCE) else {
            continue;
        };
        let kind = kind(number, info.trim())?;
        let block: Vec<_> = lines
            .by_ref()
            .take_while(|(_, line)| *line != FENCE)
            .collect();
        match kind {
            Kind::Skipped => {}
            Kind::Run => transcript.steps.extend(steps(&block)?),
            Kind::Serve => {
                let mut shown = steps(&block)?;
                let one = shown.len() == 1 && transcript.serve.is_none();
                ensure!(one, "line {number}: there must be one command that serves");
                transcript.serve = shown.pop();
            }
        }
    }
    Ok(transcript)
}

/// A misspelt mark is refused, so that it cannot hide a block.
fn kind(number: usize, info: &str) -> Result<Kind> {
    match info {
        "console" => Ok(Kind::Run),
        "console serve" => Ok(Kind::Serve),
        "console no-e2e" => Ok(Kind::Skipped),
        other if other.starts_with("console") => {
            bail!(
                "line {number}: `{other}` is none of `console`, `console serve`, `console no-e2e`"
            )
        }
        _ => Ok(Kind::Skipped),
    }
}

fn steps(block: &[(usize, &str)]) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for &(number, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: number,
                command: command.to_owned(),
                printed: Vec::new(),
            });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            bail!("line {number}: a console block begins with `$ ` and a command");
        };
        match continuation(step, line) {
            Some(rest) => {
                step.command.push('\n');
                step.command.push_str(rest);
            }
            None => step.printed.push(line.to_owned()),
        }
    }
    Ok(steps)
}

/// The part of the command that a line holds, if it belongs to the command.
fn continuation<'a>(step: &Step, line: &'a str) -> Option<&'a str> {
    if !step.printed.is_empty() {
        return None;
    }
    let prompted = line.strip_prefix("> ").or((line == ">").then_some(""));
    let open = step.command.ends_with('\\');
    prompted.or(open.then_some(line))
}

/// Whether an output is what is shown, with `...` for any lines.
pub(super) fn matches(shown: &[String], printed: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else {
        return printed.is_empty();
    };
    if first.trim() == "..." {
        return (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]));
    }
    printed
        .split_first()
        .is_some_and(|(line, others)| line == first && matches(rest, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn commands_and_outputs_are_told_apart() {
        let page = "# A\n```console\n$ one\nout\n\nmore\n$ two\n```\n$ not this\n";
        let transcript = read(page).unwrap();
        assert_eq!(
            transcript.steps,
            [
                Step {
                    line: 3,
                    command: "one".to_owned(),
                    printed: owned(&["out", "", "more"]),
                },
                Step {
                    line: 7,
                    command: "two".to_owned(),
                    printed: Vec::new(),
                },
            ]
        );
    }

    #[test]
    fn a_command_goes_on_after_a_backslash_and_a_prompt() {
        let page = "```console\n$ a \\\n    b\nout\n$ cat <<E\n> one\n>\n> E\none\n```\n";
        let steps = read(page).unwrap().steps;
        assert_eq!(steps[0].command, "a \\\n    b");
        assert_eq!(steps[0].printed, owned(&["out"]));
        assert_eq!(steps[1].command, "cat <<E\none\n\nE");
        assert_eq!(steps[1].printed, owned(&["one"]));
    }

    #[test]
    fn other_blocks_are_not_run() {
        let page = "```sh\n$ one\n```\n```console no-e2e\n$ two\n```\n```\n$ three\n```\n";
        assert_eq!(read(page).unwrap(), Transcript::default());
    }

    #[test]
    fn the_command_that_serves_stands_apart() {
        let page = "```console serve\n$ cargo run\nhello\n```\n";
        let transcript = read(page).unwrap();
        assert_eq!(transcript.serve.unwrap().printed, owned(&["hello"]));
        assert!(read(&page.repeat(2)).is_err());
    }

    #[test]
    fn what_could_hide_a_command_is_refused() {
        assert!(read("```console noe2e\n$ one\n```\n").is_err());
        assert!(read("```console\none\n```\n").is_err());
    }

    #[test]
    fn dots_stand_for_any_lines() {
        let printed = owned(&["a", "b", "c"]);
        assert!(matches(&owned(&["a", "b", "c"]), &printed));
        assert!(matches(&owned(&["a", "..."]), &printed));
        assert!(matches(&owned(&["...", "c", "  ..."]), &printed));
        assert!(!matches(&owned(&["a", "...", "d"]), &printed));
        assert!(!matches(&owned(&["a", "b"]), &printed));
        assert!(!matches(&owned(&["a", "b", "c", "d"]), &printed));
    }
}
