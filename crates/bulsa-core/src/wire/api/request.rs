//! What is asked, and what is answered.
//!
//! Owns: [`Request`] and [`Answer`] with their parts. Never: changes without a new version what an old reader would misread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DrillKind, DrillPlan};
use crate::wire::{credentials::Credentials, spec::SpecV1};

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
    /// Let new requests wait in the proxy although somebody could take them, or let those out that wait. Outlives deploys
    /// and restarts of the daemon.
    Hold {
        /// The project's name.
        project: String,
        /// The services' names in the compose file; every service that the proxy serves where none is named.
        #[serde(default)]
        services: Vec<String>,
        /// Whether they are to wait.
        on: bool,
    },
    /// Say what drills would do: [`Answer::Drills`], and nothing is touched.
    DrillPlan {
        /// The project's name.
        project: String,
        /// The services, or single replicas of them (`web.2`); the first replica of each service that Bulsa restarts where
        /// none is named.
        #[serde(default)]
        services: Vec<String>,
        /// Only these injuries; all where none is named.
        #[serde(default)]
        only: Vec<DrillKind>,
        /// Also where the last healthy replica of a service may be lost.
        #[serde(default)]
        last: bool,
    },
    /// Hurt one replica on purpose, and measure what comes of it: [`Answer::Drilling`]. It goes on to its end, and what it
    /// did is undone, whoever asked and is gone.
    Drill {
        /// The project's name.
        project: String,
        /// The service.
        service: String,
        /// Which of its replicas, from 1.
        ordinal: u32,
        /// The injury.
        kind: DrillKind,
        /// As of [`Request::DrillPlan`].
        #[serde(default)]
        last: bool,
        /// Whoever drills, any number.
        session: u64,
        /// Whether it goes on with another one: for a moment nobody else may begin one then.
        #[serde(default)]
        more: bool,
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
            | Self::Hold { project, .. }
            | Self::DrillPlan { project, .. }
            | Self::Drill { project, .. }
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
        /// What whoever asked should know of it, such as why an image was taken from this host.
        #[serde(default)]
        notes: Vec<String>,
    },
    /// Nothing to do: it is like that already.
    AlreadySo {
        /// What is so, one sentence.
        text: String,
        /// As of [`Answer::Accepted`].
        #[serde(default)]
        notes: Vec<String>,
    },
    /// What a deploy would do.
    Plan(Plan),
    /// What drills would do.
    Drills(DrillPlan),
    /// A replica was hurt. What comes of it is told in the event `drill.over` with this number.
    Drilling {
        /// Counts the drills, with gaps.
        id: u64,
    },
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
