//! The account: what became of each request and of each WebSocket, and what that was over a window of time.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::config::Method;

/// Failures that a report lists one by one; it counts them all.
const LISTED_MAX: usize = 1000;
/// Names of releases, and paths, told apart; what comes after them is not named.
const NAMES_MAX: usize = 256;
/// Bytes kept of a release's name and of an error's text.
const TEXT_MAX: usize = 120;

/// A moment in a load's time: since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub(super) Duration);

impl Mark {
    /// The load's start.
    pub const START: Self = Self(Duration::ZERO);

    /// From `earlier` to here; zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// `time` later.
    #[must_use]
    pub const fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// In milliseconds with three decimals.
impl Serialize for Mark {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        milliseconds(&self.0, serializer)
    }
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody listened.
    Refused,
    /// The connection ended, politely or not, before the answer was complete.
    Reset,
    /// No complete answer in time.
    Timeout,
    /// An answer that is no 2xx.
    Status(u16),
    /// A 2xx whose body is not what was due.
    BadBody,
    /// Not sent: too many were under way ([`super::Config::outstanding`]).
    Cap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::BadBody => f.write_str("bad body"),
            Self::Cap => f.write_str("cap"),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The connection that a request went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// When it was established.
    #[serde(rename = "opened_ms")]
    pub opened: Mark,
    /// Whether an earlier request had used it.
    pub reused: bool,
}

/// A request that got no good answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When it was due.
    #[serde(rename = "due_ms")]
    pub due: Mark,
    /// When it failed.
    #[serde(rename = "ended_ms")]
    pub at: Mark,
    /// How.
    pub kind: Kind,
    /// Its method.
    pub method: Method,
    /// Whether it could have been tried again without harm.
    pub idempotent: bool,
    /// Path and query.
    pub path: String,
    /// `None` where it never got one.
    pub connection: Option<Connection>,
    /// The release that answered, where the answer's head came and named one.
    pub release: Option<String>,
    /// What exactly, as the system or the answer said it.
    pub detail: String,
}

impl Failure {
    /// Whether it was under way at some time between `from` and `to`: due before the end, not over before the start.
    #[must_use]
    pub fn under_way(&self, from: Mark, to: Mark) -> bool {
        self.due <= to && self.at >= from
    }
}

/// A WebSocket that ended without its client wanting it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketDrop {
    /// Which client, from 0.
    pub client: u32,
    /// When.
    #[serde(rename = "dropped_ms")]
    pub at: Mark,
    /// The code of the Close that was received; `None` for a broken connection and for a missing echo.
    pub code: Option<u16>,
    /// What was seen.
    pub detail: String,
}

/// The WebSockets over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketReport {
    /// Connected when the window began.
    pub at_start: usize,
    /// Of these, the ones that were never dropped in it.
    pub kept: usize,
    /// Drops in the window.
    pub drops: Vec<SocketDrop>,
    /// From a drop to the same client's next connection, for the drops in the window; the longest, in ms.
    #[serde(rename = "longest_absence_ms", serialize_with = "milliseconds")]
    pub longest_absence: Duration,
}

/// What ended within a window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The window's start (not in it).
    #[serde(rename = "from_ms")]
    pub from: Mark,
    /// The window's end (in it).
    #[serde(rename = "to_ms")]
    pub to: Mark,
    /// Requests that were answered or failed in it.
    pub requests: u64,
    /// The ones that failed.
    pub failed: u64,
    /// The same by [`Kind`].
    pub failed_by_kind: BTreeMap<String, u64>,
    /// The failures, the first thousand of them.
    pub failures: Vec<Failure>,
    /// Requests that found their idle connection closed before a byte of them was written, and went to another.
    pub unsent: u64,
    /// Half of the good answers came within this, from their due time.
    #[serde(rename = "p50_ms", serialize_with = "milliseconds")]
    pub p50: Duration,
    /// 99 of 100.
    #[serde(rename = "p99_ms", serialize_with = "milliseconds")]
    pub p99: Duration,
    /// All of them.
    #[serde(rename = "max_ms", serialize_with = "milliseconds")]
    pub max: Duration,
    /// The longest time in the window without a good answer, its edges included.
    #[serde(rename = "longest_gap_ms", serialize_with = "milliseconds")]
    pub longest_gap: Duration,
    /// Good answers by the release that gave them.
    pub releases: BTreeMap<String, u64>,
    /// The WebSockets.
    pub sockets: SocketReport,
}

/// A good answer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    due: Mark,
    at: Mark,
    /// An index into [`Log::releases`].
    release: Option<u16>,
    /// An index into [`Log::paths`].
    path: Option<u16>,
}

/// A WebSocket's life.
#[derive(Debug)]
struct Life {
    client: u32,
    from: Mark,
    /// `None` while it lives, and where the load itself ended it.
    end: Option<SocketDrop>,
}

/// The account of one load; in the order in which things ended.
#[derive(Debug, Default)]
pub(super) struct Log {
    answers: Vec<Answer>,
    failures: Vec<Failure>,
    releases: Vec<String>,
    paths: Vec<String>,
    unsent: Vec<Mark>,
    lives: Vec<Life>,
}

impl Log {
    pub(super) fn answered(&mut self, due: Mark, at: Mark, release: Option<&str>, path: &str) {
        let release = release.and_then(|name| index_of(&mut self.releases, name));
        let path = index_of(&mut self.paths, path);
        self.answers.push(Answer { due, at, release, path });
    }

    pub(super) fn failed(&mut self, mut failure: Failure) {
        shorten(&mut failure.detail);
        self.failures.push(failure);
    }

    pub(super) fn unsent(&mut self, at: Mark) {
        self.unsent.push(at);
    }

    pub(super) fn connected(&mut self, client: u32, at: Mark) {
        self.lives.push(Life { client, from: at, end: None });
    }

    /// Ends the client's latest connection.
    pub(super) fn dropped(&mut self, mut drop: SocketDrop) {
        shorten(&mut drop.detail);
        if let Some(life) = self.lives.iter_mut().rev().find(|life| life.client == drop.client) {
            life.end = Some(drop);
        }
    }

    /// What ended after `from` and not after `to`.
    pub(super) fn report(&self, from: Mark, to: Mark) -> Report {
        self.report_of(from, to, |_| true)
    }

    /// The same of the requests with such paths.
    pub(super) fn report_of(&self, from: Mark, to: Mark, is_of: impl Fn(&str) -> bool) -> Report {
        let within = |at: Mark| from < at && at <= to;
        let path = |answer: &Answer| answer.path.and_then(|index| self.paths.get(usize::from(index)));
        let is_counted =
            |answer: &&Answer| within(answer.at) && is_of(path(answer).map_or("", String::as_str));
        let answers: Vec<_> = self.answers.iter().filter(is_counted).collect();
        let is_counted = |failure: &&Failure| within(failure.at) && is_of(&failure.path);
        let failures: Vec<_> = self.failures.iter().filter(is_counted).collect();
        let mut latencies: Vec<_> = answers.iter().map(|answer| answer.at.since(answer.due)).collect();
        latencies.sort_unstable();
        let mut report = Report {
            from,
            to,
            requests: (answers.len() + failures.len()) as u64,
            failed: failures.len() as u64,
            failures: failures.iter().take(LISTED_MAX).map(|&failure| failure.clone()).collect(),
            unsent: self.unsent.iter().filter(|at| within(**at)).count() as u64,
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
            max: percentile(&latencies, 100),
            longest_gap: longest_gap(answers.iter().map(|answer| answer.at).collect(), from, to),
            sockets: self.sockets(from, to),
            ..Report::default()
        };
        for failure in failures {
            *report.failed_by_kind.entry(failure.kind.to_string()).or_default() += 1;
        }
        for release in answers.iter().filter_map(|answer| self.releases.get(usize::from(answer.release?))) {
            *report.releases.entry(release.clone()).or_default() += 1;
        }
        report
    }

    fn sockets(&self, from: Mark, to: Mark) -> SocketReport {
        let ends_after = |life: &Life, at: Mark| life.end.as_ref().is_none_or(|end| end.at > at);
        let at_start: Vec<_> =
            self.lives.iter().filter(|life| life.from <= from && ends_after(life, from)).collect();
        let drops = self.lives.iter().filter_map(|life| life.end.clone());
        let drops: Vec<_> = drops.filter(|drop| from < drop.at && drop.at <= to).collect();
        let absence = |drop: &SocketDrop| {
            let next = self.lives.iter().find(|life| life.client == drop.client && life.from >= drop.at);
            next.map_or(to, |life| life.from).since(drop.at)
        };
        SocketReport {
            kept: at_start.iter().filter(|life| ends_after(life, to)).count(),
            at_start: at_start.len(),
            longest_absence: drops.iter().map(absence).max().unwrap_or_default(),
            drops,
        }
    }
}

/// The index of a name, which is added where it is new and there is room.
fn index_of(names: &mut Vec<String>, name: &str) -> Option<u16> {
    let known = names.iter().position(|known| known == name);
    let index = known.or_else(|| {
        (names.len() < NAMES_MAX).then(|| {
            let mut name = name.to_owned();
            shorten(&mut name);
            names.push(name);
            names.len() - 1
        })
    });
    index.and_then(|index| u16::try_from(index).ok())
}

/// The value that `percent` of the sorted values don't exceed (nearest rank); zero where there are none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The longest time between two of `answers`, which lie in the window, or between one and the window's edge.
fn longest_gap(mut answers: Vec<Mark>, from: Mark, to: Mark) -> Duration {
    answers.push(to);
    answers.sort_unstable();
    let mut last = from;
    let gap = |at: Mark| at.since(std::mem::replace(&mut last, at));
    answers.into_iter().map(gap).max().unwrap_or_default()
}

/// Cuts `text` to [`TEXT_MAX`] bytes, at a character's edge.
fn shorten(text: &mut String) {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= TEXT_MAX).last();
    text.truncate(end.unwrap_or(0));
}

/// A duration as milliseconds with three decimals.
pub(crate) fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

#[cfg(test)]
mod tests;
