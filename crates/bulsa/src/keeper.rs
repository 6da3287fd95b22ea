//! The keeper: the process that must not die, and so does nothing that could kill it.
//!
//! ```text
//!            signals ──▶ ┌────────┐ ◀── agent link ──▶ agent
//!   exits of children ──▶ │ keeper │ ◀── proxy links ─▶ proxies
//!  pidfds of adopted ──▶ └────────┘ ──▶ replicas (spawn, signal, reap)
//! ```
//!
//! It owns: the listening sockets under opaque names, the last route table (a sealed memfd that it never reads),
//! the replicas, and the exit records that no agent has acknowledged yet. It restarts agent and proxy with
//! back-off. One thread, one `poll(2)`, no async runtime; it reads nothing from the network, and waits for
//! nobody: links do not block, and a peer that does not read is killed and started again.
//!
//! What holds when any of the three is killed at any instruction:
//! - *Agent.* All that it had sent is worked off before its successor is welcomed, and the successor is told all
//!   that is kept. Asking twice for one replica starts one.
//! - *Proxy.* The next one gets the same sockets; connections queue in the kernel meanwhile.
//! - *Keeper.* Everybody else goes on. The lock file is held by each child until it has reached its program, so
//!   a successor that has the lock finds every process of its predecessor by environment or journal
//!   (`adopt`), ends the old agent, and takes the sockets from a living proxy (`takeover`).
//! - *Replica.* The leader's pid stays reserved until its group is killed: the keeper looks at a dead child
//!   without reaping it, kills the group, then reaps (`reap`). Children that left the group come to the
//!   keeper as orphans (it is a subreaper), and are killed when their replica is gone.
//!
//! It never: opens a socket for the network, reads a route table, decides when a replica starts or stops, or
//! sets a parent-death signal: the others must survive it.
//!
//! Readiness to systemd and its FD store belong beside `startup` and come with the installer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use rustix::process::Rlimit;

use crate::link::lock::{FileLock, LockError};

pub use self::attendant::{ATTENDANT_ROLE, Init, KILLED_CODE};
pub use self::marker::{KEEPER_ENV, ROLE_ENV};

mod adopt;
mod agents;
mod attendant;
mod backoff;
mod events;
mod journal;
mod log;
pub mod marker;
mod peer;
pub(crate) mod procfs;
mod proxies;
mod reap;
mod replicas;
mod requests;
mod shutdown;
mod signals;
mod spawn;
mod startup;
mod takeover;
mod unsafe_exec;

/// The name of the keeper's lock file in the state directory.
pub const KEEPER_LOCK: &str = "keeper.lock";
/// The name of the agent's lock file in the state directory.
pub const AGENT_LOCK: &str = "agent.lock";

/// How to run a keeper.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory; made (0700) when missing.
    pub state_dir: PathBuf,
    /// Program and arguments of the agent. It gets its link as standard input.
    pub agent: Vec<OsString>,
    /// Program and arguments of the proxy. It gets its link as standard input.
    pub proxy: Vec<OsString>,
    /// Of a container's first process: what it was started for.
    pub init: Option<Init>,
}

impl Config {
    /// Agent and proxy from this very binary, even when its file was replaced meanwhile.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        let this = |command: &str| vec![OsString::from("/proc/self/exe"), OsString::from(command)];
        Self { state_dir, agent: this("__agent"), proxy: this("__proxy"), init: None }
    }
}

/// Why a keeper cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper has this state directory.
    #[error("a daemon is already running here (process {pid}, state directory {dir})", dir = dir.display())]
    AlreadyRunning {
        /// The other keeper; 0 when it is unknown.
        pid: i32,
        /// The state directory.
        dir: PathBuf,
    },
    /// The state directory cannot be used.
    #[error("the state directory {dir} cannot be used: {error}", dir = dir.display())]
    StateDir {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The configuration names no program.
    #[error("no program is given for the {0}")]
    NoProgram(&'static str),
    /// The kernel refused something that the keeper cannot do without.
    #[error("the keeper cannot {doing}: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl From<(LockError, PathBuf)> for KeeperError {
    fn from((error, dir): (LockError, PathBuf)) -> Self {
        match error {
            LockError::Held { pid, .. } => Self::AlreadyRunning { pid, dir },
            LockError::Io { error, .. } => Self::StateDir { dir, error },
        }
    }
}

/// Runs a keeper until it is told to end, by a signal or by its agent; then what the process ends with.
///
/// Call it from a process with one thread and no async runtime.
///
/// # Errors
/// When it cannot start; nothing was started or taken over then.
pub fn run(config: Config) -> Result<u8, KeeperError> {
    let named = rustix::thread::set_name(c"bulsa-keeper").map_err(io::Error::from);
    named.map_err(|error| KeeperError::System { doing: "name itself", error })?;
    let mut keeper = startup::start(config)?;
    while keeper.ending.is_none() {
        keeper.turn(None);
    }
    keeper.finish();
    Ok(keeper.attendant.map_or(0, |attendant| attendant.code()))
}

/// How the keeper ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    /// Replicas and proxies end too; else they go on for a successor.
    stop_replicas: bool,
    /// The agent has already stopped the replicas it could.
    agent_did: bool,
}

#[derive(Debug)]
struct Keeper {
    config: Config,
    marker: marker::Marker,
    run_dir: OwnedFd,
    open_files: Rlimit,
    signals: signals::Signals,
    sockets: BTreeMap<String, peer::SharedFds>,
    table: Option<(u64, Rc<OwnedFd>)>,
    replicas: replicas::Replicas,
    agents: agents::Agents,
    proxies: proxies::Proxies,
    attendant: Option<attendant::Attendant>,
    /// The agent was asked to stop everything; after this the keeper does it.
    stop_by: Option<Instant>,
    ending: Option<Ending>,
    /// Released last, when everything above is gone.
    _lock: FileLock,
}
