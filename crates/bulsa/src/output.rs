//! The one place that writes to the terminal.
//!
//! Owns: what goes to stdout and what to stderr, in which of the three manners (for people, as JSON, quiet), colours,
//! tables, times, and the live progress line. Never: decides what is said.
//!
//! stdout carries data only: what the command was asked for. Diagnostics, progress and errors go to stderr, so that a
//! pipe sees nothing but data. With `--json` data is one object, or one a line for streams, and errors are objects too.
//! Colours carry no meaning of their own; they are left out when a stream is no terminal, with `--no-color`, and with
//! `NO_COLOR`. Text shows local time with its offset, JSON both milliseconds and UTC.

mod progress;
mod table;
mod time;

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub use self::{
    progress::Progress,
    table::{Cell, Table},
    time::Clock,
};
use crate::report::CommandError;

/// How things are said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Data as JSON.
    pub json: bool,
    /// No progress and no remarks; data and errors only.
    pub quiet: bool,
    /// No colours even on a terminal.
    pub no_color: bool,
}

/// What a piece of text means, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Broken.
    Bad,
    /// Less important than what is around it.
    Dim,
    /// A heading.
    Strong,
    /// Nothing special.
    Plain,
}

impl Tone {
    /// `text` in this tone, with escapes; the printer takes them out where they don't belong.
    #[must_use]
    pub fn paint(self, text: &str) -> String {
        let style = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}

/// Writes to stdout and stderr.
pub struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_colors: bool,
    err_colors: bool,
    live: bool,
    /// What can't be written is left out.
    perseveres: bool,
    manner: Manner,
    clock: Clock,
}

impl Printer {
    /// On the process's own stdout and stderr.
    #[must_use]
    pub fn stdio(manner: Manner) -> Self {
        let allowed = |choice| !manner.no_color && choice != anstream::ColorChoice::Never;
        Self {
            out_colors: allowed(anstream::AutoStream::choice(&io::stdout())),
            err_colors: allowed(anstream::AutoStream::choice(&io::stderr())),
            live: io::stderr().is_terminal() && !manner.json && !manner.quiet,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            perseveres: false,
            manner,
            clock: Clock::local(),
        }
    }

    /// On other streams, without colours.
    #[must_use]
    pub fn on(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, manner: Manner, clock: Clock) -> Self {
        Self { out, err, out_colors: false, err_colors: false, live: false, perseveres: false, manner, clock }
    }

    /// Whether what can't be written is left out without a word from here on: the reader of a command that changes
    /// something may go away and its log's disk may be full, and what it began is followed to its end all the same.
    pub const fn persevere(&mut self, on: bool) {
        self.perseveres = on;
    }

    /// What became of something that was written.
    fn written(&self, result: io::Result<()>) -> Result<(), CommandError> {
        match result {
            Err(_) if self.perseveres => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether data is wanted as JSON.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.manner.json
    }

    /// How times are written.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Data: `text` for people, or `object` as JSON on one line.
    ///
    /// # Errors
    /// When stdout can't be written; a closed pipe is [`crate::report::ErrorKind::BrokenPipe`].
    pub fn data<T: Serialize>(
        &mut self,
        object: &T,
        text: impl FnOnce(&Clock) -> String,
    ) -> Result<(), CommandError> {
        if self.manner.json {
            return self.object(object);
        }
        let text = text(&self.clock);
        self.text(&text)
    }

    /// Data that is JSON whatever the manner.
    ///
    /// # Errors
    /// As [`Printer::data`].
    pub fn object<T: Serialize>(&mut self, object: &T) -> Result<(), CommandError> {
        let value = serde_json::to_value(object)
            .map_err(|error| CommandError::bug("can't write JSON").cause(error))?;
        let result = writeln!(self.out, "{}", time::with_utc(value)).and_then(|()| self.out.flush());
        self.written(result)
    }

    /// Data that is text whatever the manner. A line end is added where there is none.
    ///
    /// # Errors
    /// As [`Printer::data`].
    pub fn text(&mut self, text: &str) -> Result<(), CommandError> {
        let result = write_text(&mut self.out, text, self.out_colors);
        self.written(result)
    }

    /// A remark for people, on stderr; left out with `--quiet` and `--json`.
    ///
    /// # Errors
    /// When stderr can't be written.
    pub fn remark(&mut self, text: &str) -> Result<(), CommandError> {
        if self.remarks() { self.insist(text) } else { Ok(()) }
    }

    /// Whether [`Printer::remark`] shows anything.
    #[must_use]
    pub fn remarks(&self) -> bool {
        !self.manner.quiet && !self.manner.json
    }

    /// Something for people that even `--quiet` doesn't leave out, on stderr.
    ///
    /// # Errors
    /// When stderr can't be written.
    pub fn insist(&mut self, text: &str) -> Result<(), CommandError> {
        let result = write_text(&mut self.err, text, self.err_colors);
        self.written(result)
    }

    /// A warning, on stderr, whatever the manner.
    ///
    /// # Errors
    /// When stderr can't be written.
    pub fn warning(&mut self, text: &str) -> Result<(), CommandError> {
        if self.manner.json {
            let result = writeln!(self.err, "{}", serde_json::json!({ "warning": text }));
            return self.written(result);
        }
        self.insist(&format!("{} {text}", Tone::Warn.paint("warning:")))
    }

    /// An error, on stderr. A stderr that can't be written leaves only the exit code to tell.
    pub fn error(&mut self, error: &CommandError) {
        let result = if self.manner.json {
            writeln!(self.err, "{}", error.to_json())
        } else {
            write_text(&mut self.err, &error_text(error), self.err_colors)
        };
        drop(result);
    }

    /// The progress of something that takes a while: live on a terminal, plain lines in a pipe, objects with `--json`,
    /// and nothing with `--quiet`.
    #[must_use]
    pub fn progress(&mut self) -> Progress<'_> {
        Progress::new(self)
    }
}

fn write_text(to: &mut dyn Write, text: &str, colors: bool) -> io::Result<()> {
    if colors {
        to.write_all(text.as_bytes())?;
    } else {
        write!(to, "{}", anstream::adapter::strip_str(text))?;
    }
    if !text.ends_with('\n') && !text.is_empty() {
        to.write_all(b"\n")?;
    }
    to.flush()
}

fn error_text(error: &CommandError) -> String {
    let mut text = format!("{} {}\n", Tone::Bad.paint("error:"), error.message);
    for cause in &error.causes {
        text += &format!("caused by: {cause}\n");
    }
    for hint in &error.hints {
        text += &format!("{} {hint}\n", Tone::Good.paint("hint:"));
    }
    text
}

/// Streams that a test can look into.
#[cfg(test)]
pub(crate) mod captured {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::{Clock, Manner, Printer};

    /// What was written.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A printer with its stdout and stderr; it is half past nine on the first day of 2026, UTC.
    pub(crate) fn printer(manner: Manner) -> (Printer, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let clock = Clock::fixed(1_767_259_800_000);
        (Printer::on(Box::new(out.clone()), Box::new(err.clone()), manner, clock), out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::{captured::printer, *};

    fn error() -> CommandError {
        CommandError::user("`web` has no command").cause("compose.yaml:4:3").hint("add `command:`")
    }

    #[test]
    fn data_goes_to_stdout_and_everything_else_to_stderr() {
        let (mut printer, out, err) = printer(Manner::default());
        printer.data(&1, |_| Tone::Good.paint("one")).unwrap();
        printer.remark("by the way").unwrap();
        printer.warning("careful").unwrap();
        printer.error(&error());
        assert_eq!(out.text(), "one\n");
        insta::assert_snapshot!(err.text(), @r"
        by the way
        warning: careful
        error: `web` has no command
        caused by: compose.yaml:4:3
        hint: add `command:`
        ");
    }

    #[test]
    fn json_is_one_object_a_line_and_says_nothing_else_on_stdout() {
        let (mut printer, out, err) = printer(Manner { json: true, ..Manner::default() });
        printer.data(&serde_json::json!({"at_ms": 0, "n": 1}), |_| unreachable!()).unwrap();
        printer.remark("by the way").unwrap();
        printer.error(&error());
        assert_eq!(out.text(), "{\"at\":\"1970-01-01T00:00:00Z\",\"at_ms\":0,\"n\":1}\n");
        let reported: serde_json::Value = serde_json::from_str(&err.text()).unwrap();
        assert_eq!(reported["error"]["exit_code"], 1);
        assert_eq!(reported["error"]["hints"][0], "add `command:`");
    }

    #[test]
    fn what_cannot_be_written_ends_only_what_does_not_persevere() {
        let full = || Box::new(io::Cursor::new([0u8; 0]));
        let mut json = Manner { json: true, ..Manner::default() };
        for _ in 0..2 {
            json.json = !json.json;
            let mut printer = Printer::on(full(), full(), json, Clock::fixed(0));
            assert!(printer.text("data").is_err() && printer.warning("careful").is_err());
            printer.persevere(true);
            for said in
                [printer.text("data"), printer.object(&1), printer.remark("so"), printer.warning("so")]
            {
                assert_eq!(said, Ok(()));
            }
            printer.persevere(false);
            assert!(printer.object(&1).is_err() && printer.insist("so").is_err());
        }
    }

    #[test]
    fn quiet_leaves_data_and_errors() {
        let (mut printer, out, err) = printer(Manner { quiet: true, ..Manner::default() });
        printer.text("data").unwrap();
        printer.remark("by the way").unwrap();
        printer.error(&CommandError::user("broken"));
        assert_eq!((out.text().as_str(), err.text().as_str()), ("data\n", "error: broken\n"));
    }
}
