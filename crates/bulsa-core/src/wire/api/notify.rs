//! Who is told of a project, and how long it was served.
//!
//! Owns: the shapes of both. Never: a URL as it is, but in what `bulsa notify test` asks.

use serde::{Deserialize, Serialize};

use crate::{
    availability::Availability,
    notify::{Format, SecretUrl},
};

/// One URL that is told of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotifyView {
    /// `json`, `slack`, `discord`, or `heartbeat`.
    pub kind: String,
    /// Where, by its host only: the rest of the URL is a secret.
    pub target: String,
    /// Events that it wasn't told yet.
    pub waiting: u64,
    /// Messages that it took, or calls of the heartbeat that were answered, since this agent or an earlier one was told
    /// of the URL.
    pub sent: u64,
    /// Messages that were given up. Of the heartbeat: calls that failed.
    pub given_up: u64,
    /// When it took the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sent_at_ms: Option<u64>,
    /// What was wrong with the last try, where that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_at_ms: Option<u64>,
}

/// A wish to try the URLs that a project's messages go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyTest {
    /// The project's name.
    pub project: String,
    /// Only this one, whether the project has it or not; without one all of the project's.
    #[serde(default)]
    pub url: Option<SecretUrl>,
    /// With `url`: in which form; what its host takes where this isn't given.
    #[serde(default)]
    pub format: Option<Format>,
}

/// What came of a try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotifyTested {
    /// `json`, `slack`, `discord`, or `heartbeat`.
    pub kind: String,
    /// Where, by its host only.
    pub target: String,
    /// Whether it was taken.
    pub accepted: bool,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// What is wrong.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How much of a stretch of time a project's services were served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinceView {
    /// The project's name.
    pub project: String,
    /// When the stretch begins.
    pub from_ms: u64,
    /// When it ends: now.
    pub now_ms: u64,
    /// Each service but jobs, in the order of the snapshot.
    pub services: Vec<ServiceSince>,
}

/// The same of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceSince {
    /// Its name.
    pub service: String,
    /// The share of the watched time in which it was wanted that it was served, from 0 to 1; `None` without any.
    pub served_share: Option<f64>,
    /// What the time was like.
    pub time: Availability,
    /// How many incidents began.
    pub incidents: u64,
    /// How many requests were lost in those.
    pub requests_lost: u64,
    /// From when the oldest record of it is; what lies before counts as not watched. `None` without any.
    pub recorded_since_ms: Option<u64>,
}
