//! `bulsa serve`: the daemon itself, in the foreground.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use super::context::Context;
use crate::keeper::Init;

/// Run the daemon in the foreground
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// In a session of its own: started by a command that goes on without it.
    #[arg(long, hide = true)]
    background: bool,
}

/// Where a daemon works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Its state directory, absolute; not made yet.
    pub state_dir: PathBuf,
    /// Its API's socket, absolute; its directory isn't made yet.
    pub socket: PathBuf,
    /// Whether it was started in the background, by `up` or `run`.
    pub background: bool,
    /// Of a container's first process: what it was started for.
    pub init: Option<Init>,
}

impl ServeOptions {
    /// The arguments of the agent's process, behind the program: the keeper starts agents with these.
    #[must_use]
    pub fn agent_args(&self) -> Vec<OsString> {
        self.args("__agent")
    }

    /// The arguments of the keeper's process, behind the program: `bulsa serve` becomes it.
    #[must_use]
    pub fn keeper_args(&self) -> Vec<OsString> {
        let mut args = self.args("__keeper");
        if let Some(Init { command, stop_limit }) = &self.init {
            args.push(stop_limit.as_millis().to_string().into());
            args.extend(command.iter().cloned());
        }
        args
    }

    fn args(&self, part: &str) -> Vec<OsString> {
        let (state_dir, socket) = (self.state_dir.clone(), self.socket.clone());
        vec![part.into(), state_dir.into_os_string(), socket.into_os_string()]
    }

    /// Reads back what stands behind the part's name.
    pub(super) fn from_args(args: &[OsString]) -> Option<Self> {
        let [state_dir, socket, rest @ ..] = args else { return None };
        let init = match rest {
            [] => None,
            [limit, command @ ..] => Some(Init {
                command: command.to_vec(),
                stop_limit: Duration::from_millis(limit.to_str()?.parse().ok()?),
            }),
        };
        Some(Self { state_dir: state_dir.into(), socket: socket.into(), background: false, init })
    }
}

/// Decides where, and leaves the terminal's session when started in the background.
pub(super) fn options(args: &ServeArgs, context: &Context<'_>) -> ServeOptions {
    if args.background {
        // It only fails for the leader of a group, which then is out of the terminal's reach already.
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "the daemon keeps its session");
        }
    }
    ServeOptions {
        state_dir: context.paths.state_dir.clone(),
        socket: context.paths.own_socket().to_path_buf(),
        background: args.background,
        init: None,
    }
}
