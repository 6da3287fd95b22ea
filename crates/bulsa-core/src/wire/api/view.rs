//! What is shown: the numbered snapshot of everything that runs.
//!
//! Owns: [`Snapshot`] and its parts. Never: is read back by anyone who decides.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{NotifyView, ProgressV1};

/// Everything there is to see, as of one moment. Immutable and numbered: a later one has a higher number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Counts the snapshots; goes on counting over restarts of the agent.
    pub number: u64,
    /// When it was published.
    pub at_ms: u64,
    /// Every project that the daemon runs, by name.
    pub projects: Vec<ProjectView>,
    /// Every proxy generation that lives.
    #[serde(default)]
    pub proxies: Vec<ProxyView>,
    /// The agent that published it.
    pub agent: AgentView,
    /// The keeper's process.
    pub keeper_pid: u32,
    /// The daemon's version: `0.1.0`.
    pub version: String,
}

impl Snapshot {
    /// The project of that name.
    #[must_use]
    pub fn project(&self, name: &str) -> Option<&ProjectView> {
        self.projects.iter().find(|project| project.name == name)
    }
}

/// The agent's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at_ms: u64,
    /// What the agent can't do right now, one sentence each: a full disk, a proxy that doesn't answer.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One proxy generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyView {
    /// Counted by the keeper.
    pub generation: u64,
    /// Its process.
    pub pid: u32,
    /// The route table that all of its threads run on.
    pub table: u64,
    /// Requests that it is serving.
    pub in_flight: u64,
    /// Tunnels that it keeps.
    pub tunnels: u64,
    /// Lines of the access log that it could not write.
    #[serde(default)]
    pub access_log_dropped: u64,
}

/// One project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    /// Its name.
    pub name: String,
    /// The release that users see; `None` before the first switch.
    #[serde(default)]
    pub live: Option<u32>,
    /// The releases that are known, oldest first.
    pub releases: Vec<ReleaseView>,
    /// The last deployments, oldest first, at most [`super::DEPLOYMENTS_SHOWN_MAX`]; only the last can be unfinished.
    #[serde(default)]
    pub deployments: Vec<DeploymentView>,
    /// Its services, by name.
    pub services: Vec<ServiceView>,
    /// Who is told of it, in the file's order, the heartbeat last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<NotifyView>,
}

impl ProjectView {
    /// The deployment that is going on.
    #[must_use]
    pub fn deploying(&self) -> Option<&DeploymentView> {
        self.deployments.iter().find(|deployment| deployment.finished.is_none())
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceView> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether a service isn't as it should be: `bulsa status` then exits 6.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.services.iter().any(|service| service.state.is_bad())
    }
}

/// One release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Counted from 1 within the project.
    pub id: u32,
    /// Where in its life it is.
    pub state: ReleaseState,
    /// `blue` or `green`, cosmetic.
    pub color: String,
    /// When it was made.
    pub created_at_ms: u64,
    /// The content hash of its spec, hexadecimal.
    pub hash: String,
}

/// Where in its life a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Its replicas are being started and gated; users don't see it.
    Starting,
    /// Users see it.
    Live,
    /// Replaced; its last requests and tunnels are being finished.
    Draining,
    /// Replaced, still running, for an instant rollback.
    Warm,
    /// Nothing of it runs; it can be brought back.
    Retired,
    /// It never passed its gate or was rolled back; nothing of it runs.
    Failed,
}

impl fmt::Display for ReleaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Warm => "warm",
            Self::Retired => "retired",
            Self::Failed => "failed",
        })
    }
}

/// One deployment: a run of the pipeline of ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Counted from 1 within the project.
    pub id: u32,
    /// What was asked.
    pub kind: DeployKind,
    /// Where it is: `starting`, `gate`, `switch`, `drain`, `bake`, `rolling back`.
    pub phase: String,
    /// The release that it brings live.
    pub candidate: u32,
    /// The release that was live before.
    #[serde(default)]
    pub previous: Option<u32>,
    /// When it began.
    pub since_ms: u64,
    /// What it said so far, oldest first, at most [`super::PROGRESS_LINES_MAX`].
    #[serde(default)]
    pub progress: Vec<ProgressV1>,
    /// How it ended.
    #[serde(default)]
    pub finished: Option<Finished>,
}

/// What a deployment was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployKind {
    /// A new release.
    Deploy,
    /// An earlier release again.
    Rollback,
}

impl fmt::Display for DeployKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        })
    }
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// When.
    pub at_ms: u64,
    /// How.
    pub outcome: Outcome,
    /// The exit code of a command that waited for it ([`Outcome::exit_code`]).
    pub exit_code: u8,
    /// Why, where it isn't `deployed`.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The four ends of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The candidate is live and passed its bake.
    Deployed,
    /// Traffic had moved to the candidate, and is back on the release before it.
    RolledBack,
    /// Traffic never moved, or there was nothing to move it back to.
    Failed,
    /// It was not begun.
    Refused,
}

impl Outcome {
    /// The exit code of the command that waited for it. `serving` says whether a release serves users now: 3 is a
    /// failed deploy with the old release serving, 7 one with the service down.
    #[must_use]
    pub const fn exit_code(self, serving: bool) -> u8 {
        match self {
            Self::Deployed => 0,
            Self::Refused => 1,
            Self::RolledBack | Self::Failed if serving => 3,
            Self::RolledBack | Self::Failed => 7,
        }
    }

    /// Reads back what [`fmt::Display`] wrote into a [`super::DeploymentRow`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Deployed, Self::RolledBack, Self::Failed, Self::Refused]
            .into_iter()
            .find(|o| o.to_string() == text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deployed => "deployed",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Refused => "refused",
        })
    }
}

/// One service of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name in the compose file.
    pub name: String,
    /// `app`, `shared`, `worker` or `job`.
    pub role: String,
    /// How many replicas it should have in the live release.
    pub desired: u32,
    /// How many of those are ready.
    pub ready: u32,
    /// How many of those a person stopped through the Engine: they stay so until somebody starts them.
    #[serde(default)]
    pub withheld: u32,
    /// How it is.
    pub state: ServiceState,
    /// Why it is so, where that needs words: `stopped by a human at …`, `exits 1 at once, 7 times in a row`.
    #[serde(default)]
    pub reason: Option<String>,
    /// What is found out about its health that restarts nothing: what it needs doesn't serve, its check can't be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// That a human wants its requests to wait in the proxy; `None` while nobody does.
    #[serde(default)]
    pub held: Option<HeldView>,
    /// Where users reach it: `http://localhost:8080`.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Restarts in its ledger.
    pub restarts: u64,
    /// When the next try is due, where a replica waits for one.
    #[serde(default)]
    pub next_retry_at_ms: Option<u64>,
    /// Its replicas, of every release that runs, live ones first.
    pub replicas: Vec<ReplicaView>,
}

/// A human's wish that a service's new requests wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    /// Since when.
    pub since_ms: u64,
    /// Whether every proxy does so: no further request reaches a replica.
    #[serde(default)]
    pub in_force: bool,
    /// How many requests and TCP connections wait, as the proxies said last.
    #[serde(default)]
    pub waiting: u64,
    /// How many were with a replica before and aren't done, as the proxies said last. WebSockets and the like don't count.
    #[serde(default)]
    pub in_flight: u64,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Its first replicas are on their way up.
    Starting,
    /// Every replica that it should have is ready.
    Healthy,
    /// Some are missing, and it serves.
    Degraded,
    /// Its replicas die faster than is worth starting them; tried again slowly.
    CrashLooping,
    /// None is ready.
    Down,
    /// A human stopped it.
    Stopped,
}

impl ServiceState {
    /// Whether `bulsa status` calls the project degraded because of it.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        match self {
            Self::Degraded | Self::CrashLooping | Self::Down => true,
            Self::Starting | Self::Healthy | Self::Stopped => false,
        }
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::CrashLooping => "crash-looping",
            Self::Down => "down",
            Self::Stopped => "stopped",
        })
    }
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Unique in the project: `web-r3-1.5`.
    pub id: String,
    /// What people call it: `web-r3-1`.
    pub name: String,
    /// Its release; 0 for a `shared` service.
    pub release: u32,
    /// Which copy of its service it is, from 1.
    pub ordinal: u32,
    /// Which start in its place it is, from 1.
    pub attempt: u32,
    /// Its process, while it lives.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Where it listens: `127.0.0.1:20001`.
    #[serde(default)]
    pub addr: Option<String>,
    /// A word or more: `starting`, `ready`, `paused`, `draining`, `stopping`, `waiting`, `stopped by a person`.
    pub state: String,
    /// The last verdict of its probe: `passing`, `failing: 503`, or empty before the first.
    #[serde(default)]
    pub health: String,
    /// Since when it is in this state.
    pub since_ms: u64,
    /// How often its place was filled anew.
    pub restarts: u64,
    /// How the one before it ended: `killed by SIGKILL`, `exit 1`.
    #[serde(default)]
    pub last_exit: Option<String>,
    /// The file that its output goes to.
    #[serde(default)]
    pub log: Option<String>,
    /// Its container's id, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}
