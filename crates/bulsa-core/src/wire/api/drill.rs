//! What is asked of a drill, what it would do, and what came of it.
//!
//! Owns: [`DrillKind`], the plan and the report of drills. Never: judges; that is [`crate::drill`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An injury.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillKind {
    /// SIGKILL of the replica's main process.
    Kill,
    /// SIGSTOP of its processes.
    Hang,
    /// The program that serves dies under a main process that lives on.
    AppDead,
    /// The app blocks its own event loop, by a URL of its own.
    Block,
    /// It loses its network.
    Cut,
    /// It is killed, and so is each successor as soon as it runs.
    CrashLoop,
    /// Memory runs out in its container.
    Memory,
    /// The program of its probe can't be run.
    Probe,
}

impl DrillKind {
    /// All of them, in the order in which they are done.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Hang,
        Self::AppDead,
        Self::Block,
        Self::Cut,
        Self::CrashLoop,
        Self::Memory,
        Self::Probe,
    ];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::AppDead => "app-dead",
            Self::Block => "block",
            Self::Cut => "cut",
            Self::CrashLoop => "crash-loop",
            Self::Memory => "memory",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for DrillKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a word is no [`DrillKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of injury: {list}", list = DrillKind::ALL.map(DrillKind::word).join(", "))]
pub struct DrillKindError(String);

impl FromStr for DrillKind {
    type Err = DrillKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| DrillKindError(text.to_owned()))
    }
}

/// What drills would do, step by step. Nothing was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPlan {
    /// The project's name.
    pub project: String,
    /// In the order in which they would be done.
    pub steps: Vec<DrillStep>,
    /// Why it would be refused as things are, a sentence each; empty where it would not.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// What is going on that stands in the way; later it may be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
}

/// One injury of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStep {
    /// What is done to it.
    pub kind: DrillKind,
    /// The service.
    pub service: String,
    /// Which of its replicas, from 1.
    pub ordinal: u32,
    /// What people call the replica: `web-r3-1`.
    pub replica: String,
    /// Why it doesn't apply to this replica; then nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<String>,
    /// What is done, in words.
    #[serde(default)]
    pub injury: String,
    /// What should come of it.
    #[serde(default)]
    pub expected: String,
    /// Within how long, in ms.
    #[serde(default)]
    pub limit_ms: u64,
    /// Where requests may be sent meanwhile, to count those that fail; `None` where the service publishes no HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<DrillUrl>,
}

/// Where a service is reached from this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillUrl {
    /// `127.0.0.1:8080`
    pub address: String,
    /// The `Host` field.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl fmt::Display for DrillUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// What came of one injury. It is in the event `drill.over`, and kept with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// As in the answer to the request.
    pub id: u64,
    /// What was done.
    pub kind: DrillKind,
    /// The service.
    pub service: String,
    /// The replica that was hurt: `web-r3-1.5`.
    pub replica: String,
    /// When.
    pub injured_at_ms: u64,
    /// From then until Bulsa had noticed, in ms; `None`: not within `limit_ms`.
    #[serde(default)]
    pub detected_ms: Option<u64>,
    /// Until no proxy could choose the replica any more; `None` also where the proxy doesn't serve it.
    #[serde(default)]
    pub unrouted_ms: Option<u64>,
    /// Until its place served again, routed where the proxy serves it. Of a crash loop: since its last death.
    #[serde(default)]
    pub recovered_ms: Option<u64>,
    /// So long was looked, in ms.
    pub limit_ms: u64,
    /// Replicas that died of it.
    #[serde(default)]
    pub deaths: u64,
    /// What the proxies answered with 502 meanwhile, all services together.
    #[serde(default)]
    pub bad_gateways: u64,
    /// Whether it came as expected.
    pub passed: bool,
    /// The same in a sentence.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in DrillKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        let error = "burn".parse::<DrillKind>().unwrap_err().to_string();
        assert!(error.contains("`burn`") && error.contains("crash-loop"), "{error}");
    }
}
