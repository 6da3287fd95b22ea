//! What waits to be told to one URL, and when it is tried.
//!
//! Owns: the way of a message from its first event to its delivery or its end. Never: sends it; whoever does says how
//! that went.
//!
//! ```text
//!  event ─▶ gathering ─ GROUP_WITHIN, and a token ─▶ trying ─▶ delivered
//!               ▲                                     │  ▲
//!               └── what happens meanwhile            └──┘ back-off with full jitter, at most TRIES_MAX and AGE_MAX
//! ```
//!
//! A message that was tried once doesn't change any more, so that a receiver may know it again by its id: what happens
//! meanwhile is the next one. What finds no token of the rate limit goes on gathering, so it is summed up, not dropped.

use std::{collections::BTreeSet, time::Duration};

use super::{Topic, batch::Batch, limit::Bucket};
use crate::{time::Timestamp, wire::api::Event};

/// What happens within this time after the first event is one message.
pub const GROUP_WITHIN: Duration = Duration::from_secs(5);
/// The longest wait before the second try; it doubles with each further one.
pub const RETRY_BASE: Duration = Duration::from_secs(2);
/// No wait between two tries is longer, but where the receiver asks for it.
pub const RETRY_CAP: Duration = Duration::from_secs(600);
/// The longest wait that a receiver may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// A message is tried this often.
pub const TRIES_MAX: u32 = 100;
/// A message that is refused for what it is, or for whom it is to, is tried this often: trying on won't help.
pub const REFUSED_TRIES_MAX: u32 = 3;
/// A message is given up when its first event is older than this.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody answered, or in a way that may pass: a time-out, a refused connection, a 500.
    Passing,
    /// The receiver asks for patience (429, or 503 with `Retry-After`), and may say for how long.
    Busy(Option<Duration>),
    /// The receiver wants none of it: a 400, a 404.
    Refused,
}

/// A message that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// How many events were in it.
    pub events: u64,
    /// After how many tries.
    pub tries: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this now, and say how it went.
    Send(Batch),
    /// Nothing before this time.
    Wait(Timestamp),
    /// Nothing until something happens.
    Idle,
}

/// One URL's. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Outbox {
    topics: BTreeSet<Topic>,
    /// The last event that was looked at.
    seen: u64,
    gathering: Option<Gathering>,
    trying: Option<Trying>,
    bucket: Bucket,
    /// Before this time the receiver wants nothing.
    quiet_until: Timestamp,
}

#[derive(Clone, Debug)]
struct Gathering {
    batch: Batch,
    since: Timestamp,
}

#[derive(Clone, Debug)]
struct Trying {
    batch: Batch,
    tries: u32,
    at: Timestamp,
    is_out: bool,
}

impl Outbox {
    /// One that has told everything up to the event `cursor`.
    #[must_use]
    pub const fn new(topics: BTreeSet<Topic>, cursor: u64, now: Timestamp) -> Self {
        let (bucket, quiet_until) = (Bucket::full(now), Timestamp(0));
        Self { topics, seen: cursor, gathering: None, trying: None, bucket, quiet_until }
    }

    /// The file wants other topics told, from here on.
    pub fn set_topics(&mut self, topics: BTreeSet<Topic>) {
        self.topics = topics;
    }

    /// Looks at an event. One that was seen before, or that this URL isn't told of, changes nothing. Whether it is news.
    pub fn see(&mut self, event: &Event, now: Timestamp) -> bool {
        if event.id <= self.seen {
            return false;
        }
        self.seen = event.id;
        let Some(topic) = Topic::of(event).filter(|topic| self.topics.contains(topic)) else { return false };
        match &mut self.gathering {
            Some(gathering) => gathering.batch.add(event, topic),
            None => self.gathering = Some(Gathering { batch: Batch::of(event, topic), since: now }),
        }
        true
    }

    /// The last event that needs no telling any more: what a successor starts behind.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        let gathering = self.gathering.as_ref().map(|gathering| &gathering.batch);
        let oldest = self.trying.as_ref().map(|trying| &trying.batch).or(gathering);
        oldest.map_or(self.seen, |batch| batch.first_id.saturating_sub(1))
    }

    /// The last event that was looked at.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// How many events wait to be told.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let gathering = self.gathering.as_ref().map_or(0, |gathering| gathering.batch.total());
        gathering + self.trying.as_ref().map_or(0, |trying| trying.batch.total())
    }

    /// What is to be done now. After [`Next::Send`] it waits for [`Outbox::delivered`] or [`Outbox::failed`].
    pub fn next(&mut self, now: Timestamp) -> Next {
        if let Some(trying) = &mut self.trying {
            if trying.is_out {
                return Next::Idle;
            }
            let at = trying.at.max(self.quiet_until);
            if now < at {
                return Next::Wait(at);
            }
            trying.is_out = true;
            return Next::Send(trying.batch.clone());
        }
        let Some(gathering) = &self.gathering else { return Next::Idle };
        let ready = (gathering.since + GROUP_WITHIN).max(self.quiet_until);
        if now < ready {
            return Next::Wait(ready);
        }
        if let Err(at) = self.bucket.take(now) {
            return Next::Wait(at);
        }
        let Some(Gathering { batch, .. }) = self.gathering.take() else { return Next::Idle };
        self.trying = Some(Trying { batch: batch.clone(), tries: 0, at: now, is_out: true });
        Next::Send(batch)
    }

    /// It was taken.
    pub fn delivered(&mut self) {
        self.trying = None;
    }

    /// It was not. `random` is uniform over its whole range. Returns what was given up.
    pub fn failed(&mut self, failure: Failure, now: Timestamp, random: u32) -> Option<GivenUp> {
        let trying = self.trying.as_mut()?;
        trying.is_out = false;
        trying.tries += 1;
        let wait = backoff(trying.tries, random);
        if let Failure::Busy(asked) = failure {
            self.quiet_until = now + asked.unwrap_or_default().min(RETRY_AFTER_MAX).max(wait);
        }
        trying.at = now + wait;
        let most = if failure == Failure::Refused { REFUSED_TRIES_MAX } else { TRIES_MAX };
        let is_old = now.since(Timestamp(trying.batch.first_at_ms)) >= AGE_MAX;
        if trying.tries < most && !is_old {
            return None;
        }
        let given_up = GivenUp { events: trying.batch.total(), tries: trying.tries };
        self.trying = None;
        Some(given_up)
    }
}

/// How long after its `tries`th failure a message waits: uniform between nothing and a time that doubles.
fn backoff(tries: u32, random: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    let ceiling = RETRY_BASE.saturating_mul(1 << doublings).min(RETRY_CAP);
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
