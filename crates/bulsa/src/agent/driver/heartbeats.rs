//! Heartbeats: whose came, and whose didn't.
//!
//! Owns: when each replica's last one came. Never: says when one is overdue (that is [`bulsa_core::heartbeat`]), or what
//! follows.

use std::{collections::BTreeSet, time::Duration};

use bulsa_core::{
    decide::{Event, ReplicaPhase},
    health::Verdict,
    heartbeat::{self, Beat},
    ids::{ReleaseId, ReplicaId},
    time::Timestamp,
    why::HEARTBEAT_MISSED,
};

use super::{Driver, probes::remember, project::Project};
use crate::agent::{host::cpu_stalled, process::heartbeat::session_of, store::Change};

/// Where [`Project::senders`] are in the store.
const KEY: &str = "heartbeats";

/// What a look at one replica found.
enum Found {
    Fine,
    /// It has sent none, and will very likely send none.
    Silent,
    Missed,
}

impl Driver {
    /// Takes in the heartbeats that were sent, then looks whose are overdue. Returns when to look next. In this order, so
    /// that an agent that stood still itself blames nobody for it.
    pub(super) fn judge_heartbeats(&mut self) -> Option<Timestamp> {
        self.take_heartbeats();
        let now = self.clock.now();
        let mut next: Option<Timestamp> = None;
        let mut found = Vec::new();
        for (name, project) in &self.projects {
            for (id, replica) in project.observed.replicas() {
                let Some(period) = project.desired.service(id.release, &id.service).and_then(|s| s.heartbeat)
                else {
                    continue;
                };
                let is_proven =
                    matches!(replica.health.verdict(), Verdict::Assumed | Verdict::Ready | Verdict::Suspect);
                let is_well =
                    replica.phase == ReplicaPhase::Running && !replica.ended && !replica.paused && is_proven;
                let Some(meta) = project.meta.get(id).filter(|_| is_well) else { continue };
                let known = meta.adopted.unwrap_or(replica.started);
                let beat = match meta.heartbeat.or_else(|| owed(project, id, period)) {
                    None if heartbeat::is_silent(known, period, now) => Some(Found::Silent),
                    None => None,
                    Some(last) => {
                        let is_late = heartbeat::judge(last, period, false, now) == Beat::Missed;
                        let is_short =
                            is_late && cpu_stalled().is_ok_and(|stalled| self.pressure.look(now, stalled));
                        match heartbeat::judge(last, period, is_short, now) {
                            Beat::Due(at) => {
                                next = Some(next.map_or(at, |next| next.min(at)));
                                Some(Found::Fine).filter(|_| is_late)
                            }
                            Beat::Missed => Some(Found::Missed),
                        }
                    }
                };
                found.extend(beat.map(|beat| (name.clone(), id.clone(), period, beat)));
            }
        }
        for (name, id, period, beat) in found {
            let period = humantime(period);
            match beat {
                Found::Fine => {}
                Found::Missed => self.heartbeat_missed(&name, &id, &period, now),
                Found::Silent => self.warn(
                    &name,
                    "heartbeat.none",
                    format!(
                        "`{}` has sent no heartbeat, so it isn't held to one every {period}: let the program send \
                         `WATCHDOG=1` to $NOTIFY_SOCKET (sd_notify), or take `heartbeat` away",
                        id.service
                    ),
                ),
            }
        }
        next
    }

    fn heartbeat_missed(&mut self, name: &str, id: &ReplicaId, period: &str, now: Timestamp) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let text = format!("{HEARTBEAT_MISSED} {period}");
        if let Some(meta) = project.meta.get_mut(id) {
            meta.last_probe.clone_from(&text);
            remember(&mut meta.probes, now.0, &text);
        }
        project.apply(Event::HeartbeatMissed { id: id.clone() }, now);
        self.tell(name, "replica.suspect", Some(id), format!("{} hangs: {text}", id.name()));
    }

    /// What a replica is told: where to send, and how often.
    pub(super) fn heartbeat_of(&self, period: Duration) -> Option<(String, Duration)> {
        let path = self.heartbeats.as_ref()?.path().to_str()?;
        Some((path.to_owned(), period))
    }

    /// Whose heartbeats were sent is remembered.
    fn take_heartbeats(&mut self) {
        let Some(beats) = &self.heartbeats else { return };
        let now = self.clock.now();
        let mut changed = BTreeSet::new();
        for pid in beats.take() {
            let session = session_of(pid);
            let mut projects = self.projects.values_mut();
            match projects.find_map(|project| beat_of(project, &[Some(pid), session], now)) {
                Some(Some(name)) => drop(changed.insert(name)),
                Some(None) => {}
                None => tracing::debug!(pid, "a heartbeat came from a process that belongs to no replica"),
            }
        }
        self.keep_senders(changed);
    }

    fn keep_senders(&mut self, names: BTreeSet<String>) {
        for name in names {
            let Some(project) = self.projects.get_mut(&name) else { continue };
            let releases = &project.desired.releases;
            project.senders.retain(|(release, _)| releases.contains_key(release));
            let words = project.senders.iter().map(|(release, service)| format!("{}:{service}", release.0));
            let value = Some(words.collect::<Vec<_>>().join(" "));
            let change = Change::SetValue { project: name, key: KEY.to_owned(), value };
            let store = self.store.clone();
            self.tasks.spawn(async move {
                if let Err(error) = store.commit(change).await {
                    let text = "a worker that hangs while the agent is replaced may not be found out";
                    tracing::warn!(%error, "{text}: who sends heartbeats can't be stored");
                }
            });
        }
    }
}

/// When a replica that this agent took over, and has not heard yet, is taken to have sent one, if its program is known to send:
/// it may have begun to hang between two agents.
fn owed(project: &Project, id: &ReplicaId, period: Duration) -> Option<Timestamp> {
    let known = project.meta.get(id)?.adopted?;
    // It learns of the new agent when it sends next.
    project.senders.contains(&(id.release, id.service.clone())).then_some(known + period)
}

/// What an earlier agent has kept of [`Project::senders`]: `RELEASE:SERVICE`, separated by blanks.
pub(super) fn senders(values: &[(String, String)]) -> BTreeSet<(ReleaseId, String)> {
    let found = values.iter().filter(|(key, _)| key == KEY).flat_map(|(_, value)| value.split(' '));
    let of = |word: &str| {
        let (release, service) = word.split_once(':')?;
        Some((ReleaseId(release.parse().ok()?), service.to_owned()))
    };
    found.filter_map(of).collect()
}

/// Takes a heartbeat in, if one of these processes is the first of a replica of the project. Names the project when its
/// program was not known to send any.
fn beat_of(project: &mut Project, pids: &[Option<i32>], now: Timestamp) -> Option<Option<String>> {
    let is_it = |pid: u32| pids.iter().flatten().any(|one| u32::try_from(*one) == Ok(pid));
    let (id, meta) = project.meta.iter_mut().find(|(_, meta)| meta.pid.is_some_and(is_it))?;
    meta.heartbeat = Some(now);
    let is_new = project.senders.insert((id.release, id.service.clone()));
    Some(is_new.then(|| project.name.clone()))
}

/// As people write it: `30s`.
fn humantime(period: Duration) -> String {
    bulsa_core::compose::duration::format(period)
}
