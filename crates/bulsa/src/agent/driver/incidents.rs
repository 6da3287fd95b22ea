//! Incidents: a death or a hang, what was known of it, and when its place served again.
//!
//! Owns: the incidents that aren't over yet. Never: heals; the next decision does.

use std::collections::BTreeMap;

use bulsa_core::{
    decide::ExitStatus,
    ids::{ReplicaId, Slot},
};

use super::{Driver, project::parse_task};
use crate::agent::{
    process::logs,
    store::{IncidentRow, Record},
};

/// At most this many incidents of one project are open; further deaths are in the ledger alone.
const OPEN_MAX: usize = 64;
/// So many last lines of output are kept with an incident.
const OUTPUT_LINES: usize = 20;

/// The incidents of one project that aren't over.
#[derive(Debug, Default)]
pub(super) struct Open(BTreeMap<Slot, (IncidentRow, u64)>);

impl Driver {
    /// A replica died or hung: what is known of it is written down before anything is done about it.
    pub(super) fn open_incident(&mut self, name: &str, id: &ReplicaId, status: ExitStatus, cause: &str) {
        let (now, answered_502) = (self.clock.now(), self.bad_gateways());
        let next_id = self.store.next_id();
        let Some(project) = self.projects.get_mut(name) else { return };
        // A slot that dies again before it served is still the same incident.
        if project.incidents.0.contains_key(&id.slot()) || project.incidents.0.len() >= OPEN_MAX {
            return;
        }
        let meta = project.meta.get(id);
        let log = meta.and_then(|meta| meta.note.log.as_deref());
        let last_lines = log.and_then(|path| logs::tail(path, OUTPUT_LINES).ok()).unwrap_or_default();
        let evidence = serde_json::json!({
            "exit": super::view::exit_text(status),
            "last_probe": meta.map_or("", |meta| meta.last_probe.as_str()),
            "last_lines": last_lines,
            "suspect_request": meta.and_then(|meta| meta.suspect.as_deref()),
        });
        let row = IncidentRow {
            id: next_id,
            project: name.to_owned(),
            service: id.service.clone(),
            replica: id.to_string(),
            cause: cause.to_owned(),
            evidence: evidence.to_string(),
            detected_at_ms: now.0,
            recovered_at_ms: None,
            requests_lost: 0,
        };
        project.incidents.0.insert(id.slot(), (row.clone(), answered_502));
        self.store.note(Record::Incident(row));
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
            if let Some((row, _)) = project.incidents.0.get_mut(&id.slot())
                && row.replica == id.to_string()
                && let Ok(mut evidence) = serde_json::from_str::<serde_json::Value>(&row.evidence)
            {
                evidence["suspect_request"] = request.clone().into();
                row.evidence = evidence.to_string();
                self.store.note(Record::Incident(row.clone()));
            }
        }
        let with: Vec<_> = dead.iter().map(|(_, id)| id.name().to_string()).collect();
        let text = format!(
            "{request} was sent to {} and both died or broke off; it may be what kills them, and is sent to no third",
            with.join(" and ")
        );
        self.tell(name, "request.suspect", dead.last().map(|(_, id)| id), text);
    }

    /// A replica serves: if its place had an incident, that is over. What it cost is what the proxies answered with 502
    /// meanwhile; two incidents at once both count it.
    pub(super) fn close_incident(&mut self, name: &str, id: &ReplicaId) {
        let (now, answered_502) = (self.clock.now(), self.bad_gateways());
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some((mut row, before)) = project.incidents.0.remove(&id.slot()) else { return };
        row.recovered_at_ms = Some(now.0);
        row.requests_lost = answered_502.saturating_sub(before);
        let took = now.0.saturating_sub(row.detected_at_ms);
        let text = format!(
            "{} serves again, {took} ms after the death; {} requests lost",
            id.name(),
            row.requests_lost
        );
        self.store.note(Record::Incident(row));
        self.tell(name, "incident.over", Some(id), text);
    }

    /// How often the proxies have answered 502 of their own, those that are gone included.
    fn bad_gateways(&self) -> u64 {
        let living = self.proxies.values().filter_map(|proxy| proxy.report.as_ref());
        self.bad_gateways_of_gone + living.map(|report| report.bad_gateway).sum::<u64>()
    }
}
