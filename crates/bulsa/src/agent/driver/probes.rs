//! Which replicas are probed, and what the probes found.
//!
//! Owns: the way from decide's wishes to the prober's plan, and back. Never: gives a verdict.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bulsa_core::{
    decide::{Eagerness, Event},
    health,
    ids::ReplicaId,
    spec::Check,
    wire::api::ProbeSeen,
};

use super::{
    Driver,
    docker::{container_of, is_container},
    engine::preflight,
    project::{Project, parse_task},
};
use crate::agent::{
    docker::Docker,
    host::cpu_stalled,
    probe::{ExecContext, InContainer, ProbePlan, ProbeResult, ProbeTarget, Report},
    process::environment::{self, Surroundings},
};

/// So many of a replica's last probes are kept as evidence, those in a row that said the same counted once.
const PROBES_KEPT: usize = 5;
/// What is kept of a run that passed.
pub(super) const PASSING: &str = "passing";

impl Driver {
    /// Has exactly those replicas probed that decide wants probed and that can be reached.
    pub(super) fn set_probes(&mut self) {
        let (engine, drills) = (self.engine().ok(), &self.drills);
        let mut plans = BTreeMap::new();
        for project in self.projects.values_mut() {
            let wanted: Vec<(ReplicaId, Eagerness)> =
                project.decision.probes.iter().map(|(id, eagerness)| (id.clone(), *eagerness)).collect();
            for (id, eagerness) in wanted {
                let broken = drills.broken_probe_of(&project.name, &id);
                if let Some(plan) = plan(project, engine.as_ref(), &id, eagerness) {
                    plans.insert(project.task(&id), plan.broken_by(broken));
                }
            }
        }
        self.prober.set_plan(plans);
    }

    /// One run came to its end.
    pub(super) fn probed(&mut self, report: Report) {
        let now = self.clock.now();
        let Some((name, id)) = parse_task(&report.key) else { return };
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(probe) = project.desired.service(id.release, &id.service).map(|s| s.probe.clone()) else {
            return;
        };
        let was_ready = project.observed.replica(&id).is_some_and(|replica| replica.health.is_ready());
        let is_late = matches!(report.result, ProbeResult::Fail { no_answer: true, .. });
        let is_short = is_late && cpu_stalled().is_ok_and(|stalled| self.pressure.look(now, stalled));
        let (result, text) = match &report.result {
            ProbeResult::Pass { took } => {
                (health::ProbeResult::Pass, format!("passing ({} ms)", took.as_millis()))
            }
            ProbeResult::Fail { evidence, no_answer: true } if is_short => {
                (health::ProbeResult::Starved, format!("{evidence} (the host is short of CPU)"))
            }
            ProbeResult::Fail { evidence, no_answer: true } => {
                (health::ProbeResult::NoAnswer, evidence.clone())
            }
            ProbeResult::Fail { evidence, no_answer: false } => {
                (health::ProbeResult::BadAnswer, evidence.clone())
            }
            ProbeResult::CouldNotRun { reason } => {
                (health::ProbeResult::CouldNotRun, format!("the probe could not run: {reason}"))
            }
        };
        if let Some(meta) = project.meta.get_mut(&id) {
            // A pass is worth no new snapshot for its milliseconds.
            meta.last_probe =
                if result == health::ProbeResult::Pass { PASSING.to_owned() } else { text.clone() };
            remember(&mut meta.probes, now.0, &meta.last_probe);
        }
        project.apply(Event::Probed { id: id.clone(), result, probe }, now);
        let is_ready = project.observed.replica(&id).is_some_and(|replica| replica.health.is_ready());
        let name = name.to_owned();
        if result == health::ProbeResult::CouldNotRun {
            self.drills.probe_is_broken(&name, &id, now);
        }
        if !was_ready && is_ready {
            self.tell(&name, "replica.ready", Some(&id), format!("{} is ready", id.name()));
            self.progress(
                &name,
                bulsa_core::wire::api::ProgressKind::Line,
                format!("{} is ready", id.name()),
            );
            self.ask_what_is_spoken(&name, &id);
        } else if was_ready && !is_ready {
            self.tell(&name, "replica.suspect", Some(&id), format!("{} failed a probe: {text}", id.name()));
        } else if result == health::ProbeResult::CouldNotRun {
            self.warn(
                &name,
                "probe.could_not_run",
                format!("`{}`: {text}; nothing is restarted for it", id.service),
            );
        }
    }
}

/// Adds a probe to the last ones.
pub(super) fn remember(probes: &mut Vec<ProbeSeen>, at_ms: u64, text: &str) {
    if let Some(last) = probes.last_mut().filter(|last| last.text == text) {
        (last.at_ms, last.times) = (at_ms, last.times.saturating_add(1));
        return;
    }
    if probes.len() >= PROBES_KEPT {
        probes.remove(0);
    }
    probes.push(ProbeSeen { since_ms: at_ms, at_ms, text: text.to_owned(), times: 1 });
}

/// How one replica is probed; `None` while it can't be.
fn plan(
    project: &mut Project,
    engine: Option<&Docker>,
    id: &ReplicaId,
    eagerness: Eagerness,
) -> Option<ProbePlan> {
    let service = project.desired.service(id.release, &id.service)?.clone();
    let addr = project.observed.replica(id)?.addr;
    let needs_addr = matches!(service.probe.check, Check::Http { .. });
    if needs_addr && addr.is_none() {
        return None;
    }
    let is_exec = matches!(service.probe.check, Check::Exec(_));
    let container = container_of(project, id).filter(|_| is_exec).map(str::to_owned);
    let container = container.zip(engine).map(|(id, engine)| InContainer { engine: engine.clone(), id });
    let exec = (is_exec && !is_container(&service)).then(|| exec_context(project, id)).flatten();
    let fast = eagerness == Eagerness::Gate;
    let interval = if fast { service.probe.start_interval } else { service.probe.interval };
    // Replicas that were started together are not probed together.
    let offset = if fast { Duration::ZERO } else { interval.mul_f64(f64::from(id.ordinal % 7) / 7.0) };
    Some(ProbePlan {
        check: service.probe.check,
        target: ProbeTarget { addr, exec, container },
        interval,
        timeout: service.probe.timeout,
        offset,
        fast,
    })
}

/// How a check by exec is run for a replica: as it runs itself. Of one that was adopted it is worked out anew.
fn exec_context(project: &mut Project, id: &ReplicaId) -> Option<Arc<ExecContext>> {
    if let Some(context) = project.meta.get(id)?.exec.clone() {
        return Some(context);
    }
    let service = project.desired.service(id.release, &id.service)?.clone();
    let (account, _) = preflight(&service).ok()?;
    let (task, note) = (project.task(id), project.meta.get(id)?.note.clone());
    let around = Surroundings {
        replica: id,
        task: &task,
        instance: "",
        port: note.port,
        routes: &BTreeMap::new(),
        host: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        // A check is no heartbeat.
        heartbeat: None,
    };
    let base = environment::base(std::env::vars_os(), account.as_ref());
    let context = Arc::new(ExecContext {
        environment: environment::build(base, &service.env, &around),
        working_dir: service.working_dir.into(),
        account,
        namespace: note.namespace.as_ref().map(|name| std::path::Path::new("/run/netns").join(name)),
    });
    project.meta.get_mut(id)?.exec = Some(Arc::clone(&context));
    Some(context)
}
