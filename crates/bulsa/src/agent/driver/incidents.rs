//! Incidents: a death or a hang, what was known of it, and when its place served again.
//!
//! Owns: the incidents that aren't over yet. Never: heals; the next decision does.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bulsa_core::{
    decide::{ExitStatus, ReplicaPhase, wanted_slots},
    ids::{ReplicaId, Slot},
    time::Timestamp,
    wire::api::{Again, Detail, Evidence, Incident},
};

use super::{
    Driver,
    persist::{human, status_text},
    probes::PASSING,
    project::{Meta, Project, parse_task},
};
use crate::agent::{
    host,
    process::{cgroups, logs, memory},
    store::{IncidentRow, Record},
};

/// At most this many incidents of one project are open; further deaths are in the ledger alone.
const OPEN_MAX: usize = 64;
/// So many last lines of output are kept with an incident.
const OUTPUT_LINES: usize = 100;
const SIGKILL: i32 = 9;
/// A line of them is at most this long, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// The incidents of one project that aren't over.
#[derive(Debug, Default)]
pub(super) struct Open(BTreeMap<Slot, OpenIncident>);

#[derive(Debug)]
struct OpenIncident {
    service: String,
    incident: Incident,
    /// What the proxies had answered with 502 when it began.
    answered_502: u64,
    /// The output of who died last. Its end may come to the file a moment after the death.
    log: Option<PathBuf>,
}

/// What is known of a death beside how it ended.
#[derive(Debug)]
pub(super) struct Death<'d> {
    /// In a word or two.
    pub(super) cause: &'d str,
    pub(super) ready_for: Option<Duration>,
    /// What says that memory ran out.
    pub(super) out_of_memory: Option<String>,
}

impl OpenIncident {
    fn record(&self, project: &str) -> Record {
        Record::Incident(IncidentRow::of(project, &self.service, &self.incident))
    }

    /// Nobody wants its place any more.
    fn give_up(&mut self, now: Timestamp) {
        self.incident.given_up_at_ms = Some(now.0);
    }

    /// The evidence of who died last.
    fn newest(&mut self) -> &mut Evidence {
        match &mut self.incident.again {
            Some(again) => &mut again.evidence,
            None => &mut self.incident.evidence,
        }
    }

    /// Reads the output of who died last once more.
    fn read_output(&mut self) {
        let Some(log) = &self.log else { return };
        let lines = last_lines(log);
        // A file that was removed meanwhile takes nothing away from what is known.
        if !lines.is_empty() {
            self.newest().last_lines = lines;
        }
    }
}

impl Driver {
    /// A replica died or hung: what is known of it is written down before anything is done about it. Returns the incident
    /// that this opened, if it is none more of one that is open.
    pub(super) fn open_incident(
        &mut self,
        name: &str,
        id: &ReplicaId,
        status: ExitStatus,
        death: Death<'_>,
    ) -> Option<u64> {
        let (now, answered_502) = (self.clock.now(), self.bad_gateways());
        let asked_by = self.asked_by(name, id);
        let next_id = self.store.next_id();
        let project = self.projects.get_mut(name)?;
        let cause = death.cause;
        let (evidence, log) = evidence(project, id, status, death);
        let evidence = Evidence { asked_by, ..evidence };
        // A slot that dies again before it served is still the same incident.
        if let Some(open) = project.incidents.0.get_mut(&id.slot()) {
            open.read_output();
            let deaths = open.incident.again.take().map_or(0, |again| again.deaths) + 1;
            let (replica, cause) = (id.to_string(), cause.to_owned());
            open.incident.again = Some(Again { deaths, replica, cause, evidence });
            open.log = log;
            self.store.note(open.record(name));
            return None;
        }
        if project.incidents.0.len() >= OPEN_MAX {
            return None;
        }
        // Since its last pass nobody was answered, whatever each of those runs said.
        let silent = evidence.probes.iter().rev().take_while(|probe| probe.text != PASSING);
        let first_silence = silent.last().filter(|_| cause == "hung").map(|probe| probe.since_ms);
        let incident = Incident {
            id: next_id,
            replica: id.to_string(),
            cause: cause.to_owned(),
            detected_at_ms: first_silence.unwrap_or(now.0),
            evidence,
            ..Incident::default()
        };
        let open = OpenIncident { service: id.service.clone(), incident, answered_502, log };
        self.store.note(open.record(name));
        project.incidents.0.insert(id.slot(), open);
        Some(next_id)
    }

    /// The incident that is open in a place.
    pub(super) fn incident_of(&self, name: &str, slot: &Slot) -> Option<u64> {
        self.projects.get(name)?.incidents.0.get(slot).map(|open| open.incident.id)
    }

    /// What says that a replica died for want of memory. The Engine knows of its container; of a process that was killed
    /// with SIGKILL the kernel tells only that it has killed some process at that time, in a cgroup or on the whole host.
    pub(super) fn out_of_memory(&mut self, name: &str, id: &ReplicaId, status: ExitStatus) -> Option<String> {
        let new = self.look_for_kills();
        let meta = self.projects.get(name).and_then(|project| project.meta.get(id))?;
        if meta.out_of_memory {
            return Some("the Docker Engine saw its container run out of memory".to_owned());
        }
        // Its own group counts for it alone.
        if let Some(ran_out) = cgroups::ran_out_of_memory(&meta.note.cgroups) {
            return ran_out.then(|| "the kernel killed it for want of memory within its limit".to_owned());
        }
        let is_process = meta.container.is_none() && status == ExitStatus::Signal(SIGKILL);
        let text = || match new {
            1 => "the kernel killed a process of this host for want of memory at that time".to_owned(),
            _ => format!("the kernel killed {new} processes of this host for want of memory at that time"),
        };
        (is_process && 0 < new).then(text)
    }

    /// Looks at the host's counters now and then, so that there is something to compare with when it matters.
    pub(super) fn look_at_host(&mut self) {
        self.look_for_kills();
        if let Ok(stalled) = host::cpu_stalled() {
            self.pressure.look(self.clock.now(), stalled);
        }
    }

    /// How many processes the kernel killed for want of memory a moment ago; none where it doesn't say.
    fn look_for_kills(&mut self) -> u64 {
        let now = self.clock.now();
        host::oom_kills().map_or(0, |count| self.memory_kills.look(now, count))
    }

    /// Takes up the incidents that were open when the agent before this one ended.
    pub(super) fn recall_incidents(&mut self, rows: &[IncidentRow]) {
        for row in rows {
            let Some((name, id)) = parse_task(&format!("{}/{}", row.project, row.replica))
                .map(|(name, id)| (name.to_owned(), id))
            else {
                continue;
            };
            let answered_502 = self.bad_gateways();
            let Some(project) = self.projects.get_mut(&name) else { continue };
            let (service, incident) = (row.service.clone(), Incident::from(row));
            if project.incidents.0.len() < OPEN_MAX && incident.given_up_at_ms.is_none() {
                let open = OpenIncident { service, incident, answered_502, log: None };
                project.incidents.0.insert(id.slot(), open);
            }
        }
    }

    /// Two replicas died with one request: it may be what kills them. Whose incident is open gets it as evidence, and
    /// that of a death that is not known of yet will.
    pub(super) fn suspect(&mut self, suspect: &bulsa_proxy::Suspect) {
        let request = format!("{} {} (request {})", suspect.method, suspect.path, suspect.request);
        let dead: Vec<_> = suspect.targets.iter().filter_map(|target| parse_task(target)).collect();
        let Some((name, _)) = dead.first() else { return };
        for (name, id) in &dead {
            let Some(project) = self.projects.get_mut(*name) else { continue };
            if let Some(meta) = project.meta.get_mut(id) {
                meta.suspect = Some(request.clone());
            }
            if let Some(open) = project.incidents.0.get_mut(&id.slot())
                && open.incident.replica == id.to_string()
            {
                open.incident.evidence.suspect_request = Some(request.clone());
                self.store.note(open.record(name));
            }
        }
        let with: Vec<_> = dead.iter().map(|(_, id)| id.name().to_string()).collect();
        let text = format!(
            "{request} was sent to {} and both died or broke off; it may be what kills them, and is sent to no third",
            with.join(" and ")
        );
        self.tell(name, "request.suspect", dead.last().map(|(_, id)| id), text);
    }

    /// Ends the incidents whose places serve again, and those whose places nobody wants any more. What one cost is
    /// what the proxies answered with 502 meanwhile; two incidents at once both count it.
    pub(super) fn end_incidents(&mut self) {
        let (now, answered_502) = (self.clock.now(), self.bad_gateways());
        let mut over = Vec::new();
        for (name, project) in &mut self.projects {
            let Project { incidents, observed, desired, .. } = project;
            let served = |slot: &Slot| {
                let mut replicas = observed.in_slot(slot);
                let serves = replicas.find(|(_, r)| {
                    r.phase == ReplicaPhase::Running && !r.paused && !r.ended && r.health.is_ready()
                });
                serves.map(|(id, _)| id.clone())
            };
            if incidents.0.is_empty() {
                continue;
            }
            let wanted = wanted_slots(desired, observed);
            incidents.0.retain(|slot, open| {
                let served = served(slot);
                if served.is_none() && wanted.contains(slot) {
                    return true;
                }
                open.read_output();
                let Some(id) = served else {
                    open.give_up(now);
                    self.store.note(open.record(name));
                    return false;
                };
                open.incident.recovered_at_ms = Some(now.0);
                open.incident.requests_lost = answered_502.saturating_sub(open.answered_502);
                self.store.note(open.record(name));
                over.push((name.clone(), id, open.incident.clone()));
                false
            });
        }
        for (name, id, Incident { id: incident, cause, requests_lost, detected_at_ms, .. }) in over {
            let lasted_ms = now.0.saturating_sub(detected_at_ms);
            let took = human(Duration::from_millis(lasted_ms));
            let text = format!("{} serves again after {took}; {requests_lost} requests lost", id.name());
            let detail = Detail::Heal { incident, cause, lasted_ms, requests_lost };
            self.tell_with(&name, "incident.over", Some(&id), text, Some(detail));
        }
    }

    /// Gives up a project's places: it is down.
    pub(super) fn give_up_incidents(&mut self, name: &str) {
        let now = self.clock.now();
        let Some(project) = self.projects.get_mut(name) else { return };
        for (_, mut open) in std::mem::take(&mut project.incidents.0) {
            open.give_up(now);
            self.store.note(open.record(name));
        }
    }

    /// Completes the evidence of who died a moment ago.
    pub(super) fn complete_evidence(&mut self) {
        for (name, project) in &mut self.projects {
            for open in project.incidents.0.values_mut().filter(|open| open.log.is_some()) {
                let before = open.newest().last_lines.len();
                open.read_output();
                open.log = None;
                if open.newest().last_lines.len() != before {
                    self.store.note(open.record(name));
                }
            }
        }
    }

    /// How often the proxies have answered 502 of their own, those that are gone included.
    pub(super) fn bad_gateways(&self) -> u64 {
        let living = self.proxies.values().filter_map(|proxy| proxy.report.as_ref());
        self.bad_gateways_of_gone + living.map(|report| report.bad_gateway).sum::<u64>()
    }
}

/// What is known of a replica, and where its output is.
fn evidence(
    project: &Project,
    id: &ReplicaId,
    status: ExitStatus,
    death: Death<'_>,
) -> (Evidence, Option<PathBuf>) {
    let meta = project.meta.get(id);
    let log = meta.and_then(|meta| meta.note.log.clone());
    let evidence = Evidence {
        exit: super::view::exit_text(status),
        status: status_text(status),
        asked_by: None,
        out_of_memory: death.out_of_memory,
        memory_peak: meta.and_then(memory_peak),
        ready_for_ms: death.ready_for.map(|served| u64::try_from(served.as_millis()).unwrap_or(u64::MAX)),
        probes: meta.map(|meta| meta.probes.clone()).unwrap_or_default(),
        last_lines: log.as_deref().map(last_lines).unwrap_or_default(),
        suspect_request: meta.and_then(|meta| meta.suspect.clone()),
    };
    (evidence, log)
}

/// The most memory that a replica had: what its own group counted, else what was seen of it.
fn memory_peak(meta: &Meta) -> Option<u64> {
    memory::peak_in(&meta.note.cgroups).max(meta.memory_peak)
}

/// The last lines of a log, each cut to [`LINE_BYTES_MAX`]. One that can't be read has none: a death is worth more than
/// its words.
fn last_lines(log: &std::path::Path) -> Vec<String> {
    let mut lines = logs::tail(log, OUTPUT_LINES).unwrap_or_default();
    for line in &mut lines {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
    }
    lines
}
