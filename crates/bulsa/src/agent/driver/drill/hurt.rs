//! The injuries themselves.
//!
//! Owns: which hand does which injury. A process is the keeper's to signal, a container's processes are signalled from
//! this host, so that the Engine has nothing to do with it: what it is asked is a person's wish. Never: waits for
//! anything: what takes long is a task.

use std::{collections::BTreeSet, io, path::PathBuf};

use bulsa_core::{ids::ReplicaId, wire::api::DrillKind};
use rustix::process::Signal;

use super::{DrillInput, Driver};
use crate::agent::{
    injure::{self, memory},
    process::{listener, netns},
};

/// What is hurt.
struct Victim {
    task: String,
    pid: Option<u32>,
    container: Option<String>,
    namespace: Option<String>,
    /// The directories of a process's control group.
    cgroups: Vec<PathBuf>,
}

impl Driver {
    /// Hurts the victim of the drill that is noted.
    pub(super) async fn hurt(&mut self) {
        let Some(drill) = &self.drills.running else { return };
        let (id, kind, replica, name) = (drill.id, drill.kind, drill.victim.clone(), drill.project.clone());
        let Some(victim) = self.victim(&name, &replica) else {
            return self.give_up_drill("it is gone already".to_owned());
        };
        let done = match kind {
            DrillKind::Kill | DrillKind::CrashLoop => self.kill_main(&victim).await,
            DrillKind::Hang => self.stop_all(&victim).await,
            DrillKind::AppDead => self.kill_serving(&name, &replica, &victim),
            DrillKind::Probe => Ok(()),
            DrillKind::Block | DrillKind::Cut | DrillKind::Memory => {
                return self.hurt_aside(id, kind, &name, &replica, victim);
            }
        };
        match done {
            Ok(()) => self.injured(None),
            Err(error) => {
                self.undo_drill().await;
                self.give_up_drill(format!("the injury can't be done: {error}"));
            }
        }
    }

    fn victim(&self, name: &str, id: &ReplicaId) -> Option<Victim> {
        let project = self.projects.get(name)?;
        let meta = project.meta.get(id)?;
        Some(Victim {
            task: project.task(id),
            pid: meta.pid,
            container: meta.container.clone(),
            namespace: meta.note.namespace.clone(),
            cgroups: meta.note.cgroups.clone(),
        })
    }

    async fn kill_main(&mut self, victim: &Victim) -> io::Result<()> {
        let Some(container) = &victim.container else {
            return self.keeper_signal(victim, Signal::KILL, false).await;
        };
        let main = victim.pid.ok_or_else(|| io::Error::other("its process can't be seen from here"))?;
        let find = || Ok([main].into_iter().filter(|pid| injure::is_of_container(*pid, container)).collect());
        some(injure::signal(find, Signal::KILL)?)
    }

    /// Kills a replica's main process, for a crash loop's sake.
    pub(super) async fn kill_again(&mut self, name: &str, id: &ReplicaId) -> io::Result<()> {
        let victim = self.victim(name, id).ok_or_else(|| io::Error::other("it is gone already"))?;
        self.kill_main(&victim).await
    }

    async fn stop_all(&mut self, victim: &Victim) -> io::Result<()> {
        match &victim.container {
            Some(container) => some(injure::stop_container(container)?),
            None => self.keeper_signal(victim, Signal::STOP, true).await,
        }
    }

    /// Lets a replica's processes go on.
    pub(super) async fn let_go_on(&mut self, name: &str, id: &ReplicaId) -> io::Result<()> {
        let Some(victim) = self.victim(name, id) else { return Ok(()) };
        match &victim.container {
            Some(container) => injure::signal(|| injure::of_container(container), Signal::CONT).map(drop),
            None => self.keeper_signal(&victim, Signal::CONT, true).await,
        }
    }

    async fn keeper_signal(&mut self, victim: &Victim, signal: Signal, group: bool) -> io::Result<()> {
        let sent = self.keeper.signal(&victim.task, signal, group).await;
        sent.map_err(|error| {
            self.lose_keeper(&error);
            io::Error::other(format!("the keeper is gone: {error}"))
        })
    }

    fn kill_serving(&self, name: &str, id: &ReplicaId, victim: &Victim) -> io::Result<()> {
        let project = self.projects.get(name);
        let port = project.and_then(|project| project.observed.replica(id)?.addr).map(|addr| addr.port());
        let (Some(main), Some(port)) = (victim.pid, port) else {
            return Err(io::Error::other("it can't be seen which of its processes serves"));
        };
        let find = || {
            let serving: BTreeSet<u32> = listener::serving(main, Some(&victim.task), port)?;
            if serving.contains(&main) { Ok(BTreeSet::new()) } else { Ok(serving) }
        };
        some(injure::signal(find, Signal::KILL)?)
    }

    /// Injuries that take a while: done by a task that reports.
    fn hurt_aside(&mut self, id: u64, kind: DrillKind, name: &str, replica: &ReplicaId, victim: Victim) {
        let project = self.projects.get(name);
        let address = project.and_then(|project| project.observed.replica(replica)?.addr);
        let service = project.and_then(|project| project.desired.service(replica.release, &replica.service));
        let path = service.and_then(|service| service.drill_block.clone());
        let (engine, inbox) = (self.engine(), self.inbox.clone());
        self.tasks.spawn(async move {
            let done = match (kind, victim) {
                (DrillKind::Block, _) => match (address, path) {
                    (Some(address), Some(path)) => {
                        let sent = injure::block(address, &path).await.map_err(|error| error.to_string());
                        sent.map(|stream| Some(tokio::spawn(injure::until_closed(stream)).abort_handle()))
                    }
                    _ => Err("its address isn't known".to_owned()),
                },
                (DrillKind::Cut, Victim { container: Some(container), .. }) => match engine {
                    Ok(engine) => {
                        engine.leave_all(&container).await.map(|_| None).map_err(|error| error.to_string())
                    }
                    Err(error) => Err(error),
                },
                (DrillKind::Cut, Victim { namespace: Some(namespace), .. }) => {
                    netns::cut(&namespace).await.map(|()| None).map_err(|error| error.to_string())
                }
                (DrillKind::Memory, Victim { container: Some(container), pid: Some(pid), .. }) => {
                    match engine {
                        Ok(engine) => memory::run_out(&engine, &container, pid)
                            .await
                            .map(|helper| Some(tokio::spawn(helper.ended()).abort_handle())),
                        Err(error) => Err(error),
                    }
                }
                (DrillKind::Memory, Victim { container: None, pid: Some(pid), cgroups, .. }) => {
                    memory::run_out_of(&cgroups, pid)
                        .await
                        .map(|helper| Some(tokio::spawn(helper.ended()).abort_handle()))
                }
                _ => Err("it is no longer what it was".to_owned()),
            };
            inbox.send(DrillInput::Injured(id, done).into()).await.ok();
        });
    }
}

/// Nobody was there to be signalled.
fn some(count: usize) -> io::Result<()> {
    if count == 0 { Err(io::Error::other("its processes can't be found")) } else { Ok(()) }
}
