//! Being asked for the files before a container starts.
//!
//! Owns: the daemon's news, across its agent's deaths. Never: holds up a start for what can't be copied; that is told.

use std::{convert::Infallible, time::Duration};

use bulsa_core::wire::api::{Snapshot, SyncNews};
use tokio::sync::Notify;

use super::{
    Develop,
    copy::{Fresh, On, Part, containers_of},
    count, tell,
};
use crate::{
    cli::follow,
    client::{ClientError, LineStream},
    report::CommandError,
};

/// How often containers are looked for that haven't all, where no snapshot tells of any.
const LOOK: Duration = Duration::from_secs(5);

impl Develop {
    /// The services whose files are copied, each once.
    fn services(&self) -> Vec<&str> {
        let copying = self.rules.iter().filter(|rule| rule.rule.copied.is_some());
        let mut services: Vec<&str> = copying.map(|rule| rule.rule.service.as_str()).collect();
        services.sort_unstable();
        services.dedup();
        services
    }

    /// Answers for the files until they can't be had any more. `opened` is told once nothing starts without us.
    pub(in crate::cli) async fn attend_starts(
        &self,
        on: &On<'_>,
        opened: &Notify,
    ) -> Result<Infallible, CommandError> {
        let services = self.services();
        if services.is_empty() {
            opened.notify_one();
            return std::future::pending().await;
        }
        loop {
            let ended = match on.client.sync_news(on.project, &services).await {
                Ok(news) => self.hear(news, &services, on, opened).await?,
                Err(error) => error,
            };
            if !ended.may_pass() {
                return Err(ended.into());
            }
            follow::back(on.client).await?;
        }
    }

    /// Until the news end; why they did.
    async fn hear(
        &self,
        mut news: LineStream<SyncNews>,
        services: &[&str],
        on: &On<'_>,
        opened: &Notify,
    ) -> Result<ClientError, CommandError> {
        // The last snapshot that was looked at.
        let mut seen = None;
        loop {
            let look = async {
                match seen {
                    Some(number) => on.client.snapshot_after(number, LOOK).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                biased;
                heard = news.next() => heard,
                snapshot = look => match snapshot {
                    Ok(snapshot) => {
                        seen = Some(snapshot.number);
                        self.look(&snapshot, services, on).await;
                        continue;
                    }
                    Err(error) => return Ok(error),
                },
            };
            match heard {
                Ok(Some(SyncNews::Open)) => {
                    for service in services {
                        self.begin(service, on).await;
                    }
                    seen = Some(0);
                    opened.notify_one();
                }
                Ok(Some(SyncNews::Starts { ticket, service, container })) => {
                    self.before_start(&service, &container, on).await;
                    match on.client.sync_filled(ticket).await {
                        Err(error) if !error.may_pass() => return Ok(error),
                        // Where the agent is gone, the news end too.
                        _ => {}
                    }
                }
                Ok(Some(SyncNews::Started { service, container })) => {
                    self.after_start(&service, &container, on).await;
                }
                Ok(Some(SyncNews::Unknown)) => {}
                Ok(None) => {
                    let (socket, detail) = (on.client.socket().to_owned(), "it ended".to_owned());
                    return Ok(ClientError::Lost { socket, detail });
                }
                Err(error) => return Ok(error),
            }
        }
    }

    /// Containers that nobody told of: an agent that is new finds them one after another.
    async fn look(&self, snapshot: &Snapshot, services: &[&str], on: &On<'_>) {
        let Some(project) = snapshot.project(on.project) else { return };
        for service in services {
            let containers = project.service(service).map(containers_of).unwrap_or_default();
            let state = self.copies.0.lock().await;
            let has_all = containers.iter().all(|container| state.known.contains(container));
            drop(state);
            if !has_all {
                self.begin(service, on).await;
            }
        }
    }

    async fn begin(&self, service: &str, on: &On<'_>) {
        match self.catch_up(service, on).await {
            Ok(done) if done.put > 0 => {
                let (put, containers) = (count(done.put, "file"), count(done.containers, "replica"));
                tell(on.say, format!("copied {put} into {containers} of `{service}`")).await;
            }
            Ok(_) => {}
            Err(error) => tell(on.say, format!("`{service}` hasn't all files: {}", error.message)).await,
        }
    }

    async fn before_start(&self, service: &str, container: &str, on: &On<'_>) {
        let mut state = self.copies.0.lock().await;
        let text = match self.fill(&mut state, (service, container), Part::Put, on).await {
            Ok(None) => return,
            Ok(Some(0)) => None,
            Ok(Some(put)) => Some(format!("copied {} into a new replica of `{service}`", count(put, "file"))),
            Err(error) => {
                Some(format!("a new replica of `{service}` starts without all files: {}", error.message))
            }
        };
        state.known.insert(container.to_owned());
        let fresh = Fresh { service: service.to_owned(), runs: false };
        state.fresh.insert(container.to_owned(), fresh);
        drop(state);
        if let Some(text) = text {
            tell(on.say, text).await;
        }
    }

    /// Nothing can be deleted in a container before it runs.
    async fn after_start(&self, service: &str, container: &str, on: &On<'_>) {
        let mut state = self.copies.0.lock().await;
        if !state.known.contains(container) {
            return;
        }
        let removed = self.fill(&mut state, (service, container), Part::Remove, on).await;
        if let Some(fresh) = state.fresh.get_mut(container) {
            fresh.runs = true;
        }
        drop(state);
        if let Err(error) = removed {
            tell(on.say, error.message).await;
        }
    }
}
