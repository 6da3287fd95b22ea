//! The messages on the links. Descriptors that travel beside a message are named in its doc.

use serde::{Deserialize, Serialize};

/// The version of everything in this file. Both ends of a link say it first.
pub const PROTOCOL: u32 = 1;

/// The longest id of a replica, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// The longest name of a set of sockets, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The longest note of a replica, in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was not our child (adopted from a dead keeper), so the kernel tells nobody.
    Unknown,
}

/// What to start. Sent as a sealed memfd of at most [`super::memfd::MAX_SPEC_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnSpec {
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment; the keeper adds `BULSA_KEEPER`, `BULSA_TASK` and `BULSA_NOTE` only.
    pub env: Vec<(String, String)>,
    /// Where it starts; the keeper's own directory if absent.
    pub cwd: Option<String>,
    /// The user to become, resolved by the agent.
    pub uid: Option<u32>,
    /// The group to become.
    pub gid: Option<u32>,
    /// The supplementary groups to have instead of the keeper's. Looked at when `uid` or `gid` is given.
    pub groups: Vec<u32>,
    /// The files through which it enters its control groups before anything else (`…/cgroup.procs`).
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// Opaque to the keeper; it comes back with the replica, also after the death of agent or keeper.
    pub note: String,
}

/// A running replica, as the keeper knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// The agent's id for it.
    pub id: String,
    /// The leader of its process group.
    pub pid: i32,
    /// The kernel start time of the leader, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// Whether this keeper took it over from a dead one; its exit status will be unknown.
    pub adopted: bool,
    /// The note given at its spawn.
    pub note: String,
}

/// The end of a replica. Kept by the keeper until acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The agent's id for it.
    pub id: String,
    /// The leader's pid.
    pub pid: i32,
    /// The kernel start time of the leader, in clock ticks since boot.
    pub start_time: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// When the keeper saw it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What the agent tells the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToKeeper {
    /// The first message; the keeper answers with [`FromKeeper::Welcome`] and all it keeps.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
    },
    /// Keep these sockets (beside the message) and give them to every proxy. A name in use is replaced.
    KeepSocket {
        /// An opaque name.
        name: String,
        /// Another message with more sockets of this name follows at once.
        more: bool,
    },
    /// Close these sockets and tell every proxy to do so.
    DropSocket {
        /// Their name.
        name: String,
    },
    /// Keep this route table (a sealed memfd beside the message) and give it to every proxy.
    SetTable {
        /// Its number.
        number: u64,
    },
    /// Start a replica. Beside the message: the [`SpawnSpec`] memfd, the log file, and, if wanted, a network namespace.
    Spawn {
        /// A new id.
        id: String,
    },
    /// Send a signal to a replica.
    Signal {
        /// Which replica.
        id: String,
        /// The signal's number.
        signal: i32,
        /// To its whole process group.
        group: bool,
    },
    /// The exit record of this replica is no longer needed.
    AckExit {
        /// Which replica.
        id: String,
    },
    /// Kill a proxy that went silent.
    KillProxy {
        /// Which one.
        generation: u64,
    },
    /// End the daemon: with its replicas and proxies, or leaving them for a successor.
    Shutdown {
        /// Whether replicas and proxies end too.
        stop_replicas: bool,
    },
}

/// What the keeper tells the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromKeeper {
    /// The answer to `Hello`. Then come all sockets, the table, replicas, exits and proxies, then `Ready`.
    Welcome {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Counts the agents since the first.
        agent_number: u64,
        /// How the agent before this one ended, if this keeper saw it.
        previous_agent: Option<ExitStatus>,
        /// Exit records dropped because too many waited.
        exits_dropped: u64,
    },
    /// Kept sockets, beside the message.
    Socket {
        /// Their name.
        name: String,
        /// Another message with more sockets of this name follows at once.
        more: bool,
    },
    /// The kept route table, beside the message.
    Table {
        /// Its number.
        number: u64,
    },
    /// A running replica.
    Replica(ReplicaInfo),
    /// A running proxy; beside the message the link to it.
    Proxy {
        /// Its generation.
        generation: u64,
        /// Its pid.
        pid: i32,
    },
    /// The end of what was kept; what follows happens now.
    Ready,
    /// The keeper has this route table. Every proxy that it started before has been told of in a message before this
    /// one, and every one that it starts later begins with this table.
    TableKept {
        /// The table's number.
        number: u64,
    },
    /// A replica runs. Also the answer to a `Spawn` whose id runs already.
    Spawned {
        /// Which replica.
        id: String,
        /// Its pid, also its process group.
        pid: i32,
        /// Its kernel start time, in clock ticks since boot.
        start_time: u64,
    },
    /// A replica could not be started; nothing of it is left.
    SpawnFailed {
        /// Which replica.
        id: String,
        /// Why, for people.
        error: String,
    },
    /// A replica ended and what was left of its group was killed.
    Exited(ExitRecord),
    /// A proxy was started; beside the message the link to it.
    ProxyUp {
        /// Its generation.
        generation: u64,
        /// Its pid.
        pid: i32,
    },
    /// A proxy ended.
    ProxyDown {
        /// Its generation.
        generation: u64,
        /// How.
        status: ExitStatus,
    },
    /// The daemon is asked to end: stop the replicas, then say `Shutdown`.
    ShuttingDown {
        /// When the keeper stops waiting, in milliseconds from now.
        limit_ms: u64,
    },
}

/// What a keeper tells a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProxy {
    /// The first message to a new proxy. Beside it: the listening socket for a successor of the keeper.
    Start {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Its generation.
        generation: u64,
        /// The keeper's user, the only one but root that may take the proxy over.
        owner: u32,
    },
    /// Serve these listening sockets, beside the message. A name in use is replaced.
    Socket {
        /// Their name.
        name: String,
        /// Another message with more sockets of this name follows at once.
        more: bool,
    },
    /// Stop accepting on these sockets and close them.
    DropSocket {
        /// Their name.
        name: String,
    },
    /// Serve this route table (a sealed memfd, beside the message) unless a newer one is served.
    Table {
        /// Its number.
        number: u64,
    },
    /// A new agent; beside the message the link to it. The link before it is obsolete.
    AgentLink {
        /// Its number.
        agent: u64,
    },
    /// Finish what is in flight, and end.
    Stop {
        /// How long at most, in milliseconds.
        grace_ms: u64,
    },
    /// First message of a successor of the keeper: hand over everything. This is then the keeper link.
    TakeOver {
        /// [`PROTOCOL`].
        protocol: u32,
    },
}

/// What a proxy tells the successor of a keeper, in answer to [`ToProxy::TakeOver`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromProxy {
    /// The first message.
    TakenOver {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Its generation.
        generation: u64,
        /// Its pid.
        pid: i32,
    },
    /// Sockets that it serves, beside the message.
    Socket {
        /// Their name.
        name: String,
        /// Another message with more sockets of this name follows at once.
        more: bool,
    },
    /// The newest route table that it was given, beside the message.
    Table {
        /// Its number.
        number: u64,
    },
    /// The end of the handover.
    Done,
}

/// What an agent tells a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentToProxy {
    /// Serve this route table (a sealed memfd, beside the message) unless a newer one is served.
    Table {
        /// Its number.
        number: u64,
    },
    /// Append the access log to this file, beside the message, from now on. Not sent to a proxy whose reports do not say
    /// that it keeps one.
    AccessLog {
        /// No more than this, in bytes, though nobody gives it another file.
        bytes_max: u64,
    },
    /// Answer with a `Pong`.
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
}

/// What a proxy tells an agent. A report that is too long for a message is a sealed memfd beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyToAgent<R> {
    /// The first message on a fresh link.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The proxy's generation.
        generation: u64,
        /// Its state.
        report: Option<R>,
    },
    /// Something changed.
    Report {
        /// Its state.
        report: Option<R>,
    },
    /// The answer to a `Ping`.
    Pong {
        /// From the `Ping`.
        nonce: u64,
        /// Its state.
        report: Option<R>,
    },
    /// A route table was not taken; the one before it is still served.
    TableRefused {
        /// Its number.
        number: u64,
        /// Why.
        error: String,
    },
}
