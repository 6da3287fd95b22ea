//! The record of when services were served, and of when somebody watched.
//!
//! Owns: what is noted of it: changes, and a sign of life once a minute. Never: samples; what it means is
//! `bulsa_core::availability`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    availability::Service as State,
    decide::Kind,
    ids::ReplicaId,
    spec::{Role, Service},
    time::Timestamp,
};

use super::{Driver, project::Project, view};
use crate::agent::store::{Record, ServiceRow, WatchRow};

/// How often an agent notes that it lives. After a loss of power so much may count as not watched.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// What was noted.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// This agent's life, once it is noted.
    watch: Option<WatchRow>,
    /// What each project's services were when that was noted last.
    known: BTreeMap<(String, String), State>,
    /// How many notes the store had lost by then.
    lost: u64,
    is_over: bool,
}

impl Driver {
    /// Notes what changed since the last look, and now and then that somebody looks.
    pub(super) fn record_served(&mut self) {
        if self.served.is_over {
            return;
        }
        let now = self.clock.now();
        let lost = self.store.dropped();
        if lost != self.served.lost {
            // Something of the record may be lost: it is written anew.
            self.served.lost = lost;
            self.served.known.clear();
        }
        let found = self.states();
        let news: Vec<((String, String), State)> = found
            .iter()
            .filter(|(key, state)| self.served.known.get(*key) != Some(*state))
            .map(|(key, state)| (key.clone(), *state))
            .collect();
        let gone: Vec<(String, String)> =
            self.served.known.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        if self.sign_of_life(now, !news.is_empty() || !gone.is_empty()).is_none() {
            return;
        }
        for (key, state) in news {
            self.note_state(&key, state, now);
            self.served.known.insert(key, state);
        }
        for key in gone {
            self.note_state(&key, State::Unwanted, now);
            self.served.known.remove(&key);
        }
    }

    /// The daemon stops, or another agent takes over: from here on nobody watches.
    pub(super) fn watch_ends(&mut self) {
        if !self.served.is_over {
            self.sign_of_life(self.clock.now(), true);
            self.served.is_over = true;
        }
    }

    /// Notes that this agent lives, where that is due or something is noted anyway. Its number.
    fn sign_of_life(&mut self, now: Timestamp, at_once: bool) -> Option<u64> {
        let known = self.served.watch;
        let is_due = known.is_none_or(|watch| now.since(Timestamp(watch.until_ms)) >= SIGN_OF_LIFE);
        if is_due || at_once {
            let row = match known {
                Some(watch) => WatchRow { until_ms: now.0, ..watch },
                None => WatchRow { id: self.store.next_id(), from_ms: now.0, until_ms: now.0 },
            };
            self.store.note(Record::Watch(row));
            self.served.watch = Some(row);
        }
        self.served.watch.map(|watch| watch.id)
    }

    fn note_state(&self, (project, service): &(String, String), state: State, now: Timestamp) {
        let Some(watch) = self.served.watch else { return };
        self.store.note(Record::Service(ServiceRow {
            id: self.store.next_id(),
            watch: watch.id,
            at_ms: now.0,
            project: project.clone(),
            service: service.clone(),
            state: state.word().to_owned(),
        }));
    }

    /// What each service is. A project that is not known yet, or of which nothing was ever live, has no record.
    fn states(&self) -> BTreeMap<(String, String), State> {
        let mut states = BTreeMap::new();
        for project in self.projects.values().filter(|project| !project.dormant) {
            let Some((_, release)) = project.desired.live() else { continue };
            // A project that comes up for the first time isn't missed before it is there.
            let is_first = project.desired.running().is_some_and(|running| running.kind == Kind::First);
            let routed: BTreeSet<&ReplicaId> = project.observed.routed().iter().collect();
            for service in release.spec.services.values().filter(|service| service.role != Role::Job) {
                let key = (project.name.clone(), service.name.clone());
                let state = state(project, service, &routed);
                if !is_first || state == State::Served || self.served.known.contains_key(&key) {
                    states.insert(key, state);
                }
            }
        }
        states
    }
}

fn state(project: &Project, service: &Service, routed: &BTreeSet<&ReplicaId>) -> State {
    let (wanted, ready) = view::wanted_and_ready(project, service);
    let is_served = if service.is_routed() {
        let mut replicas = project.observed.replicas().filter(|(id, _)| id.service == service.name);
        replicas.any(|(id, replica)| routed.contains(id) && replica.serves(service))
    } else {
        ready > 0
    };
    match is_served {
        _ if wanted == 0 => State::Unwanted,
        true => State::Served,
        false => State::Unserved,
    }
}
