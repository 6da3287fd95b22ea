//! The host-side half of the process engine: everything about a replica except starting and reaping it.
//!
//! Owns: what a replica needs before it is started ([`ports`], [`user`], [`environment`], [`resolve`], [`netns`],
//! `cgroups`, [`logs`]), and the observation of who listens where once it runs ([`listener`]).
//!
//! Never: forks, signals or reaps a replica. The keeper does that, so that a replica outlives the agent; this module
//! prepares what the keeper is asked to start, and looks at the result.
//!
//! In each part the reading of formats (`/proc`, `/etc/passwd`, shebang lines, routes) is a pure function beside the
//! code that opens the files. Calls here block for microseconds to a few milliseconds; those that can take longer
//! are async and bounded by a named constant.

use std::fmt;

pub(crate) mod cgroups;
pub mod environment;
pub(crate) mod heartbeat;
pub mod listener;
pub mod logs;
pub mod memory;
pub mod netns;
pub mod ports;
pub mod resolve;
pub mod user;

/// Names a replica's process tree: each of its processes inherits it, whatever group or session it moves to.
///
/// The value is the replica's full id together with its project, chosen by whoever starts it.
pub const TASK_VARIABLE: &str = "BULSA_TASK";

/// Why a service can't be started as its file says, found before anything was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartProblem {
    /// The service's name in the compose file.
    pub service: String,
    /// Where it stands (`compose.yaml:12:3`); empty where there is no file (`bulsa run`).
    pub position: String,
    /// What is wrong: what was looked for, and where.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.position.is_empty() {
            write!(f, "{}: ", self.position)?;
        }
        write!(f, "service `{}`: {}; {}", self.service, self.problem, self.hint)
    }
}

impl std::error::Error for StartProblem {}

/// Whom a [`StartProblem`] is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The service's name in the compose file.
    pub service: &'a str,
    /// Where it stands (`compose.yaml:12:3`), or empty.
    pub position: &'a str,
}

impl Subject<'_> {
    fn problem(&self, problem: impl Into<String>, hint: impl Into<String>) -> StartProblem {
        StartProblem {
            service: self.service.to_owned(),
            position: self.position.to_owned(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}
