//! Taking in what happens: the keeper's and the proxies' news.
//!
//! Owns: the translation from links' messages to the core's events, and the ledger of deaths. Never: acts on them; the
//! next decision does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    backoff,
    decide::{Event, ExitStatus, Load, ReplicaPhase},
    ids::{Generation, ReplicaId},
    spec::Role,
    time::Timestamp,
    wire::api::{Detail, ProgressKind},
};
use bulsa_proxy::Report as ProxyReport;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Driver, Input, ProxyHandle, access_log,
    incidents::Death,
    persist::human,
    project::{Project, parse_task},
    shutdown::SHUTDOWN_MAX,
    view::exit_text,
};
use crate::{
    agent::{
        keeper_client::{KeeperEvent, ProxyHandle as NewProxy},
        proxy_link::{ProxyEvent, ProxyLink},
        store::{LedgerRow, Record},
    },
    link::messages::{ExitRecord, ExitStatus as LinkStatus},
};

/// How long a link's task waits before it tries again to give a proxy a table that it didn't take.
const TABLE_RETRY: Duration = Duration::from_millis(100);
/// How often a proxy is asked how it stands.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A proxy that was asked so often in a row without an answer is silent (with [`ASK_EVERY`]: about 5 s).
const ASKED_IN_VAIN_MAX: u32 = 4;

impl Driver {
    /// Has the keeper's news delivered to the inbox.
    pub(super) fn listen_to_keeper(&mut self) {
        let (keeper, inbox) = (std::sync::Arc::clone(&self.keeper), self.inbox.clone());
        self.tasks.spawn(async move {
            loop {
                let event = keeper.next_event().await.map_err(|error| error.to_string());
                let is_over = event.is_err();
                if inbox.send(Input::Keeper(event)).await.is_err() || is_over {
                    return;
                }
            }
        });
    }

    pub(super) async fn take_in(&mut self, input: Input) {
        match input {
            Input::Keeper(Ok(event)) => self.keeper_says(event).await,
            Input::Keeper(Err(error)) => self.lose_keeper(&error),
            Input::Proxy(generation, Ok(event)) => self.proxy_says(generation, event),
            // The keeper tells when the process itself is gone.
            Input::Proxy(generation, Err(error)) => {
                tracing::debug!(generation, error, "the link to a proxy ended");
                if self.keeper_lost {
                    self.proxy_down(generation);
                }
            }
            Input::Committed { project, result } => self.committed(&project, result),
            Input::Namespace { project, id, made } => self.namespace_made(&project, &id, made).await,
            Input::Docker(input) => self.docker_says(*input).await,
            Input::Warning { project, text } => self.warn(&project, "warning", text),
            Input::FallBackRefused { project, from, text } => self.fall_back_refused(&project, from, text),
            Input::Looked { project, looked } => self.looked(&project, looked),
            Input::Recorded(tasks) => self.recorded(tasks).await,
            Input::Drill(input) => self.drill_says(input).await,
            Input::GivenUp { project, text } => self.tell(&project, "notify.given_up", None, text),
            Input::AccessLog(tended) => self.access_log_tended(tended),
            Input::ProxySilent(generation) => self.kill_silent_proxy("", generation).await,
            Input::Stop if self.is_orphaned() => self.handed_over = true,
            Input::Stop => self.begin_shutdown(SHUTDOWN_MAX),
        }
    }

    /// Whether the keeper that started this agent is dead. Then a request to end comes from the keeper's successor,
    /// whose own agent takes over everything as it is: stopping it would be wrong.
    fn is_orphaned(&self) -> bool {
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        self.keeper_lost || parent != self.keeper_pid
    }

    async fn keeper_says(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Spawned { id, pid, .. } => {
                if let Some((name, id)) = parse_task(&id) {
                    self.spawned(name, &id, pid);
                }
            }
            KeeperEvent::SpawnFailed { id, error } => {
                if let Some((name, id)) = parse_task(&id) {
                    self.spawn_failed(name, &id, error);
                }
            }
            KeeperEvent::Exited(record) => self.exited(record),
            KeeperEvent::ProxyUp(proxy) => self.proxy_up(proxy),
            KeeperEvent::ProxyDown { generation, .. } => self.proxy_down(generation),
            KeeperEvent::TableKept { number } => {
                self.kept = self.kept.max(number);
                self.everywhere(&Event::Kept { number });
            }
            KeeperEvent::ShuttingDown { limit } => self.begin_shutdown(limit),
        }
    }

    /// Gives an event that isn't about one project to all of them.
    pub(super) fn everywhere(&mut self, event: &Event) {
        let now = self.clock.now();
        for project in self.projects.values_mut() {
            project.apply(event.clone(), now);
        }
    }

    /// The keeper is gone. What runs goes on; its successor ends this agent and starts another.
    pub(super) fn lose_keeper(&mut self, error: &dyn std::fmt::Display) {
        if !self.keeper_lost {
            self.keeper_lost = true;
            // Without a keeper nobody starts a proxy that this agent doesn't know.
            self.everywhere(&Event::Kept { number: u64::MAX });
            let text = format!(
                "the keeper is gone ({error}): traffic flows and unhealthy replicas are un-routed, but nothing is \
                 started until `bulsa serve` runs again"
            );
            self.warn("", "keeper.lost", text);
        }
    }

    /// A replica ended. The keeper may forget it once nothing more has to be learnt from it: a job's end is news until
    /// it is on the disk.
    pub(super) fn exited(&mut self, record: ExitRecord) {
        let Some((name, id)) = parse_task(&record.id) else {
            self.acks.waiting.push(record.id);
            return;
        };
        let (name, status) = (name.to_owned(), core_status(record.status));
        let project = self.projects.get_mut(&name);
        let is_job = |project: &Project| {
            let service = project.desired.service(id.release, &id.service);
            service.is_some_and(|service| service.role == Role::Job)
        };
        match project {
            Some(project) if is_job(project) => project.unacknowledged.push((id.service.clone(), record.id)),
            _ => self.acks.waiting.push(record.id),
        }
        self.replica_gone(&name, &id, status);
    }

    /// What was to be learnt from the ends of a service's jobs is learnt.
    pub(super) fn acknowledge_job(&mut self, name: &str, service: &str) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let ended = project.unacknowledged.extract_if(.., |(of, _)| of == service);
        self.acks.waiting.extend(ended.map(|(_, task)| task));
    }

    /// A replica is gone: told, remembered, and taken out of the picture.
    pub(super) fn replica_gone(&mut self, name: &str, id: &ReplicaId, status: ExitStatus) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(replica) = project.observed.replica(id).cloned() else {
            // It ended while no agent lived, or this is old news.
            let deaths =
                |project: &Project| project.observed.slot(&id.slot()).map_or(0, |history| history.deaths);
            let before = deaths(project);
            project.apply(Event::Exited { id: id.clone(), status }, now);
            if before < deaths(project) {
                *project.restarts.entry(id.service.clone()).or_default() += 1;
                let text = format!("{} died while no agent watched: {}", id.name(), exit_text(status));
                let detail = Detail::Incident { incident: None, cause: "unwatched".to_owned() };
                self.tell_with(name, "replica.died", Some(id), text, Some(detail));
                self.record_death(name, id, status, None, "unwatched");
            }
            return;
        };
        let ready_for = replica.health.ready_since().map(|since| now.since(since));
        let was_asked = matches!(replica.phase, ReplicaPhase::Stopping { killed: false, .. });
        let was_killed = matches!(replica.phase, ReplicaPhase::Stopping { killed: true, .. });
        let is_job =
            project.desired.service(id.release, &id.service).is_some_and(|service| service.role == Role::Job);
        let was_parked = is_parked(project, id);
        project.apply(Event::Exited { id: id.clone(), status }, now);
        let is_excused = project.observed.slot(&id.slot()).is_some_and(|history| history.excused);
        if was_asked || was_killed && is_excused {
            let how = if was_killed { "was stopped by force" } else { "stopped" };
            self.tell(name, "replica.stopped", Some(id), format!("{} {how}", id.name()));
        } else if is_job && status == ExitStatus::Code(0) {
            self.tell(name, "replica.done", Some(id), format!("{} is done", id.name()));
        } else {
            *project.restarts.entry(id.service.clone()).or_default() += 1;
            let served = ready_for.map_or_else(
                || "before it was ready".to_owned(),
                |served| format!("after {} of service", human(rounded(served))),
            );
            let wait = next_start(project, id, now)
                .map(|wait| format!("; it is crash-looping, the next start is in {}", human(wait)))
                .unwrap_or_default();
            let text = format!("{} died {served}: {}{wait}", id.name(), exit_text(status));
            let is_parked = !was_parked && is_parked(project, id);
            let out_of_memory = self.out_of_memory(name, id, status).filter(|_| !was_killed);
            let cause = match status {
                _ if was_killed => "hung",
                // A container's child may have been killed long before the container ends by itself.
                ExitStatus::Signal(9) | ExitStatus::Code(137) if out_of_memory.is_some() => "out of memory",
                ExitStatus::Signal(9) => "killed",
                _ => "exited",
            };
            self.record_death(name, id, status, ready_for, cause);
            let incident = self.open_incident(name, id, status, Death { cause, ready_for, out_of_memory });
            let detail = incident.map(|id| Detail::Incident { incident: Some(id), cause: cause.to_owned() });
            self.tell_with(name, "replica.died", Some(id), text.clone(), detail);
            self.progress(name, ProgressKind::Line, text);
            if is_parked {
                self.tell_parked(name, id, status);
            }
        }
        self.forget(name, id);
    }

    /// A place is retried slowly from now on.
    fn tell_parked(&self, name: &str, id: &ReplicaId, status: ExitStatus) {
        let history = self.projects.get(name).and_then(|project| project.observed.slot(&id.slot()));
        let deaths = history.map_or(0, |history| history.early_deaths);
        let slowly = human(backoff::CAP);
        let text = format!(
            "{} is parked: it died {deaths} times in a row before it was ready, the last time: {}; it is tried again \
             about every {slowly}, and `bulsa why {}` says more",
            id.name(),
            exit_text(status),
            id.service
        );
        let detail = Detail::Park { incident: self.incident_of(name, &id.slot()), deaths };
        self.tell_with(name, "replica.parked", Some(id), text, Some(detail));
    }

    fn record_death(
        &self,
        name: &str,
        id: &ReplicaId,
        status: ExitStatus,
        ready_for: Option<Duration>,
        cause: &str,
    ) {
        let now = self.clock.now();
        self.store.note(Record::Death(LedgerRow {
            id: self.store.next_id(),
            at_ms: now.0,
            project: name.to_owned(),
            service: id.service.clone(),
            release: id.release.0,
            ordinal: id.ordinal,
            attempt: id.attempt,
            cause: cause.to_owned(),
            exit: (status != ExitStatus::Unknown).then(|| exit_text(status)),
            status: super::persist::status_text(status),
            ready_for_ms: ready_for.map(|served| u64::try_from(served.as_millis()).unwrap_or(u64::MAX)),
        }));
    }

    /// A proxy generation runs: it is given the last table, in case it began with an older one.
    pub(super) fn proxy_up(&mut self, proxy: NewProxy) {
        let generation = proxy.generation;
        let link = match ProxyLink::new(proxy.link) {
            Ok(link) => std::sync::Arc::new(link),
            Err(error) => {
                self.warn(
                    "",
                    "proxy.link",
                    format!("the link to proxy g{generation} can't be used: {error}"),
                );
                return;
            }
        };
        let (tables, wanted) = watch::channel(self.sealed.clone());
        let mut tasks = JoinSet::new();
        let (heard, hearing) = watch::channel(());
        tasks.spawn(read_proxy(generation, std::sync::Arc::clone(&link), self.inbox.clone(), heard));
        tasks.spawn(ask_proxy(generation, std::sync::Arc::clone(&link), self.inbox.clone(), hearing));
        // Until it has said that it keeps one.
        let (log, log_wanted) = watch::channel(None);
        tasks.spawn(access_log::give_files(std::sync::Arc::clone(&link), log_wanted));
        tasks.spawn(give_tables(link, wanted));
        let handle = ProxyHandle { pid: proxy.pid, report: None, tables, log, tasks };
        self.proxies.insert(generation, handle);
        self.everywhere(&Event::ProxyUp(Generation(generation)));
        self.tell("", "proxy.up", None, format!("proxy g{generation} runs (pid {})", proxy.pid));
    }

    pub(super) fn proxy_down(&mut self, generation: u64) {
        if let Some(mut proxy) = self.proxies.remove(&generation) {
            self.bad_gateways_of_gone += proxy.report.as_ref().map_or(0, |report| report.bad_gateway);
            self.add_lost_lines(proxy.report.as_ref().and_then(|report| report.access_log_dropped));
            proxy.tasks.abort_all();
            self.everywhere(&Event::ProxyDown(Generation(generation)));
            self.tell("", "proxy.down", None, format!("proxy g{generation} is gone"));
        }
    }

    fn proxy_says(&mut self, generation: u64, event: ProxyEvent) {
        match event {
            ProxyEvent::Hello { report, .. }
            | ProxyEvent::Report(report)
            | ProxyEvent::Pong { report, .. } => {
                self.proxy_reports(generation, report);
            }
            ProxyEvent::TableRefused { number, error } => {
                let text =
                    format!("proxy g{generation} refused table {number}: {error}; it serves the one before");
                self.warn("", "proxy.refused", text);
            }
        }
    }

    fn proxy_reports(&mut self, generation: u64, report: ProxyReport) {
        let now = self.clock.now();
        let before = self.proxies.get(&generation).and_then(|proxy| proxy.report.as_ref());
        let (mut loads, known) = (loads_in(&report), before.map(loads_in).unwrap_or_default());
        let stalled: BTreeSet<&str> =
            report.targets.iter().filter(|target| target.stalled).map(|target| target.id.as_str()).collect();
        for (name, project) in &mut self.projects {
            let load = loads.remove(name.as_str()).unwrap_or_default();
            // What the proxy saw go wrong is looked into at once, instead of at the next interval.
            for (id, load) in load.iter().filter(|(id, _)| project.meta.contains_key(id)) {
                let new = load.since(known.get(name.as_str()).and_then(|loads| loads.get(id)));
                let task = format!("{name}/{id}");
                // One that answers nobody is asked as long as that is so: it may be slow.
                if 0 < new.errors + new.refused || stalled.contains(task.as_str()) {
                    self.prober.probe_now(&task);
                }
            }
            let generation = Generation(generation);
            project.apply(Event::ProxyReport { generation, table: report.table, load }, now);
        }
        let told = before.and_then(|report| report.suspects.last()).map_or(0, |suspect| suspect.number);
        for suspect in report.suspects.iter().filter(|suspect| told < suspect.number) {
            self.suspect(suspect);
        }
        if let Some(proxy) = self.proxies.get_mut(&generation) {
            proxy.report = Some(report);
        }
        self.give_access_log();
    }
}

/// What a proxy has to do with each project's replicas.
fn loads_in(report: &ProxyReport) -> BTreeMap<&str, BTreeMap<ReplicaId, Load>> {
    let mut loads: BTreeMap<&str, BTreeMap<ReplicaId, Load>> = BTreeMap::new();
    for target in &report.targets {
        let Some((name, id)) = parse_task(&target.id) else { continue };
        let load = Load {
            in_flight: target.in_flight,
            tunnels: target.tunnels,
            requests: target.requests,
            errors: target.answers_5xx + target.broken + target.timed_out,
            refused: target.refused,
            stalled: target.stalled,
        };
        // A replica has an entry for each of its addresses.
        let known = loads.entry(name).or_default().entry(id).or_default();
        *known = known.plus(&load);
    }
    loads
}

/// How long the next start in a replica's slot is put off, if it is.
fn next_start(project: &Project, id: &ReplicaId, now: Timestamp) -> Option<Duration> {
    let (slot, history) = (id.slot(), project.observed.slot(&id.slot())?);
    let at = history.score.next_start(&slot, history.attempt);
    (now < at).then(|| at.since(now))
}

/// Whether a replica's place is retried slowly.
fn is_parked(project: &Project, id: &ReplicaId) -> bool {
    project.observed.slot(&id.slot()).is_some_and(|history| history.score.ceiling() >= backoff::PARKED)
}

/// Passes on what a proxy says.
async fn read_proxy(
    generation: u64,
    link: std::sync::Arc<ProxyLink>,
    inbox: tokio::sync::mpsc::Sender<Input>,
    heard: watch::Sender<()>,
) {
    loop {
        let event = link.next().await.map_err(|error| error.to_string());
        heard.send_replace(());
        let is_over = event.is_err();
        if inbox.send(Input::Proxy(generation, event)).await.is_err() || is_over {
            return;
        }
    }
}

/// Asks a proxy now and then how it stands: its counts are what a bake and a drain look at, and one that doesn't answer
/// serves nobody. Rounds without an answer are counted, not time: an agent that was itself held up blames nobody.
async fn ask_proxy(
    generation: u64,
    link: std::sync::Arc<ProxyLink>,
    inbox: tokio::sync::mpsc::Sender<Input>,
    mut heard: watch::Receiver<()>,
) {
    let mut unanswered = 0;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        unanswered = if heard.has_changed().unwrap_or(false) { 0 } else { unanswered + 1 };
        heard.mark_unchanged();
        if unanswered > ASKED_IN_VAIN_MAX {
            inbox.send(Input::ProxySilent(generation)).await.ok();
            return;
        }
        // A link that takes nothing more has the same cause as one that answers nothing; one that is gone is told of
        // by its reader.
        drop(tokio::time::timeout(ASK_EVERY, link.ping(u64::from(unanswered))).await);
    }
}

/// Gives a proxy the newest table, whenever there is one. A proxy that doesn't take it holds up nobody but itself.
async fn give_tables(link: std::sync::Arc<ProxyLink>, mut wanted: watch::Receiver<super::publish::Sealed>) {
    loop {
        let sealed = wanted.borrow_and_update().clone();
        if let Some(sealed) = sealed {
            use std::os::fd::AsFd;
            if let Err(error) = link.send_table(sealed.0, sealed.1.as_fd()).await {
                tracing::debug!(%error, "a proxy did not take a table");
                tokio::time::sleep(TABLE_RETRY).await;
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Whole seconds from the first one on.
fn rounded(time: Duration) -> Duration {
    if time.as_secs() == 0 { time } else { Duration::from_secs(time.as_secs()) }
}

const fn core_status(status: LinkStatus) -> ExitStatus {
    match status {
        LinkStatus::Code(code) => ExitStatus::Code(code),
        LinkStatus::Signal(signal) => ExitStatus::Signal(signal),
        LinkStatus::Unknown => ExitStatus::Unknown,
    }
}
