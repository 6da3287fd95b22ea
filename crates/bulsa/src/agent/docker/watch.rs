//! Seeing what happens to containers, over restarts of the Engine.
//!
//! Owns: the stream of events and the full lists beside it. Never: concludes a state from events: the Engine keeps few
//! of them, drops them for a slow reader, and says nothing of a death while it was away itself. So a list comes after
//! each (re)connection and every [`LIST_EVERY`], and an event is only a hint to look at once.
//!
//! Events are asked for from the moment before a list on, so that nothing falls between the two; one may be told twice.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{Docker, DockerError, EngineInfo, Found, create::labels, label};

/// From one list to the next while there is anything of ours.
pub const LIST_EVERY: Duration = Duration::from_secs(5);

/// The first wait before the Engine is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before the Engine is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// So many containers that ran out of memory are remembered until their death is told.
const OOM_MAX: usize = 256;

/// The events that are asked for: a health check alone makes three others at each run.
const EVENTS: [&str; 10] =
    ["start", "die", "oom", "kill", "stop", "destroy", "health_status", "pause", "unpause", "rename"];

/// What the watcher tells.
#[derive(Clone, Debug)]
pub enum News {
    /// The Engine answers; a list follows.
    Connected(EngineInfo),
    /// It answers no more. The watcher goes on trying.
    Lost {
        /// Why.
        error: DockerError,
    },
    /// Everything of ours, and of the [adopted](Docker::adopt) projects.
    Listed {
        /// What there is.
        containers: Vec<Found>,
        /// When it was asked: what was done after that may not be in it.
        asked_at: std::time::Instant,
    },
    /// Something happened to one of them.
    Happened {
        /// Its id.
        container: String,
        /// Its [`label::REPLICA`], if it is ours.
        replica: Option<String>,
        /// The service whose name it carries, if it is an anchor.
        anchor: Option<String>,
        /// Its project.
        project: String,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// What.
        what: Happened,
    },
}

/// What may happen to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was started.
    Started,
    /// Its first process ended.
    Died {
        /// Its exit code.
        exit_code: i64,
        /// Whether it had run out of memory before.
        oom: bool,
    },
    /// The Engine was asked to send it a signal (`docker kill`, or the first part of a stop).
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The Engine was asked to stop it (`docker stop`, a shutdown of the Engine, us), and it is down.
    StopAsked,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Unpaused,
    /// It is gone.
    Removed,
    /// The Engine's own health check changed its verdict: `healthy`, `unhealthy`.
    Health(String),
    /// It has another name.
    Renamed,
}

impl Docker {
    /// Watches until `out` is closed. While `out` is full nothing is read, and what the Engine drops then is made good
    /// by the next list.
    pub fn watch(&self, out: mpsc::Sender<News>) -> JoinHandle<()> {
        let watcher = Watcher { docker: self.clone(), out, oom: BTreeSet::new() };
        tokio::spawn(watcher.run())
    }
}

/// The other end doesn't listen any more.
struct Closed;

struct Watcher {
    docker: Docker,
    out: mpsc::Sender<News>,
    oom: BTreeSet<String>,
}

impl Watcher {
    async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        loop {
            let began = Instant::now();
            let error = match self.connected().await {
                Ok(Closed) => return,
                Err(error) => error,
            };
            if self.tell(News::Lost { error }).await.is_err() {
                return;
            }
            // A connection that held for a while was a good one.
            wait = if began.elapsed() > RETRY_MAX { RETRY_FIRST } else { (wait * 2).min(RETRY_MAX) };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.out.closed() => return,
            }
        }
    }

    /// One connection, until it is lost.
    async fn connected(&mut self) -> Result<Closed, DockerError> {
        let engine = self.docker.look().await?;
        let since = since();
        if self.tell(News::Connected(engine)).await.is_err() {
            return Ok(Closed);
        }
        let Ok(mut is_any) = self.list().await? else { return Ok(Closed) };
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", EVENTS.map(str::to_owned).to_vec()),
        ]);
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let docker = self.docker.clone();
        let mut events = std::pin::pin!(docker.client().events(Some(options)));
        let mut ticks = interval_at(Instant::now() + LIST_EVERY, LIST_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let out = self.out.clone();
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        let Some(news) = self.read(event) else { continue };
                        is_any = true;
                        if self.tell(news).await.is_err() {
                            return Ok(Closed);
                        }
                    }
                    Some(Err(error)) => {
                        return Err(DockerError::of("asked for events", &docker.inner.socket, error));
                    }
                    None => return Err(self.ended()),
                },
                _ = ticks.tick(), if is_any => {
                    let Ok(found) = self.list().await? else { return Ok(Closed) };
                    is_any = found;
                }
                () = out.closed() => return Ok(Closed),
            }
        }
    }

    fn ended(&self) -> DockerError {
        DockerError::Unreachable {
            socket: self.docker.inner.socket.display().to_string(),
            detail: "the stream of events ended".to_owned(),
        }
    }

    /// Tells a list; says whether anything is in it.
    async fn list(&mut self) -> Result<Result<bool, Closed>, DockerError> {
        let asked_at = std::time::Instant::now();
        let containers = self.docker.list().await?;
        let is_any = !containers.is_empty();
        Ok(self.tell(News::Listed { containers, asked_at }).await.map(|()| is_any))
    }

    async fn tell(&self, news: News) -> Result<(), Closed> {
        self.out.send(news).await.map_err(|_| Closed)
    }

    /// What an event tells; `None` if it isn't about ours, or nothing that is told.
    fn read(&mut self, event: EventMessage) -> Option<News> {
        let actor = event.actor?;
        let container = actor.id?;
        let attributes = actor.attributes.unwrap_or_default();
        let get = |name: &str| attributes.get(name).map(String::as_str);
        let is_ours = match get(label::OWNER) {
            Some(owner) => owner == self.docker.owner(),
            None => get(labels::PROJECT).is_some_and(|project| self.docker.adopted().contains(project)),
        };
        if !is_ours {
            return None;
        }
        let action = event.action?;
        if action == "oom" {
            if self.oom.len() < OOM_MAX {
                self.oom.insert(container);
            }
            return None;
        }
        if matches!(action.as_str(), "start" | "destroy") {
            self.oom.remove(&container);
        }
        let what = happened(&action, &get, || self.oom.remove(&container))?;
        Some(News::Happened {
            replica: get(label::REPLICA).map(str::to_owned),
            anchor: get(label::ANCHOR).filter(|_| get(label::REPLICA).is_none()).map(str::to_owned),
            project: get(label::PROJECT).or_else(|| get(labels::PROJECT)).unwrap_or_default().to_owned(),
            at_ms: event
                .time_nano
                .and_then(|nanos| u64::try_from(nanos / 1_000_000).ok())
                .unwrap_or_default(),
            container,
            what,
        })
    }
}

fn happened<'a>(
    action: &str,
    get: &impl Fn(&str) -> Option<&'a str>,
    ran_out_of_memory: impl FnOnce() -> bool,
) -> Option<Happened> {
    Some(match action {
        "start" => Happened::Started,
        "die" => Happened::Died {
            exit_code: get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1),
            oom: ran_out_of_memory(),
        },
        "kill" => Happened::Signalled { signal: get("signal").and_then(|signal| signal.parse().ok())? },
        "stop" => Happened::StopAsked,
        "pause" => Happened::Paused,
        "unpause" => Happened::Unpaused,
        "destroy" => Happened::Removed,
        "rename" => Happened::Renamed,
        other => Happened::Health(other.strip_prefix("health_status:")?.trim().to_owned()),
    })
}

/// Now, as the Engine reads it.
fn since() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(action: &str, attributes: &[(&str, &str)], oom: bool) -> Option<Happened> {
        let get = |name: &str| attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        happened(action, &get, || oom)
    }

    #[test]
    fn events_are_read_as_the_engine_writes_them() {
        assert_eq!(
            read("die", &[("exitCode", "137")], true),
            Some(Happened::Died { exit_code: 137, oom: true })
        );
        assert_eq!(read("kill", &[("signal", "15")], false), Some(Happened::Signalled { signal: 15 }));
        assert_eq!(
            read("health_status: unhealthy", &[], false),
            Some(Happened::Health("unhealthy".to_owned()))
        );
        assert_eq!(read("exec_die", &[("exitCode", "0")], false), None);
    }
}
