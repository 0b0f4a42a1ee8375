//! The terminal: lines in, lines out, without one tearing the other.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc;

/// Lines that were typed and wait.
pub(crate) const LINES: usize = 16;

/// Where lines are shown.
pub(crate) struct Screen(Output);

enum Output {
    /// Above the line that is being edited.
    Terminal(Box<dyn ExternalPrinter + Send>),
    Plain,
}

impl Screen {
    /// Whether what is typed stays on the screen.
    pub(crate) fn echoes(&self) -> bool {
        matches!(self.0, Output::Terminal(_))
    }

    /// Shows one line. Its text must be escaped.
    pub(crate) fn show(&mut self, line: &str) -> anyhow::Result<()> {
        match &mut self.0 {
            Output::Terminal(printer) => printer.print(format!("{line}\n"))?,
            Output::Plain => {
                let mut output = std::io::stdout().lock();
                writeln!(output, "{line}")?;
                output.flush()?;
            }
        }
        Ok(())
    }
}

/// The screen, and the lines that are typed; they end with the input. The reader
/// is a thread that may stay blocked: it ends with the process.
pub(crate) fn open() -> anyhow::Result<(Screen, mpsc::Receiver<String>)> {
    let (lines, receiver) = mpsc::channel(LINES);
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        std::thread::spawn(move || read_plain(&lines));
        return Ok((Screen(Output::Plain), receiver));
    }
    let mut editor = DefaultEditor::new()?;
    let printer = Box::new(editor.create_external_printer()?);
    std::thread::spawn(move || edit(&mut editor, &lines));
    Ok((Screen(Output::Terminal(printer)), receiver))
}

fn read_plain(lines: &mpsc::Sender<String>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

fn edit(editor: &mut DefaultEditor, lines: &mpsc::Sender<String>) {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // A line that is not remembered is only less convenient.
                let _remembered = editor.add_history_entry(&line);
                if lines.blocking_send(line).is_err() {
                    return;
                }
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return,
            Err(error) => {
                tracing::warn!(error = %error, "the terminal cannot be read");
                return;
            }
        }
    }
}
