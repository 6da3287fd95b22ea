//! Running other programs, and saying what is done.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Why a chore ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The command line makes no sense.
    #[error("that is no command\n\n{0}")]
    Usage(String),
    /// A program that was run says so, with this exit code, and has said why.
    #[error("a command failed with exit code {0}")]
    Exit(u8),
    /// A program could not be run, or a file not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl Trouble {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// What this program exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Exit(code) => *code,
            Self::Io { .. } | Self::Other(_) => 1,
        })
    }
}

/// A line for whoever watches, on standard error.
pub(crate) fn say(text: &str) {
    // Nobody is left to tell where standard error is closed.
    writeln!(io::stderr().lock(), "{}", text.trim_end()).ok();
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// Whether a program of that name can be found.
pub(crate) fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// Says the command and runs it with our standard streams; [`Trouble::Exit`] passes its exit code on.
pub(crate) fn run(command: &mut Command) -> Result<(), Trouble> {
    say(&format!("$ {}", in_words(command)));
    let what = format!("can't run {}", command.get_program().display());
    let status = command.status().map_err(Trouble::io(what))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Trouble::Exit(u8::try_from(code).unwrap_or(1))),
        None => Err(Trouble::Other(format!("{} was ended by a signal", in_words(command)))),
    }
}

/// Whether the command ends well; what it writes is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// What a command writes to standard output, as text. It has no terminal on any stream.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Trouble> {
    let what = format!("can't run {}", in_words(command));
    let output = command.stdin(Stdio::null()).output().map_err(Trouble::io(what))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Trouble::Other(format!("{} failed ({}): {said}", in_words(command), output.status)));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Trouble::Other(format!("{} wrote something that isn't UTF-8", in_words(command))))
}

/// Builds the `bulsa` program in the manner of this one (debug or release), and says where it is.
pub(crate) fn built_bulsa() -> Result<PathBuf, Trouble> {
    let mut command = cargo();
    // Together with this program, so that both builds have the same features and share everything.
    command.args(["build", "--quiet", "--package", "bulsa", "--package", "xtask", "--bin", "bulsa"]);
    command.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let messages = output_of(&mut command)?;
    let is_ours = |message: &serde_json::Value| {
        message["reason"] == "compiler-artifact" && message["target"]["name"] == "bulsa"
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(is_ours)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Trouble::Other("cargo built no `bulsa`".to_owned()))
}

fn in_words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
