//! Telling people: messages to webhooks about what happened, and the heartbeat while nothing does.
//!
//! Owns: one task that hears the driver's events, keeps an outbox for each URL, and sends what those say; and how far
//! each URL was told, in the store. Never: makes the driver wait: it hears what is broadcast, and what it misses it
//! reads from the store; a URL that is slow, blocked or wrong holds up its own messages only.
//!
//! ```text
//!  driver ─ broadcast ─▶ outboxes (bulsa-core) ─▶ a task for each try ─▶ the world
//!     │                    ▲    ╲ cursors, after each message
//!     └─ notes ─▶ store ───┘     ▼
//!         what an agent before this one left untold, behind the cursors
//! ```
//!
//! At least once: a cursor moves when a message was taken, so an agent that is killed in between has a successor that
//! sends it again, with the same id. An event that is worth a message is written to the disk at once, not within the
//! second that other notes may take. With a disk that takes nothing, messages go on, from what was heard.

mod catch_up;
mod http;
mod project;
mod test;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bulsa_core::{
    notify::{
        Webhook,
        batch::Batch,
        beat,
        memory::Memory,
        outbox::Next,
        render::{INCIDENTS_MAX, Letter, body},
    },
    time::Timestamp,
    wire::api::{Event, Incident, Snapshot},
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

pub use self::test::Tester;
use self::{
    http::{Call, Trouble, call},
    project::Project,
};
use super::{
    driver::{AllSettings, AllViews, Clock, Input},
    store::{Change, Store, StoreError},
};

/// Before a project's name: the key, among the daemon's own values, of what is remembered of its messages. It isn't the
/// project's own, since that is gone with it, and its last messages may not.
const KEY: &str = "notify:";
/// How long the evidence of a message may take; it goes without it then.
const EVIDENCE_MAX: Duration = Duration::from_secs(2);
/// What could not be read or stored is tried again after this time.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What the notifier is made of.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) events: broadcast::Receiver<Event>,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) settings: watch::Receiver<AllSettings>,
    pub(super) views: watch::Sender<AllViews>,
    pub(super) driver: mpsc::Sender<Input>,
    /// The name of this host.
    pub(super) host: String,
}

/// See the module's documentation.
pub(super) struct Notifier {
    parts: Parts,
    projects: BTreeMap<String, Project>,
    /// What is under way: every try, and every question to the store.
    tasks: JoinSet<Done>,
    /// The projects whose memory is to be stored, and whether that is under way.
    unsaved: BTreeMap<String, Option<Memory>>,
    is_saving: bool,
    is_flushing: bool,
    /// Before this time the store isn't asked again.
    store_again: Timestamp,
}

/// What a task came to.
enum Done {
    /// A message was tried.
    Sent { project: String, webhook: Webhook, result: Result<u16, Trouble> },
    /// The heartbeat was called.
    Beat { project: String, result: Result<u16, Trouble> },
    /// Events that were missed.
    Read { project: String, events: Result<Vec<Event>, StoreError> },
    /// Memories are stored.
    Saved { memories: BTreeMap<String, Option<Memory>>, result: Result<(), StoreError> },
    /// What was heard is on the disk, or won't be for now.
    Flushed,
}

impl Notifier {
    /// One that goes on where the agent before this one was.
    pub(super) fn new(parts: Parts, values: &[(String, String)]) -> Self {
        let now = parts.clock.now();
        let mut projects = BTreeMap::new();
        for (key, value) in values {
            let Some(name) = key.strip_prefix(KEY) else { continue };
            match serde_json::from_str(value) {
                Ok(memory) => drop(projects.insert(name.to_owned(), Project::new(memory, now))),
                Err(error) => {
                    tracing::warn!(project = name, %error, "what was told of a project can't be read");
                }
            }
        }
        Self {
            parts,
            projects,
            tasks: JoinSet::new(),
            unsaved: BTreeMap::new(),
            is_saving: false,
            is_flushing: false,
            store_again: Timestamp(0),
        }
    }

    /// Runs until the driver is gone.
    pub(super) async fn run(mut self) {
        // The driver says who is told as soon as it knows what the store has.
        if self.parts.settings.changed().await.is_err() {
            return;
        }
        self.take_settings();
        self.catch_up_all();
        loop {
            let wake = self.act();
            self.publish();
            let at = self.parts.clock.instant(wake);
            tokio::select! {
                event = self.parts.events.recv() => match event {
                    Ok(event) => self.hear(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = self.parts.settings.changed() => match changed {
                    Ok(()) => self.take_settings(),
                    Err(_) => return,
                },
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.done(done).await,
                    Err(error) => tracing::error!(%error, "a task of the notifier ended badly"),
                },
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    /// Who is told now.
    fn take_settings(&mut self) {
        let (now, all) = (self.parts.clock.now(), Arc::clone(&self.parts.settings.borrow_and_update()));
        for (name, project) in self.projects.iter_mut().filter(|(name, _)| !all.contains_key(*name)) {
            tracing::debug!(project = name, "nobody is told of a project any more");
            project.leave();
        }
        for (name, settings) in all.iter() {
            let is_new = !self.projects.contains_key(name);
            let project =
                self.projects.entry(name.clone()).or_insert_with(|| Project::new(Memory::default(), now));
            let before = project.memory.clone();
            project.set(settings, now);
            if is_new || project.memory != before {
                self.unsaved.insert(name.clone(), Some(project.memory.clone()));
                self.catch_up(&name.clone());
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        let now = self.parts.clock.now();
        let Some(project) = self.projects.get_mut(&event.project) else { return };
        if let Some(catching_up) = &mut project.catching_up {
            catching_up.missed = true;
        } else if project.see(event, now) {
            self.flush();
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Sent { project, webhook, result } => self.sent(&project, &webhook, result).await,
            Done::Beat { project, result } => self.beaten(&project, result),
            Done::Read { project, events } => self.was_read(project, events),
            Done::Saved { memories, result } => self.saved(memories, result),
            Done::Flushed => self.is_flushing = false,
        }
    }

    /// Does what is due, and says when to look again.
    fn act(&mut self) -> Timestamp {
        const LOOK: Duration = Duration::from_secs(60);
        let now = self.parts.clock.now();
        let mut wake = now + LOOK;
        let mut due = Vec::new();
        let mut beats = Vec::new();
        for (name, project) in &mut self.projects {
            for target in project.targets.iter_mut().filter(|_| project.catching_up.is_none()) {
                match target.next(now) {
                    Next::Send(batch) => due.push((name.clone(), target.webhook.clone(), batch)),
                    Next::Wait(at) => wake = wake.min(at),
                    Next::Idle => {}
                }
            }
            if let Some(beat) = project.heartbeat.as_mut().filter(|beat| !beat.is_out) {
                if beat.at <= now {
                    beat.at = now + Duration::from_millis(beat.heartbeat.interval_ms);
                    // A level, looked at when it is due: what doesn't serve then isn't called for until the next time.
                    if beat::serves(&self.parts.snapshot.borrow(), name) {
                        beat.is_out = true;
                        beats.push((name.clone(), beat.heartbeat.url.clone()));
                    }
                }
                wake = wake.min(beat.at);
            }
        }
        for (project, webhook, batch) in due {
            self.send(project, webhook, batch);
        }
        for (project, url) in beats {
            self.tasks.spawn(async move {
                let result = call(&url, Call::Get).await;
                Done::Beat { project, result }
            });
        }
        self.forget();
        self.save(now);
        // What is being stored says when it is done.
        if self.unsaved.is_empty() || self.is_saving { wake } else { wake.min(self.store_again.max(now)) }
    }

    /// Sends a message, with what is known of its incidents by now.
    fn send(&mut self, project: String, webhook: Webhook, batch: Batch) {
        let (store, host, clock) = (self.parts.store.clone(), self.parts.host.clone(), self.parts.clock);
        self.tasks.spawn(async move {
            let incidents = evidence(&store, &batch).await;
            let letter = Letter {
                project: &project,
                host: &host,
                batch: &batch,
                incidents: &incidents,
                now: clock.now(),
            };
            let body = body(webhook.format, &letter);
            let result = call(&webhook.url, Call::Post(body)).await;
            Done::Sent { project, webhook, result }
        });
    }

    async fn sent(&mut self, name: &str, webhook: &Webhook, result: Result<u16, Trouble>) {
        let now = self.parts.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        // One that the file names no more has nobody to be told for.
        let Some(target) = project.target(webhook) else { return };
        let given_up = match result {
            Ok(_) => {
                target.outbox.delivered();
                target.view.sent += 1;
                (target.view.error, target.view.last_sent_at_ms) = (None, Some(now.0));
                None
            }
            Err(trouble) => {
                tracing::info!(project = name, target = %webhook.url, error = trouble.text, "a message was not taken");
                let given_up = target.outbox.failed(trouble.failure, now, random());
                target.view.given_up += u64::from(given_up.is_some());
                target.view.error = Some(trouble.text.clone());
                given_up.map(|given_up| {
                    format!(
                        "a message about {} events to {} ({}) was given up after {} tries: {}; {}",
                        given_up.events,
                        webhook.url,
                        webhook.format,
                        given_up.tries,
                        trouble.text,
                        trouble.hint
                    )
                })
            }
        };
        if project.remember() {
            self.unsaved.insert(name.to_owned(), Some(project.memory.clone()));
        }
        if let Some(text) = given_up {
            // Only a driver that is gone doesn't want to know.
            self.parts.driver.send(Input::GivenUp { project: name.to_owned(), text }).await.ok();
        }
    }

    fn beaten(&mut self, name: &str, result: Result<u16, Trouble>) {
        let now = self.parts.clock.now();
        let Some(beat) = self.projects.get_mut(name).and_then(|project| project.heartbeat.as_mut()) else {
            return;
        };
        beat.is_out = false;
        match result {
            Ok(_) => {
                beat.view.sent += 1;
                (beat.view.error, beat.view.last_sent_at_ms) = (None, Some(now.0));
            }
            Err(trouble) => {
                beat.view.given_up += 1;
                beat.view.error = Some(trouble.text);
            }
        }
    }

    /// Forgets the projects that are down and have nothing left to tell.
    fn forget(&mut self) {
        let done: Vec<String> =
            self.projects.extract_if(.., |_, project| project.is_done()).map(|(name, _)| name).collect();
        self.unsaved.extend(done.into_iter().map(|name| (name, None)));
    }

    /// Stores what has changed, one set after another.
    fn save(&mut self, now: Timestamp) {
        if self.is_saving || self.unsaved.is_empty() || now < self.store_again {
            return;
        }
        self.is_saving = true;
        let (memories, store) = (std::mem::take(&mut self.unsaved), self.parts.store.clone());
        self.tasks.spawn(async move {
            let changes = memories.iter().map(|(name, memory)| Change::SetValue {
                project: String::new(),
                key: format!("{KEY}{name}"),
                // Texts and numbers always have a form in JSON.
                value: memory.as_ref().and_then(|memory| serde_json::to_string(memory).ok()),
            });
            let result = store.commit_all(changes.collect()).await;
            Done::Saved { memories, result }
        });
    }

    fn saved(&mut self, memories: BTreeMap<String, Option<Memory>>, result: Result<(), StoreError>) {
        self.is_saving = false;
        if let Err(error) = result {
            tracing::warn!(%error, "how far messages were told can't be stored: the next agent may send some again");
            self.store_again = self.parts.clock.now() + STORE_RETRY;
            // What changed since is newer.
            for (name, memory) in memories {
                self.unsaved.entry(name).or_insert(memory);
            }
        }
    }

    fn publish(&self) {
        let shown = self.projects.iter().filter(|(_, project)| !project.is_gone);
        let views: BTreeMap<_, _> = shown.map(|(name, project)| (name.clone(), project.views())).collect();
        self.parts.views.send_if_modified(|known| {
            let is_new = **known != views;
            if is_new {
                *known = Arc::new(views);
            }
            is_new
        });
    }
}

/// What is known of a message's first incidents; nothing where the store doesn't answer: the message matters more.
async fn evidence(store: &Store, batch: &Batch) -> Vec<Incident> {
    let mut ids = batch.incidents();
    ids.truncate(INCIDENTS_MAX);
    if ids.is_empty() {
        return Vec::new();
    }
    match timeout(EVIDENCE_MAX, store.incidents_by_id(ids)).await {
        Ok(Ok(rows)) => rows.iter().map(Incident::from).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// A random number, for the jitter of tries.
fn random() -> u32 {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    // The low half of a UUID of version 4 is random but for its first two bits.
    low as u32
}

/// The name of this host, as the kernel has it.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
