//! Version 1 of what crosses the local API: requests, their answers, the published snapshot and the streams.
//!
//! Owns: the shapes that the command line, the dashboard and scripts exchange with the agent. Never: decides anything,
//! or shows an internal type; the driver fills these in from its own state.
//!
//! Two kinds of things pass. A [`Request`] asks the one driver of a project for a change and gets exactly one
//! [`Answer`]: accepted, already so, denied (something else is going on) or refused (the request itself is wrong).
//! Everything else is looking: the numbered [`Snapshot`], replaced as a whole whenever anything in it changes, and
//! streams of one JSON object per line ([`ProgressV1`], [`Event`], [`LogLine`]).
//!
//! Field names end in their unit. `*_at_ms` and `since_ms` are points in time, in milliseconds since the Unix epoch.
//! A reader ignores fields that it doesn't know; a field that may be missing has a default. A change that an old
//! reader would misread gets a new version, and a new path.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{credentials::Credentials, spec::SpecV1};

/// The version of everything in this module, the first part of every path (`/v1/…`).
pub const API_VERSION: u32 = 1;

/// At most this many deployments are in a snapshot, the running one included; older ones are in the store.
pub const DEPLOYMENTS_SHOWN_MAX: usize = 4;

/// At most this many progress lines of a deployment are kept; the oldest go first.
pub const PROGRESS_LINES_MAX: usize = 500;

/// What somebody asks of the driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Make a release of a spec and bring it live, or say what that would do.
    Deploy(Box<DeployRequest>),
    /// Bring an earlier release live again.
    Rollback {
        /// The project's name.
        project: String,
        /// The release; the previous one where none is given.
        #[serde(default)]
        release: Option<u32>,
    },
    /// Stop a service and leave it alone until it is started again.
    Stop {
        /// The project's name.
        project: String,
        /// The service's name in the compose file.
        service: String,
    },
    /// Take back a [`Request::Stop`].
    Start {
        /// The project's name.
        project: String,
        /// The service's name in the compose file.
        service: String,
    },
    /// Replace every replica of a service by a new one, without a gap where there is room.
    Restart {
        /// The project's name.
        project: String,
        /// The service's name in the compose file.
        service: String,
    },
    /// Change how many replicas a service has; outlives deploys until the file's number changes.
    Scale {
        /// The project's name.
        project: String,
        /// The service's name in the compose file.
        service: String,
        /// How many; 0 is a [`Request::Stop`] by another name.
        replicas: u32,
    },
    /// Stop everything that a project runs, close its ports and forget it.
    Down {
        /// The project's name.
        project: String,
    },
    /// Stop every project's replicas and end the daemon; what is wanted stays in the store.
    Shutdown,
}

impl Request {
    /// The project that it is about; `None` for the daemon as a whole.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        match self {
            Self::Deploy(deploy) => Some(&deploy.project),
            Self::Rollback { project, .. }
            | Self::Stop { project, .. }
            | Self::Start { project, .. }
            | Self::Restart { project, .. }
            | Self::Scale { project, .. }
            | Self::Down { project } => Some(project),
            Self::Shutdown => None,
        }
    }
}

/// The body of [`Request::Deploy`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The project's name; equal to the spec's.
    pub project: String,
    /// The resolved desired state.
    pub spec: SpecV1,
    /// The files that it was read from, as they were, for people to look at later.
    #[serde(default)]
    pub sources: Vec<SourceFile>,
    /// Only these services take the new spec, the others keep what they have; empty is all of them.
    #[serde(default)]
    pub services: Vec<String>,
    /// Asked by `up`: a project that runs exactly this is [`Answer::AlreadySo`], and stopped services start again.
    #[serde(default)]
    pub up: bool,
    /// Only say what would happen: [`Answer::Plan`], and nothing is touched.
    #[serde(default)]
    pub plan: bool,
    /// Take the images that are here, and pull none.
    #[serde(default)]
    pub no_pull: bool,
    /// What the images' registries are given, by registry. Never stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, Credentials>,
}

/// The longest that getting a deploy's images may take before its request counts as lost, in seconds.
pub const PREPARE_SECS_MAX: u64 = 3600;

/// A file that a spec was read from, or that was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its path, absolute; `-` is standard input.
    pub path: String,
    /// A compose file's text. Empty for every other file, which may hold secrets.
    #[serde(default)]
    pub text: String,
    /// The SHA-256 of its bytes, hexadecimal. `None` where it was not there, which is no mistake for a `.env`; and in
    /// releases of older versions, which have a text.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// The driver's one answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is being done.
    Accepted {
        /// The deployment to follow, where the request started one.
        #[serde(default)]
        deploy: Option<u32>,
        /// What is being done, one sentence.
        text: String,
    },
    /// Nothing to do: it is like that already.
    AlreadySo {
        /// What is so, one sentence.
        text: String,
    },
    /// What a deploy would do.
    Plan(Plan),
    /// Something that is going on stands in the way; the same request may be accepted later. Exit code 4.
    Denied {
        /// Why, one sentence.
        reason: String,
        /// What stands in the way: `deploy 7`.
        #[serde(default)]
        who: Option<String>,
        /// Since when that is going on.
        #[serde(default)]
        since_ms: Option<u64>,
    },
    /// A deploy that failed before anything was begun, for want of an image or a network: what runs goes on as it was.
    /// Exit code 3, or 7 where nothing serves.
    Failed {
        /// Why, a sentence each.
        errors: Vec<String>,
        /// Whether the project serves.
        serving: bool,
    },
    /// The request itself is wrong and was not begun. Exit code 1.
    Refused {
        /// Everything that is wrong with it.
        errors: Vec<String>,
    },
}

/// What a deploy would do, step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The project's name.
    pub project: String,
    /// The number that the release would get.
    pub release: u32,
    /// The live release, where there is one.
    #[serde(default)]
    pub live: Option<u32>,
    /// What would be done, in order; empty where nothing differs.
    pub steps: Vec<PlanStep>,
    /// What people should know: a weak probe, why a service has its role, why there is no overlap.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// One word: `start`, `gate`, `switch`, `drain`, `bake`, `warm`, `retire`, `keep`.
    pub action: String,
    /// The service that it is about; `None` for the project as a whole.
    #[serde(default)]
    pub service: Option<String>,
    /// The step in words: `2 replicas of r4 beside r3`.
    pub text: String,
}

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
    /// The last deployments, oldest first, at most [`DEPLOYMENTS_SHOWN_MAX`]; only the last can be unfinished.
    #[serde(default)]
    pub deployments: Vec<DeploymentView>,
    /// Its services, by name.
    pub services: Vec<ServiceView>,
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
    /// What it said so far, oldest first, at most [`PROGRESS_LINES_MAX`].
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

    /// Reads back what [`fmt::Display`] wrote into a [`DeploymentRow`].
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

/// One line of a deployment's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressV1 {
    /// Counted from 1 within the deployment, so that a reader who lost the connection can go on behind it.
    pub n: u32,
    /// When it was said.
    pub at_ms: u64,
    /// What kind of line it is.
    pub kind: ProgressKind,
    /// The line.
    pub text: String,
    /// With [`ProgressKind::Done`]: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// With [`ProgressKind::Done`]: the exit code of a command that waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

/// What kind of line a [`ProgressV1`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressKind {
    /// A new step of the pipeline began.
    Step,
    /// A detail of the step: a probe's answer, a log line of a replica that failed.
    Line,
    /// The last line.
    Done,
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
}

/// Something that happened, as it is kept in the store and shown by `bulsa events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with time, with gaps.
    pub id: u64,
    /// When.
    pub at_ms: u64,
    /// The project; empty for the daemon itself.
    #[serde(default)]
    pub project: String,
    /// A dotted word that scripts can match: `replica.died`, `deploy.switched`.
    pub kind: String,
    /// The service that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The replica that it is about: `web-r3-1.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// What happened, one sentence.
    pub text: String,
}

/// One line that a replica wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The replica: `web-r3-1.5`.
    pub replica: String,
    /// Its service.
    pub service: String,
    /// The line, without its end; what isn't UTF-8 is replaced.
    pub text: String,
}

/// A deployment as the store remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRow {
    /// The project's name.
    pub project: String,
    /// Counted from 1 within the project.
    pub id: u32,
    /// `deploy` or `rollback`.
    pub kind: String,
    /// The release that it brought, or tried to bring, live.
    pub candidate: u32,
    /// The release that was live before.
    pub previous: Option<u32>,
    /// The last phase that it reached.
    pub phase: String,
    /// When it began.
    pub started_at_ms: u64,
    /// When traffic moved.
    pub switched_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// How: an [`Outcome`] in its printed form.
    pub outcome: Option<String>,
    /// The exit code of a command that waited for it.
    pub exit_code: Option<u8>,
    /// Why.
    pub reason: Option<String>,
}

/// The body of every answer whose HTTP status isn't 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What failed, one sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_deploy_exits_3_while_a_release_serves_and_7_when_none_does() {
        for outcome in [Outcome::RolledBack, Outcome::Failed] {
            assert_eq!((outcome.exit_code(true), outcome.exit_code(false)), (3, 7), "{outcome}");
        }
        assert_eq!((Outcome::Deployed.exit_code(true), Outcome::Refused.exit_code(true)), (0, 1));
    }

    #[test]
    fn outcomes_survive_the_store() {
        for outcome in [Outcome::Deployed, Outcome::RolledBack, Outcome::Failed, Outcome::Refused] {
            assert_eq!(Outcome::from_text(&outcome.to_string()), Some(outcome));
        }
        assert_eq!(Outcome::from_text("undone"), None);
    }

    #[test]
    fn a_reader_ignores_fields_of_a_later_writer_and_fills_in_missing_ones() {
        let old = r#"{"request":"rollback","project":"shop","colour":"red"}"#;
        let request: Request = serde_json::from_str(old).unwrap();
        assert_eq!(request, Request::Rollback { project: "shop".to_owned(), release: None });
        assert_eq!(request.project(), Some("shop"));
    }

    #[test]
    fn requests_and_answers_keep_their_shape_on_the_wire() {
        let scale = Request::Scale { project: "shop".to_owned(), service: "web".to_owned(), replicas: 3 };
        assert_eq!(
            serde_json::to_string(&scale).unwrap(),
            r#"{"request":"scale","project":"shop","service":"web","replicas":3}"#
        );
        assert_eq!(serde_json::to_string(&Request::Shutdown).unwrap(), r#"{"request":"shutdown"}"#);
        let denied =
            Answer::Denied { reason: "busy".to_owned(), who: Some("deploy 7".to_owned()), since_ms: Some(5) };
        let text = serde_json::to_string(&denied).unwrap();
        assert_eq!(text, r#"{"answer":"denied","reason":"busy","who":"deploy 7","since_ms":5}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), denied);
    }
}
