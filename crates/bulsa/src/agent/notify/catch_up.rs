//! What was not heard: events from before this agent, and those that were too many at once, from the store.
//!
//! Owns: the order in which a project's events are looked at: what is heard while others are still being read is passed
//! over, and read with them. Never: waits for the store.

use std::time::Duration;

use bulsa_core::wire::api::Event;

use super::{Done, Notifier, STORE_RETRY, project::CatchingUp};
use crate::agent::store::{ROWS_READ_MAX, StoreError};

impl Notifier {
    /// Has what was heard written to the disk.
    pub(super) fn flush(&mut self) {
        if !std::mem::replace(&mut self.is_flushing, true) {
            let store = self.parts.store.clone();
            self.tasks.spawn(async move {
                if let Err(error) = store.flush().await {
                    tracing::debug!(%error, "an event could not be written at once");
                }
                Done::Flushed
            });
        }
    }

    pub(super) fn catch_up_all(&mut self) {
        let names: Vec<String> = self.projects.keys().cloned().collect();
        names.iter().for_each(|name| self.catch_up(name));
    }

    /// Reads the events that a project's URLs have not seen.
    pub(super) fn catch_up(&mut self, name: &str) {
        let Some(project) = self.projects.get_mut(name) else { return };
        if let Some(catching_up) = &mut project.catching_up {
            catching_up.missed = true;
            return;
        }
        let Some(after) = project.seen() else { return };
        project.catching_up = Some(CatchingUp::default());
        self.read(name.to_owned(), after, Duration::ZERO);
    }

    fn read(&mut self, project: String, after: u64, wait: Duration) {
        let store = self.parts.store.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let events = store.events(Some(project.clone()), after, ROWS_READ_MAX).await;
            Done::Read { project, events }
        });
    }

    pub(super) fn was_read(&mut self, name: String, events: Result<Vec<Event>, StoreError>) {
        let now = self.parts.clock.now();
        let Some(project) = self.projects.get_mut(&name) else { return };
        let Some(after) = project.seen() else {
            project.catching_up = None;
            return;
        };
        match events {
            Err(error) => {
                tracing::warn!(%error, project = name, "what is to be told can't be read");
                self.read(name, after, STORE_RETRY);
            }
            Ok(events) if events.is_empty() => {
                // What was passed over meanwhile is in the store by now.
                let missed = project.catching_up.take().is_some_and(|catching_up| catching_up.missed);
                if missed {
                    self.catch_up(&name);
                }
            }
            Ok(events) => {
                for event in &events {
                    project.see(event, now);
                }
                let after = project.seen().unwrap_or(after);
                self.read(name, after, Duration::ZERO);
            }
        }
    }
}
