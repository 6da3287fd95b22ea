//! Humans who use the Engine's own commands, and the Engine's own doings: only where replicas are containers.

use std::collections::BTreeSet;

use bulsa_core::{
    decide::{Event, ExitStatus, Origin},
    ids::ReplicaId,
    time::Timestamp,
};

use crate::{
    tally::What,
    world::{Due, World},
};

impl World {
    /// One of their commands, or a restart of the Engine.
    pub(crate) fn human(&mut self) {
        if self.is_quiet() || !self.is_docker() {
            return;
        }
        let next = self.rng.between(3000, 15_000);
        self.after(next, Due::Human);
        let running: Vec<ReplicaId> =
            self.processes.iter().filter(|(_, p)| p.paused.is_none()).map(|(id, _)| id.clone()).collect();
        let paused: Vec<ReplicaId> =
            self.processes.iter().filter(|(_, p)| p.paused.is_some()).map(|(id, _)| id.clone()).collect();
        let stopped: Vec<ReplicaId> = self.taken.keys().cloned().collect();
        match self.rng.between(0, 8) {
            0 | 1 => self.one_of(&running).into_iter().for_each(|id| self.docker_stop(&id)),
            2 | 3 => self.one_of(&running).into_iter().for_each(|id| self.docker_pause(&id, true)),
            4 | 5 => self.one_of(&paused).into_iter().for_each(|id| self.docker_pause(&id, false)),
            6 => self.one_of(&stopped).into_iter().for_each(|id| self.docker_start(&id)),
            _ => self.engine_restarts(),
        }
    }

    fn one_of(&mut self, ids: &[ReplicaId]) -> Option<ReplicaId> {
        if ids.is_empty() {
            return None;
        }
        Some(ids[self.rng.between(0, ids.len() as u64) as usize].clone())
    }

    fn docker_stop(&mut self, id: &ReplicaId) {
        let Some(process) = self.vanishes(id) else { return };
        self.note(|| format!("docker stop {id}"));
        self.taken.insert(id.clone(), process);
        self.exits.insert(id.clone(), ExitStatus::Code(0));
        self.tell(Event::TakenAway { id: id.clone(), status: ExitStatus::Code(0) }, true);
    }

    fn docker_start(&mut self, id: &ReplicaId) {
        let Some(mut process) = self.taken.remove(id) else { return };
        self.note(|| format!("docker start {id}"));
        self.exits.remove(id);
        (process.started, process.hung, process.term_at) = (self.now, false, None);
        process.ready_at = Timestamp(self.now.0 + self.rng.between(50, 800));
        self.processes.insert(id.clone(), process);
        let origin = Origin::Adopted { routed: false };
        self.tell(Event::Started { id: id.clone(), at: self.now, origin }, true);
    }

    fn docker_pause(&mut self, id: &ReplicaId, paused: bool) {
        self.note(|| format!("docker {} {id}", if paused { "pause" } else { "unpause" }));
        self.tally.count(What::Pause);
        let since = paused.then_some(self.now);
        if let Some(process) = self.processes.get_mut(id) {
            process.paused = since;
        }
        self.after(1, Due::ToAgent(Box::new(Event::Paused { id: id.clone(), paused })));
    }

    /// It dies and Docker's restart policy brings it back: nobody is told.
    pub(crate) fn docker_restarts(&mut self, id: &ReplicaId) {
        let ready_at = Timestamp(self.now.0 + self.rng.between(50, 800));
        if let Some(process) = self.processes.get_mut(id) {
            (process.ready_at, process.hung) = (ready_at, false);
        }
    }

    /// Everything dies at once, and nobody is told; what Docker keeps comes back.
    fn engine_restarts(&mut self) {
        self.note(|| "the Engine restarts".to_owned());
        self.tally.count(What::EngineRestart);
        for id in self.processes.keys().cloned().collect::<BTreeSet<_>>() {
            if self.is_kept_by_docker(&id) {
                self.docker_restarts(&id);
            } else {
                self.vanishes(&id);
            }
        }
    }

    /// In the end nothing is frozen, and what hangs and is nobody's to kill is mended.
    pub(crate) fn humans_go_home(&mut self) {
        for (id, process) in self.processes.clone() {
            if process.paused.is_some() {
                self.docker_pause(&id, false);
            }
            if self.is_kept_by_docker(&id) {
                self.docker_restarts(&id);
            }
        }
    }
}
