//! Waiting: for snapshots and events of the daemon, across the deaths of its agent.

use std::{collections::BTreeMap, time::Duration};

use bulsa::client::EventsQuery;
use bulsa_core::wire::api::{Event, ProjectView, ReplicaView, ServiceState, ServiceView, Snapshot};
use tokio::time::{Instant, sleep, timeout};

use crate::world::{LIMIT, LOOK_EVERY, World, pid};

/// The longest that one look waits for something new.
const POLL: Duration = Duration::from_secs(5);

impl World {
    /// What the daemon published last.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        self.until("an answer", |snapshot| Some(snapshot.clone())).await
    }

    /// Waits for a snapshot in which something holds.
    pub(crate) async fn until<T>(&self, what: &str, holds: impl Fn(&Snapshot) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        let (mut number, mut last) = (0, None);
        while Instant::now() < end {
            let client = self.client().await;
            while let Ok(snapshot) = client.snapshot_after(number, POLL).await {
                if let Some(found) = holds(&snapshot) {
                    return found;
                }
                number = snapshot.number;
                last = Some(snapshot);
                if Instant::now() >= end {
                    break;
                }
            }
            // The agent is on its way down or up.
            sleep(LOOK_EVERY).await;
        }
        panic!("waited in vain for {what}; the last snapshot: {last:#?}\n{}", self.daemon_log());
    }

    /// Waits until the project `name` runs as it should: nothing is being deployed, each service of the live release has
    /// exactly its replicas, and one proxy serves.
    pub(crate) async fn well(&self, name: &str) -> Snapshot {
        self.until("everything to be well", |snapshot| {
            let project = snapshot.project(name)?;
            let whole = |service: &ServiceView| {
                let mut live = of_live(project, service);
                if service.role == "job" {
                    return service.state == ServiceState::Healthy && live.next().is_none();
                }
                service.ready == service.desired
                    && of_live(project, service).count() == service.desired as usize
                    && live.all(|replica| replica.state == "ready")
            };
            let well = project.deploying().is_none()
                && project.live.is_some()
                && project.services.iter().all(whole)
                && snapshot.proxies.len() == 1;
            well.then(|| snapshot.clone())
        })
        .await
    }

    /// Waits until the project `name` is well and nothing but its live release has replicas.
    pub(crate) async fn alone(&self, name: &str) -> Snapshot {
        self.well(name).await;
        self.until("the other releases' end", |snapshot| {
            let project = snapshot.project(name)?;
            let other =
                |s: &ServiceView| s.replicas.iter().any(|replica| Some(replica.release) != project.live);
            (!project.services.iter().any(other)).then(|| snapshot.clone())
        })
        .await
    }

    /// The number of the newest event.
    pub(crate) async fn last_event(&self) -> u64 {
        self.events_after(None).await.last().map_or(0, |event| event.id)
    }

    /// The stored events after one, oldest first; the newest one without it.
    pub(crate) async fn events_after(&self, after: Option<u64>) -> Vec<Event> {
        let last = after.is_none().then_some(1);
        let query = EventsQuery { after, last, ..EventsQuery::default() };
        let mut stream = self.client().await.events(&query).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            events.push(event);
        }
        events
    }

    /// Waits for an event after `after`.
    pub(crate) async fn event(&self, after: u64, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        let mut after = after;
        let waiting = async {
            loop {
                let query = EventsQuery { after: Some(after), follow: true, ..EventsQuery::default() };
                if let Ok(mut stream) = self.client().await.events(&query).await {
                    while let Ok(Some(event)) = stream.next().await {
                        after = event.id;
                        if is(&event) {
                            return event;
                        }
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(LIMIT, waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for the event {what}\n{}", self.daemon_log()))
    }
}

/// The only service of the only project.
#[track_caller]
pub(crate) fn only(snapshot: &Snapshot) -> (&ProjectView, &ServiceView) {
    let project = &snapshot.projects[0];
    (project, &project.services[0])
}

/// A service's replicas of the live release.
pub(crate) fn of_live<'a>(
    project: &'a ProjectView,
    service: &'a ServiceView,
) -> impl Iterator<Item = &'a ReplicaView> {
    let counts = |replica: &&ReplicaView| replica.release == 0 || Some(replica.release) == project.live;
    service.replicas.iter().filter(counts)
}

/// The processes of the project's living replicas.
pub(crate) fn pids(project: &ProjectView) -> BTreeMap<String, i32> {
    let replicas = project.services.iter().flat_map(|service| &service.replicas);
    replicas.filter_map(|replica| Some((replica.id.clone(), pid(replica.pid?)))).collect()
}
