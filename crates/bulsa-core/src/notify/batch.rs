//! What one message is about: everything that happened within some seconds.
//!
//! Owns: counting it by service and cause, and which of it is named. Never: grows with what happens: counts are kept
//! for so many services and causes, and only the first few events in full.

use std::collections::BTreeMap;

use super::Topic;
use crate::wire::api::{Detail, Event};

/// So many events of each topic are named; of the others there is a count.
pub const NAMED_MAX: usize = 5;
/// Counts are kept for so many pairs of service and cause of each topic; what else there is counts together.
pub const COUNTS_MAX: usize = 50;

/// What happened, by topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The id of the first event.
    pub first_id: u64,
    /// The id of the last one.
    pub last_id: u64,
    /// When the first one happened.
    pub first_at_ms: u64,
    /// When the last one did.
    pub last_at_ms: u64,
    /// By topic, the gravest first.
    pub topics: BTreeMap<Topic, Gathered>,
}

/// What happened of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// How many events.
    pub total: u64,
    /// How many of each service and cause; of a deploy the cause is how it ended.
    pub counts: BTreeMap<(String, String), u64>,
    /// How many beyond those.
    pub others: u64,
    /// The first few, oldest first.
    pub named: Vec<Event>,
    /// With [`Topic::Heal`]: how long the longest took, in milliseconds.
    pub longest_ms: u64,
    /// With [`Topic::Heal`]: requests lost in all of them.
    pub requests_lost: u64,
}

impl Batch {
    /// One event's.
    #[must_use]
    pub fn of(event: &Event, topic: Topic) -> Self {
        let mut batch = Self {
            first_id: event.id,
            last_id: event.id,
            first_at_ms: event.at_ms,
            last_at_ms: event.at_ms,
            topics: BTreeMap::new(),
        };
        batch.add(event, topic);
        batch
    }

    /// One more; events come in the order of their ids.
    pub fn add(&mut self, event: &Event, topic: Topic) {
        self.last_id = self.last_id.max(event.id);
        self.last_at_ms = self.last_at_ms.max(event.at_ms);
        self.topics.entry(topic).or_default().add(event);
    }

    /// How many events there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.topics.values().map(|gathered| gathered.total).sum()
    }

    /// How many of them aren't named.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.total() - self.named().count() as u64
    }

    /// The named events, by topic, the gravest first.
    pub fn named(&self) -> impl Iterator<Item = (Topic, &Event)> {
        self.topics.iter().flat_map(|(topic, gathered)| gathered.named.iter().map(|event| (*topic, event)))
    }

    /// The incidents whose evidence is worth showing, the gravest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<u64> {
        let mut ids = Vec::new();
        for (_, event) in self.named() {
            let id = match event.detail {
                Some(Detail::Incident { incident, .. } | Detail::Park { incident, .. }) => incident,
                _ => None,
            };
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        ids
    }
}

impl Gathered {
    fn add(&mut self, event: &Event) {
        self.total += 1;
        let what = match &event.detail {
            Some(Detail::Incident { cause, .. }) => cause.clone(),
            Some(Detail::Heal { cause, lasted_ms, requests_lost, .. }) => {
                self.longest_ms = self.longest_ms.max(*lasted_ms);
                self.requests_lost = self.requests_lost.saturating_add(*requests_lost);
                cause.clone()
            }
            Some(Detail::Park { .. }) => "crash loop".to_owned(),
            Some(Detail::Deployment { outcome, .. }) => outcome.to_string(),
            Some(Detail::Drill { .. } | Detail::Unknown) | None => String::new(),
        };
        let key = (event.service.clone().unwrap_or_default(), what);
        if self.counts.contains_key(&key) || self.counts.len() < COUNTS_MAX {
            *self.counts.entry(key).or_default() += 1;
        } else {
            self.others += 1;
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(event.clone());
        }
    }
}
