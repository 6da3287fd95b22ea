//! Streams of one JSON object per line: a deployment's progress, and events.
//!
//! Owns: how a stream goes from what is stored to what is live without losing or doubling a line. Never: keeps a task
//! or a queue per reader; a stream is polled by its connection, and gone with it.

use std::{collections::VecDeque, convert::Infallible, future::Future, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use bulsa_core::wire::api::{
    DeploymentRow, DeploymentView, Event, Outcome, ProgressKind, ProgressV1, Snapshot,
};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::DriverHandle;
use crate::agent::store::{Store, StoreError};

/// The events read from the store at a time.
const EVENTS_CHUNK: u64 = 200;

/// Something that gives lines, a few at a time, until it ends.
pub(super) trait Lines: Send + 'static {
    /// One line's object.
    type Item: Serialize + Send;

    /// The next lines, at least one; `None` at the end. It may be given up at any await, and asked again.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Self::Item>>> + Send;

    /// What is left to say when the server ends.
    fn rest(&mut self) -> impl Future<Output = Vec<Self::Item>> + Send {
        std::future::ready(Vec::new())
    }
}

/// The response that sends `lines` until they or the server end.
pub(super) fn ndjson<L: Lines>(lines: L, stopping: CancellationToken) -> Response {
    let chunks = stream::unfold(Some(lines), move |lines| {
        let stopping = stopping.clone();
        async move {
            let mut lines = lines?;
            let next = tokio::select! {
                biased;
                () = stopping.cancelled() => None,
                next = lines.next() => Some(next?),
            };
            Some(match next {
                Some(next) => (Ok::<_, Infallible>(encode(&next)), Some(lines)),
                None => (Ok(encode(&lines.rest().await)), None),
            })
        }
    });
    let body = Body::from_stream(chunks);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn encode<T: Serialize>(items: &[T]) -> Bytes {
    let mut text = Vec::new();
    for item in items {
        // Writing a plain struct to memory can't fail; a line that did would be left out, not half there.
        if let Ok(line) = serde_json::to_vec(item) {
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
    }
    text.into()
}

/// What a deployment said, then what it says, up to its last line.
pub(super) struct ProgressStream {
    store: Store,
    published: watch::Receiver<Arc<Snapshot>>,
    project: String,
    id: u32,
    /// The last line that was sent.
    after: u32,
    done: bool,
}

impl ProgressStream {
    pub(super) fn new(driver: DriverHandle, project: String, id: u32, after: u32) -> Self {
        Self { store: driver.store, published: driver.snapshot, project, id, after, done: false }
    }

    /// The lines that weren't sent yet.
    fn unsent(&mut self, deployment: &DeploymentView) -> Vec<ProgressV1> {
        // The last line is always due: after a crash of the agent the numbers may begin anew.
        let due = |line: &&ProgressV1| line.n > self.after || line.kind == ProgressKind::Done;
        let mut lines: Vec<ProgressV1> = deployment.progress.iter().filter(due).cloned().collect();
        let last_is_done = lines.last().is_some_and(|line| line.kind == ProgressKind::Done);
        if let Some(finished) = &deployment.finished
            && !last_is_done
        {
            let n = lines.last().map_or(self.after, |line| line.n).saturating_add(1);
            let text = ending(self.id, finished.outcome, finished.reason.as_deref());
            lines.push(done(n, finished.at_ms, text, Some(finished.outcome), finished.exit_code));
        }
        if let Some(last) = lines.last() {
            self.after = last.n;
            self.done = last.kind == ProgressKind::Done;
        }
        lines
    }

    /// The last line of a deployment that is history.
    fn last_line_of(&mut self, row: &DeploymentRow) -> Option<ProgressV1> {
        let at_ms = row.finished_at_ms?;
        let outcome = row.outcome.as_deref().and_then(Outcome::from_text);
        let text = outcome.map_or_else(
            || format!("deploy {} ended", self.id),
            |outcome| ending(self.id, outcome, row.reason.as_deref()),
        );
        self.done = true;
        let code = row.exit_code.unwrap_or_else(|| outcome.map_or(1, |outcome| outcome.exit_code(true)));
        Some(done(self.after.saturating_add(1), at_ms, text, outcome, code))
    }
}

fn ending(id: u32, outcome: Outcome, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("deploy {id} {outcome}: {reason}"),
        None => format!("deploy {id} {outcome}"),
    }
}

fn done(n: u32, at_ms: u64, text: String, outcome: Option<Outcome>, exit_code: u8) -> ProgressV1 {
    ProgressV1 { n, at_ms, kind: ProgressKind::Done, text, outcome, exit_code: Some(exit_code) }
}

impl Lines for ProgressStream {
    type Item = ProgressV1;

    async fn next(&mut self) -> Option<Vec<ProgressV1>> {
        while !self.done {
            let snapshot = Arc::clone(&self.published.borrow_and_update());
            let shown =
                snapshot.project(&self.project).and_then(|p| p.deployments.iter().find(|d| d.id == self.id));
            let lines = match shown {
                Some(deployment) => self.unsent(deployment),
                None => match self.store.deployment(self.project.clone(), self.id).await {
                    Ok(Some(row)) => self.last_line_of(&row).into_iter().collect(),
                    // Its project is gone, or the disk doesn't answer: the reader sees an end without a last line.
                    Ok(None) | Err(_) => return None,
                },
            };
            if !lines.is_empty() {
                return Some(lines);
            }
            self.published.changed().await.ok()?;
        }
        None
    }
}

/// Stored events, then live ones.
pub(super) struct EventStream {
    store: Store,
    live: broadcast::Receiver<Event>,
    project: Option<String>,
    follow: bool,
    /// The id of the last event that was sent.
    after: u64,
    /// Events that are due before anything is read.
    due: VecDeque<Event>,
    /// Whether the store may hold events after `after`.
    behind: bool,
}

impl EventStream {
    /// Subscribed from now on, so that nothing falls between the store and the live part.
    pub(super) fn new(driver: DriverHandle, project: Option<String>, follow: bool) -> Self {
        let live = driver.events.subscribe();
        Self { store: driver.store, live, project, follow, after: 0, due: VecDeque::new(), behind: true }
    }

    pub(super) fn start_after(&mut self, after: u64) {
        self.after = after;
    }

    pub(super) async fn start_with_last(&mut self, count: u64) -> Result<(), StoreError> {
        self.due = self.store.last_events(self.project.clone(), count).await?.into();
        self.after = self.due.back().map_or(0, |event| event.id);
        self.behind = false;
        Ok(())
    }

    async fn stored(&mut self) -> Option<Vec<Event>> {
        let events = self.store.events(self.project.clone(), self.after, EVENTS_CHUNK).await.ok()?;
        self.behind = events.len() as u64 == EVENTS_CHUNK;
        if let Some(last) = events.last() {
            self.after = last.id;
        }
        Some(events)
    }

    fn is_mine(&self, event: &Event) -> bool {
        event.id > self.after && self.project.as_ref().is_none_or(|project| *project == event.project)
    }
}

impl Lines for EventStream {
    type Item = Event;

    async fn next(&mut self) -> Option<Vec<Event>> {
        if !self.due.is_empty() {
            return Some(self.due.drain(..).collect());
        }
        loop {
            if self.behind {
                let events = self.stored().await?;
                if !events.is_empty() {
                    return Some(events);
                }
            }
            if !self.follow {
                return None;
            }
            match self.live.recv().await {
                Ok(event) if self.is_mine(&event) => {
                    self.after = event.id;
                    return Some(vec![event]);
                }
                Ok(_) => {}
                // What this reader was too slow for is in the store.
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
