//! Taking back what a drill did.
//!
//! Owns: what could outlive a drill, and that it doesn't: of this agent's, and of an agent before it that was killed. A
//! replica that is stopped goes on; one whose network, memory or app was taken away is ended, so that its place is filled
//! by a whole one. Never: takes back what healing has taken back already.

use bulsa_core::{decide::ReplicaPhase, ids::ReplicaId, wire::api::DrillKind};
use serde::{Deserialize, Serialize};

use super::Driver;
use crate::agent::store::{Change, ProjectRow};

/// The value in the store that says whom a drill hurts.
pub(in crate::agent::driver) const KEY: &str = "drill";

/// Whom a drill hurt, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent::driver) struct Left {
    /// The project's name.
    pub(super) project: String,
    /// The replica.
    pub(super) replica: String,
    /// How.
    pub(super) kind: DrillKind,
}

impl Left {
    /// Whether such a drill leaves something behind where nobody takes it back.
    pub(super) const fn leaves_traces(&self) -> bool {
        match self.kind {
            DrillKind::Hang | DrillKind::AppDead | DrillKind::Block | DrillKind::Cut | DrillKind::Memory => {
                true
            }
            DrillKind::Kill | DrillKind::CrashLoop | DrillKind::Probe => false,
        }
    }

    pub(super) fn to_json(&self) -> String {
        // Texts always have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Driver {
    /// Remembers what a drill of the agent before this one may have left.
    pub(in crate::agent::driver) fn recall_drill(&mut self, row: &ProjectRow) {
        let value = row.values.iter().find(|(key, _)| key == KEY).map(|(_, value)| value);
        self.drills.left.extend(value.and_then(|value| serde_json::from_str(value).ok()));
    }

    /// Takes back what the drill under way did.
    pub(super) async fn undo_drill(&mut self) {
        let Some(drill) = &mut self.drills.running else { return };
        drop(drill.helper.take());
        let (name, id, kind) = (drill.project.clone(), drill.victim.clone(), drill.kind);
        self.undo(&name, &id, kind).await;
    }

    /// Takes back what earlier agents' drills did, once it is known whether their victims live.
    pub(super) async fn undo_left(&mut self) {
        if self.drills.left.is_empty() {
            return;
        }
        let is_dormant =
            |left: &Left| self.projects.get(&left.project).is_some_and(|project| project.dormant);
        let (wait, due): (Vec<Left>, Vec<Left>) =
            std::mem::take(&mut self.drills.left).into_iter().partition(is_dormant);
        self.drills.left = wait;
        for left in due {
            if let Ok(id) = left.replica.parse::<ReplicaId>() {
                self.undo(&left.project, &id, left.kind).await;
            }
            self.forget_note(&left.project);
        }
    }

    async fn undo(&mut self, name: &str, id: &ReplicaId, kind: DrillKind) {
        let project = self.projects.get(name);
        let Some(replica) = project.and_then(|project| project.observed.replica(id)) else { return };
        if replica.phase != ReplicaPhase::Running || replica.ended {
            return; // it is on its way out
        }
        let serves = replica.health.is_ready();
        let done = match kind {
            DrillKind::Kill | DrillKind::CrashLoop | DrillKind::Probe => return,
            DrillKind::Hang => self.let_go_on(name, id).await.map(|()| "its processes go on"),
            // It has come round by itself.
            DrillKind::AppDead | DrillKind::Block if serves => return,
            DrillKind::AppDead | DrillKind::Block | DrillKind::Cut | DrillKind::Memory => {
                self.kill_again(name, id).await.map(|()| "it is ended, so that a whole one takes its place")
            }
        };
        match done {
            Ok(what) => {
                let text = format!("the drill `{kind}` of {} is taken back: {what}", id.name());
                self.tell(name, "drill.undone", Some(id), text);
            }
            Err(error) => {
                let text =
                    format!("what the drill `{kind}` did to {} can't be taken back: {error}", id.name());
                self.warn(name, "drill.not_undone", text);
            }
        }
    }

    /// Nobody is hurt any more.
    pub(super) fn forget_note(&mut self, project: &str) {
        let change = Change::SetValue { project: project.to_owned(), key: KEY.to_owned(), value: None };
        let store = self.store.clone();
        self.tasks.spawn(async move {
            // What stays there is looked at by the next agent, which finds nobody to help.
            if let Err(error) = store.commit(change).await {
                tracing::warn!(%error, "the store can't forget a drill that is over");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_drill_is_read_back() {
        let left =
            Left { project: "shop".to_owned(), replica: "web-r1-1.1".to_owned(), kind: DrillKind::Hang };
        assert_eq!(serde_json::from_str::<Left>(&left.to_json()).unwrap(), left);
        assert!(left.leaves_traces() && !Left { kind: DrillKind::Kill, ..left }.leaves_traces());
    }
}
