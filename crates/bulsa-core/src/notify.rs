//! Telling people what happened while nobody looked: to whom, in how many messages, and in which words.
//!
//! Owns: what a project's `x-bulsa.notify` and `x-bulsa.heartbeat` mean ([`Notify`]), which events are worth a message
//! ([`Topic`]), how they are grouped ([`batch`]), how many messages a URL gets ([`limit`]), when one is tried again and
//! when it is given up ([`outbox`]), what it says ([`render`]), and when the heartbeat is called ([`beat`]). Never: sends
//! anything, reads a clock, or draws a random number; a URL is a secret here, and is shown by its host only.
//!
//! ```text
//!  events with numbers ─▶ Batch (what happened within some seconds) ─▶ Outbox (one for each URL) ─▶ render ─▶ bytes
//! ```

pub mod batch;
pub mod beat;
mod escape;
pub mod limit;
pub mod memory;
pub mod outbox;
pub mod render;
mod url;

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::url::{SecretUrl, UrlError};
use crate::wire::api::{DeployKind, Detail, Event, Outcome};

/// At most this many webhooks of a project: each is a task and a row of `bulsa status`.
pub const WEBHOOKS_MAX: usize = 10;
/// How often the heartbeat is called where the file doesn't say.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Who is told of a project. These types are their own wire form, as those of [`crate::spec::container`] are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notify {
    /// `x-bulsa.notify`, in the file's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// `x-bulsa.heartbeat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
}

impl Notify {
    /// Whether nobody is told anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.webhooks.is_empty() && self.heartbeat.is_none()
    }
}

/// One URL that messages are posted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where.
    pub url: SecretUrl,
    /// In which form.
    pub format: Format,
    /// What of.
    pub on: BTreeSet<Topic>,
}

/// A URL that is called while all serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which.
    pub url: SecretUrl,
    /// How often, in milliseconds.
    pub interval_ms: u64,
}

/// In which form a message is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Bulsa's own, for programs: `docs/notifications.md`.
    Json,
    /// Slack's incoming webhooks, and those who take the same.
    Slack,
    /// Discord's webhooks.
    Discord,
}

impl Format {
    /// Every format with its name in the file.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("json", Self::Json), ("slack", Self::Slack), ("discord", Self::Discord)];

    /// What a URL's host takes, where the file doesn't say.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        let is_in = |domain: &str| {
            host == domain || host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'))
        };
        if is_in("hooks.slack.com") || is_in("hooks.slack-gov.com") {
            Self::Slack
        } else if is_in("discord.com") || is_in("discordapp.com") {
            Self::Discord
        } else {
            Self::Json
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

/// What a message may be about. In the order of weight, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A place is retried slowly: what is started there dies again and again.
    Park,
    /// A replica died or hung.
    Incident,
    /// A release was given up for the one before it, by Bulsa or by a person.
    Rollback,
    /// A deploy ended.
    Deploy,
    /// A place serves again.
    Heal,
}

impl Topic {
    /// Every topic with its name in the file.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("incident", Self::Incident),
        ("heal", Self::Heal),
        ("park", Self::Park),
        ("deploy", Self::Deploy),
        ("rollback", Self::Rollback),
    ];

    /// All of them.
    #[must_use]
    pub fn all() -> BTreeSet<Self> {
        Self::NAMES.iter().map(|(_, topic)| *topic).collect()
    }

    /// What an event is worth a message for; most are for none.
    #[must_use]
    pub const fn of(event: &Event) -> Option<Self> {
        let Some(detail) = &event.detail else { return None };
        Some(match detail {
            Detail::Incident { .. } => Self::Incident,
            Detail::Heal { .. } => Self::Heal,
            Detail::Park { .. } => Self::Park,
            Detail::Deployment { kind: DeployKind::Rollback, .. }
            | Detail::Deployment { outcome: Outcome::RolledBack, .. } => Self::Rollback,
            Detail::Deployment { .. } => Self::Deploy,
            Detail::Drill { .. } | Detail::Unknown => return None,
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, topic)| topic == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

/// A duration as people write it: `250 ms`, `1.5 s`, `42 min`, `3 h`, `2 days`.
#[must_use]
pub(crate) fn human(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds if seconds < 10 && duration.subsec_millis() > 0 => format!("{:.1} s", duration.as_secs_f64()),
        seconds if seconds < 2 * MINUTE => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests;
