//! What is kept of a death or a hang, and what is made of it for people.
//!
//! Owns: [`Incident`], its [`Evidence`], and the answer of `bulsa why`. Never: judges; that is [`crate::why`].

use serde::{Deserialize, Serialize};

/// One death or hang: what was seen, and what it has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Rises with time, with gaps.
    pub id: u64,
    /// The replica: `web-r3-1.5`.
    pub replica: String,
    /// What happened: `exited`, `killed`, `hung`, `out of memory`.
    pub cause: String,
    /// When it was seen: of a hang the first probe without an answer.
    pub detected_at_ms: u64,
    /// When its place served again; `None` while it doesn't.
    #[serde(default)]
    pub recovered_at_ms: Option<u64>,
    /// When its place was given up instead: its release was replaced, or a person stopped the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at_ms: Option<u64>,
    /// Requests that were answered with 502 meanwhile.
    #[serde(default)]
    pub requests_lost: u64,
    /// What was known of the replica before anything was done about it.
    #[serde(default)]
    pub evidence: Evidence,
    /// The further deaths in its place, before that served again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// Deaths of those who were to take a dead replica's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Again {
    /// How many.
    pub deaths: u64,
    /// The last of them.
    pub replica: String,
    /// What happened to that one.
    pub cause: String,
    /// What was known of that one.
    pub evidence: Evidence,
}

impl Incident {
    /// How long its place did not serve, in milliseconds; `None` while it still doesn't.
    #[must_use]
    pub fn lasted_ms(&self) -> Option<u64> {
        Some(self.recovered_at_ms?.saturating_sub(self.detected_at_ms))
    }
}

/// What was known of a replica when it died or was given up. It is kept as JSON, and read by later versions: a field that
/// is missing has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// How it ended, in words: `exit 1`, `killed by SIGKILL`.
    pub exit: String,
    /// The same for programs: `code 1`, `signal 9`; `None` where nobody saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Who wanted it: a drill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// What says that memory ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<String>,
    /// The most memory that it took, in bytes, where the kernel counts it: in a container, or with limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// How long it had been ready; `None` if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_for_ms: Option<u64>,
    /// Its last probes, oldest first.
    pub probes: Vec<ProbeSeen>,
    /// The last lines of its output, oldest first.
    pub last_lines: Vec<String>,
    /// A request that it died with, and another replica too: `POST /pay (request 4f…)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_request: Option<String>,
}

/// One run of a probe, or several in a row that said the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSeen {
    /// When the first of them ended.
    #[serde(default)]
    pub since_ms: u64,
    /// When the last of them ended.
    pub at_ms: u64,
    /// What it found: `passing`, `503 Service Unavailable: …`.
    pub text: String,
    /// How many there were.
    pub times: u32,
}

/// Why a service is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The service's name.
    pub service: String,
    /// One sentence.
    pub verdict: String,
    /// What could be changed, the likeliest first.
    #[serde(default)]
    pub advice: Vec<String>,
    /// The last incidents, newest first.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}
