//! `bulsa serve`: the daemon itself, in the foreground.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::context::Context;

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
        self.args("__keeper")
    }

    fn args(&self, part: &str) -> Vec<OsString> {
        let (state_dir, socket) = (self.state_dir.clone(), self.socket.clone());
        vec![part.into(), state_dir.into_os_string(), socket.into_os_string()]
    }

    /// Reads back what stands behind the part's name.
    pub(super) fn from_args(args: &[OsString]) -> Option<Self> {
        let [state_dir, socket] = args else { return None };
        Some(Self { state_dir: state_dir.into(), socket: socket.into(), background: false })
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
    }
}
