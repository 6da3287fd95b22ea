//! How containers end, and whose doing it was.
//!
//! Owns: telling a death from a human's wish. A `docker stop` or `docker kill` of a container, `compose stop` and
//! `compose down` are wishes, if the Engine stays up after them; a signal from inside, `docker rm -f`, and an Engine
//! that shuts down (which looks like a `docker stop` of everything) are deaths. So a container that gets a signal to
//! end which isn't ours is un-routed, nothing takes its place, and it is looked at again every [`LOOK_AGAIN`] until it
//! has ended and what that was is clear. Compose that makes our containers anew (`docker compose up`) stops them, too: it
//! is known by the container that it makes beside ours. Never: acts on the difference; that is the core's.

use std::time::Duration;

use bulsa_core::{
    decide::{Event, ExitStatus, Origin},
    ids::ReplicaId,
    spec::Role,
    time::Timestamp,
};

use super::{DockerInput, Driver, Input, State};
use crate::agent::{
    docker::{Docker, Found},
    driver::acks::WRITTEN_MAX,
};

/// One that lives on for so long after a signal has taken it for something else than its end. (`docker stop` waits ten
/// seconds unless told otherwise.)
const SURVIVED: Duration = Duration::from_secs(12);

/// So much later the second look comes: an Engine that shuts down has stopped to answer by then, and `docker rm -f`
/// has removed the container.
const LOOK_AGAIN: Duration = Duration::from_millis(1000);

/// So long after a stop Compose may need to make its own container: 1.29 does it only then.
const BESIDE_WAIT: Duration = Duration::from_secs(2);

/// A container that Compose made so long before ours was stopped, or later, is why ours was.
const BESIDE_SINCE: Duration = Duration::from_secs(60);

/// So many digits of a container's id are shown, and used, as its short one.
const SHORT_ID: usize = 12;

/// SIGINT, SIGQUIT, SIGKILL and SIGTERM: what a program is ended with.
const ENDING: [i32; 4] = [2, 3, 9, 15];

/// What others did to a container.
#[derive(Clone, Debug, Default)]
pub(in crate::agent::driver) struct Meddling {
    /// The Engine was asked to stop it (`docker stop`), not only to signal it.
    stop: bool,
    /// The last signal that it was sent through the Engine.
    signal: Option<i32>,
    /// How it ended, and when.
    ended: Option<(ExitStatus, Timestamp)>,
    /// When it was meddled with first.
    since: Timestamp,
}

/// What a second look found.
pub(in crate::agent) struct Judged {
    container: String,
    /// `Err`: the Engine is gone. `Ok(None)`: the container is.
    found: Result<Option<Found>, String>,
    /// The containers that Compose has for its service.
    beside: Vec<Found>,
}

impl Driver {
    /// Somebody sent a container a signal, or asked the Engine to stop it.
    pub(super) fn meddled(&mut self, container: &str, signal: Option<i32>) {
        if self.docker.asked.contains(container) {
            return;
        }
        let Some((name, id)) = self.docker.containers.get(container).cloned() else { return };
        // The last word of a stop of ours may come when the container is started again already.
        if self.is_stopping(&name, &id) || self.start_reports(&name, &id) {
            return;
        }
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(&name) else { return };
        let stops = project
            .desired
            .service(id.release, &id.service)
            .is_some_and(|service| signal == Some(service.stop_signal));
        // Others are for the program: a reload, a dump.
        if signal.is_some_and(|signal| !ENDING.contains(&signal)) && !stops {
            return;
        }
        let is_new = !self.docker.meddling.contains_key(container);
        // The `stop` event comes before or after `die`.
        if is_new && project.observed.replica(&id).is_none() {
            return;
        }
        let fresh = Meddling { since: now, ..Meddling::default() };
        let meddling = self.docker.meddling.entry(container.to_owned()).or_insert(fresh);
        match signal {
            Some(signal) => meddling.signal = Some(signal),
            None => meddling.stop = true,
        }
        if is_new {
            project.apply(Event::Paused { id, paused: true }, now);
            self.look_later(container);
        }
    }

    /// A container ended.
    pub(super) fn container_died(&mut self, container: &str, exit_code: i64, oom: bool) {
        let Some((name, id)) = self.docker.containers.get(container).cloned() else { return };
        let (now, status) = (self.clock.now(), status_of(exit_code, oom));
        self.know_memory(&name, &id, oom);
        if self.start_reports(&name, &id) {
            // If the start reports that it runs, that is older news.
            self.docker.died_early.insert(container.to_owned(), status);
            return;
        }
        let ours = self.docker.asked.contains(container) || self.is_stopping(&name, &id);
        let is_taken_away = self.is_taken_away(&name, &id);
        match self.docker.meddling.get_mut(container).filter(|_| !ours) {
            Some(meddling) => meddling.ended = Some((status, now)),
            // What a human stopped is left as it is; this comes late.
            None if is_taken_away => {}
            None => self.ended(container, &name, &id, status),
        }
    }

    /// Whoever hears of an end first may hear that memory ran out.
    fn know_memory(&mut self, name: &str, id: &ReplicaId, ran_out: bool) {
        let meta = self.projects.get_mut(name).and_then(|project| project.meta.get_mut(id));
        if let Some(meta) = meta.filter(|_| ran_out) {
            meta.out_of_memory = true;
        }
    }

    /// Whether a human's wish emptied a replica's place, and it is known.
    fn is_taken_away(&self, name: &str, id: &ReplicaId) -> bool {
        self.projects.get(name).is_some_and(|project| {
            let history = project.observed.slot(&id.slot());
            let is_empty = project.observed.replica(id).is_none();
            let is_seen = history.is_some_and(|history| history.taken_away);
            is_empty && (is_seen || project.desired.withheld.contains(&id.slot()))
        })
    }

    /// A container was started, by us, by Docker or by a human. One that Docker keeps may end again before anybody has
    /// looked at it, and that is a death like any other.
    pub(super) fn container_up(&mut self, container: &str) {
        let Some((name, id)) = self.docker.containers.get(container).cloned() else { return };
        if !self.start_reports(&name, &id) && self.role_of(&name, &id) == Role::Shared {
            let now = self.clock.now();
            let Some(project) = self.projects.get_mut(&name) else { return };
            let is_away = project.desired.withheld.contains(&id.slot());
            if project.observed.replica(&id).is_none() && !is_away {
                project.meta.entry(id.clone()).or_default().container = Some(container.to_owned());
                let origin = Origin::Adopted { routed: false };
                project.apply(Event::Started { id, at: now, origin }, now);
            }
        }
        self.look_again(container);
    }

    /// Whether a start is under way that reports what becomes of a replica's container. A backing service's container
    /// outlives its attempts: the start may be the next one's.
    pub(super) fn start_reports(&self, name: &str, id: &ReplicaId) -> bool {
        self.docker.starting.iter().any(|starting| self.is_of_start(starting, name, id))
    }

    /// Whether a replica's container is the one that a start is about.
    pub(super) fn is_of_start(&self, starting: &(String, ReplicaId), name: &str, id: &ReplicaId) -> bool {
        let (of, begun) = starting;
        let outlives = || begun.slot() == id.slot() && self.role_of(name, id) == Role::Shared;
        of == name && (begun == id || outlives())
    }

    /// Whether it isn't clear yet what somebody did to a container of a project, or of one of its services.
    pub(in crate::agent::driver) fn is_meddled(&self, project: &str, service: Option<&str>) -> bool {
        let whose = self.docker.meddling.keys().filter_map(|container| self.docker.containers.get(container));
        let mut of_project = whose.filter(|(name, _)| name == project);
        of_project.any(|(_, id)| service.is_none_or(|service| id.service == service))
    }

    /// Looks at a container again in a while.
    pub(super) fn look_later(&self, container: &str) {
        self.look_after(container, LOOK_AGAIN);
    }

    /// Looks at one container now.
    pub(super) fn look_again(&self, container: &str) {
        if self.engine().is_ok() {
            self.look_after(container, Duration::ZERO);
        }
    }

    fn look_after(&self, container: &str, wait: Duration) {
        let engine = self.engine();
        let whose = self.docker.containers.get(container);
        let whose = whose.map(|(project, id)| (project.clone(), id.service.clone()));
        let (inbox, container) = (self.inbox.clone(), container.to_owned());
        drop(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let (found, beside) = match engine {
                Ok(engine) => second_look(&engine, &container, whose).await,
                Err(error) => (Err(error), Vec::new()),
            };
            inbox.send(DockerInput::Judged(Judged { container, found, beside }).into()).await.ok();
        }));
    }

    /// The second look is done: it was a human, or it was a death.
    pub(super) fn judged(&mut self, judged: Judged) {
        let Judged { container, found, mut beside } = judged;
        let now = self.clock.now();
        let mut meddling = self.docker.meddling.remove(&container).unwrap_or_default();
        let is_up = matches!(&found, Ok(Some(found)) if found.is_up());
        let is_young = now.since(meddling.since) < SURVIVED;
        let by_human = meddling.stop || meddling.signal.is_some();
        let since = Timestamp(meddling.since.0.saturating_sub(millis(BESIDE_SINCE)));
        beside.retain(|found| found.created_at_ms.is_some_and(|created| created >= since.0));
        let is_renamed = matches!(&found, Ok(Some(found)) if is_renamed_by_compose(found));
        let by_compose = is_renamed || !beside.is_empty();
        // It is told to end, and takes its time; or the end was told of before the Engine had it in its books.
        let ends = is_up && is_young && by_human && meddling.ended.is_none();
        // An Engine that is busy tells of the end, and that it was a stop, later than it has it in its books.
        if let (true, None, Ok(Some(found))) = (by_human && !is_up, meddling.ended, &found) {
            meddling.ended = Some((status_of(found.exit_code, found.oom_killed), now));
        }
        // Compose stops ours before it makes its own, or after.
        let may_be_composes = by_human
            && !is_up
            && found.is_ok()
            && !by_compose
            && meddling.ended.is_some_and(|(_, at)| now.since(at) < BESIDE_WAIT);
        if ends || may_be_composes {
            self.docker.meddling.insert(container.clone(), meddling);
            return self.look_later(&container);
        }
        let Some((name, id)) = self.docker.containers.get(&container).cloned() else { return };
        self.know_memory(&name, &id, matches!(&found, Ok(Some(found)) if !found.is_up() && found.oom_killed));
        let seen = match &found {
            Ok(Some(found)) if !found.is_up() => status_of(found.exit_code, found.oom_killed),
            _ => ExitStatus::Unknown,
        };
        let status = meddling.ended.map_or(seen, |(status, _)| status);
        match found {
            // An Engine that is gone shut down: the list after its return says what is left.
            Err(error) => tracing::info!(error, container, "the Engine went away after a container ended"),
            Ok(Some(found)) if matches!(found.state, State::Running | State::Paused) => {
                self.resume(&name, &id);
                self.see(found);
            }
            // Docker starts it again by its policy, and may wait for that.
            Ok(Some(found)) if found.state == State::Restarting => {
                if meddling.ended.is_some() {
                    self.ended(&container, &name, &id, status);
                } else {
                    self.look_later(&container);
                }
            }
            Ok(found) if by_human && by_compose => {
                self.replaced_by_compose(&name, &id, &beside);
                if found.is_none() {
                    self.docker.containers.remove(&container);
                }
                self.ended(&container, &name, &id, status);
            }
            Ok(Some(_)) if by_human => self.taken_away(&name, &id, status, meddling.stop),
            Ok(None) if meddling.stop => {
                self.docker.containers.remove(&container);
                self.taken_away(&name, &id, status, true);
            }
            Ok(None) => {
                self.docker.containers.remove(&container);
                self.ended(&container, &name, &id, status);
            }
            Ok(Some(_)) => self.ended(&container, &name, &id, status),
        }
    }

    /// Compose has stopped ours to put its own in their place. A backing service's is taken on; others serve nobody, and
    /// answer to the service's name all the same.
    fn replaced_by_compose(&mut self, name: &str, id: &ReplicaId, beside: &[Found]) {
        if self.role_of(name, id) == Role::Shared {
            return;
        }
        let short = |found: &Found| found.id.chars().take(SHORT_ID).collect::<String>();
        let mut theirs: Vec<String> = beside.iter().map(short).collect();
        theirs.sort();
        let left = match theirs.is_empty() {
            true => String::new(),
            false => format!("; remove what Compose made beside it with `docker rm -f {}`", theirs.join(" ")),
        };
        let text = format!(
            "Docker Compose stopped a container of `{}` to make its own in its place; Bulsa's is started again{left}; use \
             `bulsa up` here instead of `docker compose up`",
            id.service
        );
        self.warn(name, "compose.beside", text);
    }

    fn resume(&mut self, name: &str, id: &ReplicaId) {
        let now = self.clock.now();
        if let Some(project) = self.projects.get_mut(name) {
            project.apply(Event::Paused { id: id.clone(), paused: false }, now);
        }
    }

    /// A human's wish: seen, recorded as theirs, and left alone.
    fn taken_away(&mut self, name: &str, id: &ReplicaId, status: ExitStatus, stopped: bool) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        project.apply(Event::TakenAway { id: id.clone(), status }, now);
        let text = format!(
            "{} was {} by a person and is left alone; `bulsa start {}` or `docker start` brings it back",
            id.name(),
            if stopped { "stopped" } else { "killed" },
            id.service
        );
        self.tell(name, "replica.taken_away", Some(id), text);
        self.forget(name, id);
    }

    /// A replica is dead, and its container is of no more use.
    pub(super) fn ended(&mut self, container: &str, name: &str, id: &ReplicaId, status: ExitStatus) {
        if self.docker.ending.contains(container) {
            return;
        }
        // What it wrote last says why a release can't be taken; a replica that served is replaced without a delay.
        let replica = self.projects.get(name).and_then(|project| project.observed.replica(id));
        let is_news = replica.is_some_and(|replica| replica.health.ready_since().is_none());
        if is_news {
            // One that ends at once may end before anybody follows what it writes.
            self.follow_output(name, id, container);
        }
        let follower = self.docker.followers.remove(container);
        let (true, Some(follower)) = (is_news, follower) else {
            return self.finish(container, name, id, status);
        };
        self.docker.ending.insert(container.to_owned());
        let now = self.clock.now();
        if let Some(project) = self.projects.get_mut(name) {
            project.apply(Event::EndSeen(id.clone()), now);
        }
        let (inbox, container) = (self.inbox.clone(), container.to_owned());
        self.tasks.spawn(async move {
            super::logs::finish(follower).await;
            inbox.send(DockerInput::Ended { container, status }.into()).await.ok();
        });
    }

    /// A container's last output is copied: now its end is told.
    pub(super) fn output_copied(&mut self, container: &str, status: ExitStatus) {
        self.docker.ending.remove(container);
        if let Some((name, id)) = self.docker.containers.get(container).cloned() {
            self.finish(container, &name, &id, status);
        }
    }

    fn finish(&mut self, container: &str, name: &str, id: &ReplicaId, status: ExitStatus) {
        let is_shared = self.role_of(name, id) == Role::Shared;
        self.docker.asked.remove(container);
        self.replica_gone(name, id, status);
        // The data of a backing service may be in its container: it is started again as it is.
        if !is_shared || self.projects.get(name).is_none_or(|project| project.desired.down) {
            self.remove_container(container);
        }
    }

    /// A container that is there and doesn't run.
    pub(super) fn see_ended(&mut self, name: &str, id: &ReplicaId, found: &Found) {
        if self.start_reports(name, id)
            || self.docker.meddling.contains_key(&found.id)
            || self.docker.ending.contains(&found.id)
        {
            return;
        }
        let Some(project) = self.projects.get(name) else { return };
        if project.desired.withheld.contains(&id.slot()) {
            return; // a human stopped it, and may start it again
        }
        let is_known = project.observed.replica(id).is_some();
        let is_shared = self.role_of(name, id) == Role::Shared;
        if !is_known && is_shared {
            if self.is_superseded(name, id) {
                self.remove_container(&found.id);
            }
            return; // decide finds that it is missing, and starts it as it is
        }
        let status = status_of(found.exit_code, found.oom_killed);
        self.know_memory(name, id, found.oom_killed);
        // One that nobody saw running ended while no agent lived, or is old news: the core tells the two apart.
        self.ended(&found.id, name, id, status);
    }

    /// One that was made and never started. An agent that was killed in between leaves it, and its successor, which
    /// gives new names, would never come back to it.
    pub(super) fn see_created(&mut self, name: &str, id: &ReplicaId, found: &Found) {
        let is_starting = self.docker.starting.contains(&(name.to_owned(), id.clone()));
        // A list that was asked for before its start was told of shows it so, too.
        let is_known = self.projects.get(name).is_some_and(|project| project.observed.replica(id).is_some());
        if found.ours && !is_starting && !is_known {
            self.remove_container(&found.id);
        }
    }

    /// Removes a container that ended, after its last output was copied. With a backing service's container its
    /// anonymous volumes stay: they hold users' data, and Compose's `down` leaves them, too.
    pub(super) fn remove_container(&mut self, container: &str) {
        let Ok(engine) = self.engine() else { return };
        let whose = self.docker.containers.get(container);
        let is_shared = whose.is_some_and(|(name, id)| self.role_of(name, id) == Role::Shared);
        let follower = self.docker.followers.remove(container);
        self.docker.containers.remove(container);
        self.docker.asked.remove(container);
        self.docker.ended.insert(container.to_owned());
        let (inbox, store, container) = (self.inbox.clone(), self.store.clone(), container.to_owned());
        self.removals.spawn(async move {
            if let Some(follower) = follower {
                super::logs::finish(follower).await;
            }
            // Until its end is in the ledger, a successor of this agent may have to learn of it.
            store.flush_within(WRITTEN_MAX).await;
            if let Err(error) = engine.remove(&container, !is_shared).await {
                let text = format!("a container that ended can't be removed: {error}");
                inbox.send(Input::Warning { project: String::new(), text }).await.ok();
            }
        });
    }
}

/// A container as it is now; if it doesn't run, also what Compose has for its service.
async fn second_look(
    engine: &Docker,
    container: &str,
    whose: Option<(String, String)>,
) -> (Result<Option<Found>, String>, Vec<Found>) {
    let found = match engine.inspect(container).await {
        Ok(found) => found,
        Err(error) => return (Err(error.to_string()), Vec::new()),
    };
    let (false, Some((project, service))) = (found.as_ref().is_some_and(Found::is_up), whose) else {
        return (Ok(found), Vec::new());
    };
    match engine.made_by_compose(&project, &service).await {
        Ok(beside) => (Ok(found), beside.into_iter().filter(|other| other.id != container).collect()),
        Err(error) => (Err(error.to_string()), Vec::new()),
    }
}

/// Compose 1.29 puts the short id before the name of a container that it replaces; with a newer Engine it goes no
/// further than that.
fn is_renamed_by_compose(found: &Found) -> bool {
    let short = found.id.get(..SHORT_ID).unwrap_or(&found.id);
    found.name.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a container ended. The Engine gives a signal as 128 + its number, as shells do. A container that the kernel
/// killed for its memory ended by its own doing.
pub(super) fn status_of(exit_code: i64, oom: bool) -> ExitStatus {
    const SIGNALLED: i64 = 128;
    let code = i32::try_from(exit_code).unwrap_or(-1);
    match exit_code - SIGNALLED {
        2 | 9 | 15 if !oom => ExitStatus::Signal(code - 128),
        _ => ExitStatus::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_from_outside_are_told_from_a_programs_own_end() {
        assert_eq!(status_of(0, false), ExitStatus::Code(0));
        assert_eq!(status_of(137, false), ExitStatus::Signal(9));
        assert_eq!(status_of(143, false), ExitStatus::Signal(15));
        assert_eq!(status_of(137, true), ExitStatus::Code(137), "no memory left is the program's own doing");
        assert_eq!(status_of(139, false), ExitStatus::Code(139), "a crash is, too");
    }
}
