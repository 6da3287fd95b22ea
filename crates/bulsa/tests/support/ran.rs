//! Commands and how they ended.

use std::process::{Command, Output};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn new(what: String, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { what, code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn of(command: &mut Command) -> Self {
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        let what = format!("{} {}", command.get_program().display(), words.collect::<Vec<_>>().join(" "));
        match command.output() {
            Ok(output) => Self::new(what, output),
            Err(error) => panic!("`{what}` can't be run: {error}"),
        }
    }

    /// Fails the test where the exit code is another one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "`{}` said:\n{}{}", self.what, self.out, self.err);
        self
    }

    /// All that it said.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Fails the test where one of the texts isn't in what the command said.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.said().contains(text), "`{}` does not say `{text}`:\n{}", self.what, self.said());
        }
        self
    }
}
