//! Errors as people and scripts meet them: one sentence, its causes, what to do, and an exit code.
//!
//! Owns: the documented [`ExitCode`]s and the one place that maps each kind of failure to one. Never: prints (that is
//! [`crate::output`]).

use std::io;

use serde::Serialize;

use crate::client::ClientError;

/// What the command's exit code means. A contract: numbers are never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or nothing had to be done.
    Done = 0,
    /// Something in the project, the file or the request is wrong, and nothing was begun; or what was begun isn't done
    /// in time, and goes on. The error says which.
    UserError = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The deploy failed, and the release before it serves.
    DeployFailed = 3,
    /// Denied: something else is going on.
    Denied = 4,
    /// The daemon can't be reached.
    Unreachable = 5,
    /// `status`: a service isn't as it should be.
    Degraded = 6,
    /// The deploy failed, and the service is down.
    ServiceDown = 7,
    /// A bug in Bulsa.
    Bug = 70,
    /// As a container's first process: told to end, and a worker that didn't was killed.
    Killed = 137,
}

impl ExitCode {
    /// Every exit code, with its line of documentation: for the manual, the help and the test that keeps them whole.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Done, "done"),
        (Self::UserError, "user or project error: nothing was begun; or not done in time: it goes on"),
        (Self::Usage, "wrong command line"),
        (Self::DeployFailed, "deploy failed, the old release serves"),
        (Self::Denied, "denied: another deploy runs, …"),
        (Self::Unreachable, "daemon unreachable"),
        (Self::Degraded, "degraded (`status`)"),
        (Self::ServiceDown, "deploy failed and the service is down"),
        (Self::Bug, "a bug in bulsa"),
        (Self::Killed, "as a container's first process: a worker outlived its time, and was killed"),
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code that a finished deployment gives to the command that waited for it; one that this version doesn't know
    /// is a plain failure.
    #[must_use]
    pub fn of_deploy(code: u8) -> Self {
        Self::ALL
            .iter()
            .map(|(known, _)| *known)
            .find(|known| known.code() == code)
            .unwrap_or(Self::UserError)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// Whose fault a failure is, or what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The user's or the project's.
    User,
    /// The command line's.
    Usage,
    /// A deploy that could not begin, and the release before it serves.
    DeployFailed,
    /// The same, and nothing serves.
    ServiceDown,
    /// Something else is going on.
    Denied,
    /// No daemon.
    Unreachable,
    /// Whoever read the output of a command that shows something has gone: nothing is wrong, and nobody is left to tell.
    /// A command that changes something goes on instead: see [`crate::output::Printer::persevere`].
    BrokenPipe,
    /// Ours.
    Bug,
}

impl ErrorKind {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(self) -> ExitCode {
        match self {
            Self::User => ExitCode::UserError,
            Self::Usage => ExitCode::Usage,
            Self::DeployFailed => ExitCode::DeployFailed,
            Self::ServiceDown => ExitCode::ServiceDown,
            Self::Denied => ExitCode::Denied,
            Self::Unreachable => ExitCode::Unreachable,
            Self::BrokenPipe => ExitCode::Done,
            Self::Bug => ExitCode::Bug,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What failed: a fragment that follows `error: `.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error of that kind, with nothing but its message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// The user's or the project's fault.
    #[must_use]
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    /// Our fault.
    #[must_use]
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
            .hint("this is a bug in bulsa: please report it with the command that you ran")
    }

    /// With one more cause.
    #[must_use]
    pub fn cause(mut self, cause: impl ToString) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// With one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// As JSON, for `--json`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "kind": self.kind,
            "message": self.message,
            "causes": self.causes,
            "hints": self.hints,
            "exit_code": self.kind.exit_code().code(),
        }})
    }
}

impl From<io::Error> for CommandError {
    /// For output only: everything else names its file first.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(ErrorKind::BrokenPipe, "nobody reads the output")
        } else {
            Self::user("can't write the output").cause(error)
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoDaemon { .. } => Self::new(ErrorKind::Unreachable, message)
                .hint("start it with `bulsa up` in a project, or with `bulsa serve`")
                .hint("a daemon that listens elsewhere is found with `--socket PATH` or `--state-dir DIR`"),
            ClientError::NotAllowed { .. } => Self::new(ErrorKind::Unreachable, message)
                .hint("run the command as that user or as root, or use a daemon of your own with `--state-dir DIR`"),
            ClientError::Unusable { .. } => Self::new(ErrorKind::Unreachable, message),
            ClientError::Lost { .. } => Self::new(ErrorKind::Unreachable, message)
                .hint("what was begun goes on without this command: see `bulsa status`"),
            ClientError::TimedOut { .. } => Self::new(ErrorKind::Unreachable, message)
                .hint("replicas and traffic don't depend on it; see its log, `daemon.log` in the state directory"),
            ClientError::Api { status, error } => {
                let kind = if status.is_server_error() { ErrorKind::Unreachable } else { ErrorKind::User };
                let report = Self::new(kind, message);
                error.hint.into_iter().fold(report, Self::hint)
            }
            ClientError::Unreadable { .. } => Self::new(ErrorKind::Bug, message)
                .hint("compare `bulsa --version` with the version in `bulsa status`, and use the daemon's own bulsa"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bulsa_core::wire::api::ApiError;
    use http::StatusCode;

    use super::*;

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|(code, _)| code.code()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 70, 137]);
        for (code, _) in ExitCode::ALL {
            assert_eq!(ExitCode::of_deploy(code.code()), *code);
        }
        assert_eq!(ExitCode::of_deploy(99), ExitCode::UserError);
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let code = |kind: ErrorKind| kind.exit_code().code();
        assert_eq!(code(ErrorKind::User), 1);
        assert_eq!(code(ErrorKind::Usage), 2);
        assert_eq!(code(ErrorKind::Denied), 4);
        assert_eq!(code(ErrorKind::Unreachable), 5);
        assert_eq!(code(ErrorKind::BrokenPipe), 0);
        assert_eq!(code(ErrorKind::Bug), 70);
    }

    #[test]
    fn a_missing_daemon_exits_5_and_says_how_to_start_one() {
        let error =
            CommandError::from(ClientError::NoDaemon { sockets: vec![PathBuf::from("/run/bulsa/api.sock")] });
        assert_eq!(error.kind.exit_code(), ExitCode::Unreachable);
        assert!(error.message.contains("/run/bulsa/api.sock"), "{error:?}");
        assert!(error.hints[0].contains("bulsa up"), "{error:?}");
    }

    #[test]
    fn the_daemons_own_errors_keep_their_words_and_hints() {
        let api = |status| ClientError::Api {
            status,
            error: ApiError { error: "no such service".to_owned(), hint: Some("look".to_owned()) },
        };
        let error = CommandError::from(api(StatusCode::NOT_FOUND));
        assert_eq!(
            (error.kind, error.message.as_str(), error.hints.as_slice()),
            (ErrorKind::User, "no such service", ["look".to_owned()].as_slice())
        );
        assert_eq!(CommandError::from(api(StatusCode::SERVICE_UNAVAILABLE)).kind, ErrorKind::Unreachable);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let error = CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind.exit_code(), ExitCode::Done);
    }
}
