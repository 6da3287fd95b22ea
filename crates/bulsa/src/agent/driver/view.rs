//! What the world may see of the driver: the numbered snapshot.
//!
//! Owns: the words for states. Never: is read back by anyone who decides.

use bulsa_core::{
    decide::{Desired, ExitStatus, ReleaseState as CoreState, Replica, ReplicaPhase},
    health::Verdict,
    ids::{ReleaseId, ReplicaId, Slot},
    plan::role_name,
    spec::{Role, Service},
    wire::api::{
        AgentView, ProjectView, ProxyView, ReleaseState, ReleaseView, ReplicaView, ServiceState, ServiceView,
        Snapshot,
    },
};

use super::{Driver, commits::phase_text, healing, project::Project};

impl Driver {
    /// Publishes a new snapshot if anything in it has changed.
    pub(super) fn publish_snapshot(&mut self) {
        let projects: Vec<ProjectView> =
            self.projects.values().map(|project| self.project_view(project)).collect();
        let proxies = self.proxies.iter().map(|(generation, proxy)| ProxyView {
            generation: *generation,
            pid: u32::try_from(proxy.pid).unwrap_or(0),
            table: proxy.report.as_ref().map_or(0, |report| report.table),
            in_flight: proxy.report.iter().flat_map(|r| &r.targets).map(|target| target.in_flight).sum(),
            tunnels: proxy.report.iter().flat_map(|r| &r.targets).map(|target| target.tunnels).sum(),
            access_log_dropped: proxy.report.as_ref().and_then(|r| r.access_log_dropped).unwrap_or_default(),
        });
        let mut warnings = self.warnings.clone();
        warnings.extend(self.store.trouble());
        let snapshot = Snapshot {
            number: self.snapshot_number,
            at_ms: self.clock.now().0,
            projects,
            proxies: proxies.collect(),
            agent: AgentView { pid: std::process::id(), started_at_ms: self.started_at_ms, warnings },
            keeper_pid: self.keeper_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.snapshot.send_if_modified(|published| {
            let same = Snapshot { number: published.number, at_ms: published.at_ms, ..snapshot.clone() };
            if **published == same {
                return false;
            }
            self.snapshot_number += 1;
            *published = std::sync::Arc::new(Snapshot { number: self.snapshot_number, ..snapshot });
            true
        });
    }

    pub(super) fn project_view(&self, project: &Project) -> ProjectView {
        let desired = &project.desired;
        let releases = desired.releases.iter().map(|(id, release)| ReleaseView {
            id: id.0,
            state: release_state(project, *id, release.state),
            color: color(*id).to_owned(),
            created_at_ms: project.created.get(id).copied().unwrap_or_default(),
            hash: release.hash.clone(),
        });
        let mut deployments = project.deployments.clone();
        if let (Some(view), Some(running)) = (deployments.last_mut(), desired.running())
            && view.id == running.id
        {
            phase_text(&running.phase).clone_into(&mut view.phase);
        }
        let spec = desired.live().or_else(|| desired.candidate()).map(|(_, release)| &release.spec);
        let services = spec
            .into_iter()
            .flat_map(|spec| spec.services.values())
            .map(|service| self.service_view(project, service))
            .collect();
        ProjectView {
            name: project.name.clone(),
            live: desired.live.map(|id| id.0),
            releases: releases.collect(),
            deployments,
            services,
            notify: self.notify.views(&project.name),
        }
    }

    pub(super) fn service_view(&self, project: &Project, service: &Service) -> ServiceView {
        let now = self.clock.now();
        let release = release_of(&project.desired, service);
        let wanted = if project.desired.down { 0 } else { project.desired.replicas(service) };
        let ready = ready(project, release, service);
        let waiting = project
            .observed
            .histories(release, &service.name)
            .filter(|(slot, _)| project.observed.in_slot(slot).next().is_none())
            .map(|(slot, history)| history.next_start(slot))
            .filter(|at| now < *at)
            .min();
        let withheld = withheld(project, release, service);
        let state = state(project, release, service, wanted.saturating_sub(withheld), ready);
        let urls = self.routes.urls(&project.name, service);
        let finding = healing::finding(project, release, &service.name);
        ServiceView {
            name: service.name.clone(),
            role: role_name(service.role).to_owned(),
            desired: wanted,
            ready,
            withheld,
            state,
            reason: reason(project, release, service, state)
                .or_else(|| finding.clone())
                .or_else(|| self.drift_text(project, &service.name)),
            finding,
            held: self.held_view(project, &service.name),
            urls,
            restarts: project.restarts.get(&service.name).copied().unwrap_or_default(),
            next_retry_at_ms: waiting.map(|at| at.0),
            replicas: replicas(project, service),
        }
    }
}

fn release_of(desired: &Desired, service: &Service) -> ReleaseId {
    let live = desired.live.or_else(|| desired.candidate().map(|(id, _)| id));
    desired.slot_release(live.unwrap_or_default(), service)
}

fn ready(project: &Project, release: ReleaseId, service: &Service) -> u32 {
    let beside = project.desired.beside(&service.name).filter(|_| service.role != Role::Shared);
    // A spare one that has taken over counts as any other.
    let ready = (1..=project.desired.copies(service)).filter(|ordinal| {
        [Some(release), beside].into_iter().flatten().any(|release| {
            let slot = Slot { release, service: service.name.clone(), ordinal: *ordinal };
            project.observed.in_slot(&slot).any(|(_, replica)| replica.serves(service))
        })
    });
    u32::try_from(ready.count()).unwrap_or(u32::MAX).min(project.desired.replicas(service))
}

/// How many replicas of a service are wanted, but for those that a person took away, and how many are ready.
pub(super) fn wanted_and_ready(project: &Project, service: &Service) -> (u32, u32) {
    let release = release_of(&project.desired, service);
    let wanted = if project.desired.down { 0 } else { project.desired.replicas(service) };
    (wanted.saturating_sub(withheld(project, release, service)), ready(project, release, service))
}

/// How many of its replicas a person took away through the Engine.
fn withheld(project: &Project, release: ReleaseId, service: &Service) -> u32 {
    let away = project.desired.slots(release, service).filter(|slot| project.desired.withheld.contains(slot));
    u32::try_from(away.count()).unwrap_or(u32::MAX)
}

/// Whether users are served: every app of the live release that should run, by the file and by what people stopped,
/// has a replica that serves.
pub(super) fn is_serving(project: &Project) -> bool {
    let Some((live, release)) = project.desired.live() else { return false };
    release
        .spec
        .services
        .values()
        .filter(|service| {
            service.role == Role::App && project.desired.replicas(service) > withheld(project, live, service)
        })
        .all(|service| ready(project, live, service) > 0)
}

/// Whether users are served, and the `shared` services that the last deployment was to recreate are there, be it as
/// before.
pub(super) fn is_back(project: &Project) -> bool {
    if !is_serving(project) {
        return false;
    }
    let Some(deployment) = &project.desired.deployment else { return true };
    deployment.recreates.iter().all(|name| {
        let release = project.desired.shared_release(name);
        let service = project.desired.service(release, name);
        service.is_none_or(|service| ready(project, release, service) >= project.desired.replicas(service))
    })
}

fn state(project: &Project, release: ReleaseId, service: &Service, wanted: u32, ready: u32) -> ServiceState {
    if service.role == Role::Job {
        return match project.desired.jobs.get(&(release, service.name.clone())) {
            Some(true) => ServiceState::Healthy,
            Some(false) => ServiceState::Down,
            None => ServiceState::Starting,
        };
    }
    if wanted == 0 {
        return ServiceState::Stopped;
    }
    if ready >= wanted {
        return ServiceState::Healthy;
    }
    let histories: Vec<_> =
        project.observed.histories(release, &service.name).map(|(_, history)| history).collect();
    if histories.iter().any(|history| history.score.is_crash_looping() || history.early_deaths > 1) {
        return ServiceState::CrashLooping;
    }
    if ready > 0 {
        return ServiceState::Degraded;
    }
    let was_up = histories.iter().any(|history| history.last_exit.is_some() || history.start_error.is_some());
    let is_sick = project.observed.replicas().any(|(id, replica)| {
        let verdict = replica.health.verdict();
        id.release == release
            && id.service == service.name
            && matches!(verdict, Verdict::Suspect | Verdict::Failed { .. })
    });
    if was_up || is_sick { ServiceState::Down } else { ServiceState::Starting }
}

fn reason(project: &Project, release: ReleaseId, service: &Service, state: ServiceState) -> Option<String> {
    let away = withheld(project, release, service);
    let is_wished = project.desired.down || project.desired.wish(&service.name).stopped;
    if state == ServiceState::Stopped && (is_wished || away == 0) {
        return Some("stopped by a human".to_owned());
    }
    if away > 0 && !state.is_bad() {
        let (name, of) = (&service.name, project.desired.replicas(service));
        return Some(format!("{away} of {of} stopped by a person; `bulsa start {name}` fills it again"));
    }
    if !state.is_bad() && state != ServiceState::Starting {
        return None;
    }
    let is_paused = |id: &ReplicaId| id.release == release && id.service == service.name;
    let paused = project.observed.replicas().filter(|(id, replica)| is_paused(id) && replica.paused).count();
    if paused > 0 {
        return Some(format!("{paused} paused by a person; `docker unpause` lets it go on"));
    }
    let worst =
        project.observed.histories(release, &service.name).max_by_key(|(_, h)| (h.early_deaths, h.deaths));
    let (_, history) = worst?;
    if let Some(error) = &history.start_error {
        return Some(error.message.clone());
    }
    let listening =
        || project.meta.iter().find_map(|(id, m)| m.listening.clone().filter(|_| id.service == service.name));
    let Some(last_exit) = history.last_exit else { return listening() };
    let exit = exit_text(last_exit);
    let parked = if history.score.is_parked() { ", retried slowly" } else { "" };
    match history.early_deaths {
        0 => Some(format!("the last one ended: {exit}{parked}")),
        1 => Some(format!("it died before it was ready: {exit}")),
        times => Some(format!("it died {times} times in a row before it was ready: {exit}{parked}")),
    }
}

/// How a replica ended, in words.
pub(super) fn exit_text(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit {code}"),
        ExitStatus::Signal(9) => "killed by SIGKILL".to_owned(),
        ExitStatus::Signal(15) => "ended by SIGTERM".to_owned(),
        ExitStatus::Signal(signal) => format!("ended by signal {signal}"),
        ExitStatus::Unknown => "nobody saw how".to_owned(),
    }
}

fn replicas(project: &Project, service: &Service) -> Vec<ReplicaView> {
    let live = release_of(&project.desired, service);
    let mut replicas: Vec<(&ReplicaId, &Replica)> =
        project.observed.replicas().filter(|(id, _)| id.service == service.name).collect();
    replicas
        .sort_by_key(|(id, _)| (id.release != live, std::cmp::Reverse(id.release), id.ordinal, id.attempt));
    let away = project.desired.slots(live, service).filter(|slot| project.desired.withheld.contains(slot));
    let away = away.filter(|slot| project.observed.in_slot(slot).next().is_none());
    let views = replicas.into_iter().map(|(id, replica)| replica_view(project, service, id, replica));
    views.chain(away.map(|slot| withheld_view(project, slot))).collect()
}

/// A place that a person emptied.
fn withheld_view(project: &Project, slot: Slot) -> ReplicaView {
    let history = project.observed.slot(&slot);
    let (release, ordinal, service) = (slot.release, slot.ordinal, slot.service.clone());
    let id = ReplicaId { release, service, ordinal, attempt: history.map_or(0, |history| history.attempt) };
    ReplicaView {
        id: id.to_string(),
        name: id.name(),
        release: release.0,
        ordinal,
        attempt: id.attempt,
        state: "stopped by a person".to_owned(),
        last_exit: history.and_then(|history| history.last_exit).map(exit_text),
        ..ReplicaView::default()
    }
}

fn replica_view(project: &Project, service: &Service, id: &ReplicaId, replica: &Replica) -> ReplicaView {
    let meta = project.meta.get(id);
    let history = project.observed.slot(&id.slot());
    let is_routed = project.observed.routed().contains(id);
    let state = match replica.phase {
        ReplicaPhase::Starting => "starting",
        ReplicaPhase::Stopping { .. } => "stopping",
        ReplicaPhase::Running if replica.paused => "paused",
        ReplicaPhase::Running if replica.serves(service) => {
            if is_routed || !service.is_routed() {
                "ready"
            } else if Some(id.release) == project.desired.live && service.care.spare > 0 {
                "spare"
            } else {
                "ready, not routed"
            }
        }
        ReplicaPhase::Running => match replica.health.verdict() {
            Verdict::Unknown => "starting",
            Verdict::Suspect => "suspect",
            Verdict::Failed { hung: true } => "hung",
            Verdict::Failed { hung: false } => "unhealthy",
            Verdict::Ready | Verdict::Assumed => "not reachable",
        },
    };
    let health =
        meta.map(|m| m.listening.clone().unwrap_or_else(|| m.last_probe.clone())).unwrap_or_default();
    ReplicaView {
        id: id.to_string(),
        name: id.name(),
        release: id.release.0,
        ordinal: id.ordinal,
        attempt: id.attempt,
        pid: meta.and_then(|meta| meta.pid),
        addr: replica.addr.map(|addr| addr.to_string()),
        state: state.to_owned(),
        health,
        since_ms: replica.health.ready_since().unwrap_or(replica.started).0,
        restarts: u64::from(history.map_or(0, |history| history.restarts)),
        last_exit: history.and_then(|history| history.last_exit).map(exit_text),
        log: meta.and_then(|meta| meta.note.log.as_ref()).map(|path| path.display().to_string()),
        container: meta.and_then(|meta| meta.container.clone()),
    }
}

fn release_state(project: &Project, id: ReleaseId, state: CoreState) -> ReleaseState {
    let runs = project.observed.replicas().any(|(replica, _)| replica.release == id);
    match state {
        CoreState::Candidate => ReleaseState::Starting,
        CoreState::Live => ReleaseState::Live,
        CoreState::Warm { .. } => ReleaseState::Warm,
        CoreState::Retired if runs => ReleaseState::Draining,
        CoreState::Retired => ReleaseState::Retired,
        CoreState::Failed => ReleaseState::Failed,
    }
}

const fn color(id: ReleaseId) -> &'static str {
    if id.0 % 2 == 1 { "blue" } else { "green" }
}
