//! Clearing up: what the demo saw running must be gone at the end.
//!
//! Owns: a list of the processes that the snapshots named, each held by a descriptor, so that no number is mistaken
//! for another process that took it. Never: signals a process by its number or its name.

use bulsa_core::wire::api::Snapshot;
use rustix::process::Signal;

use super::{Interrupt, daemon::Daemon, injure::Victim};

/// Processes held at most; a show has a few dozen.
const HELD_MAX: usize = 1000;

/// Processes that have been seen.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    held: Vec<(u32, String, Victim)>,
}

impl Leftovers {
    /// Takes hold of every process that `snapshot` names and that isn't held yet.
    pub(crate) fn see(&mut self, snapshot: &Snapshot) {
        let proxies = snapshot.proxies.iter().map(|proxy| (proxy.pid, "proxy".to_owned()));
        let services = snapshot.projects.iter().flat_map(|project| &project.services);
        let replicas = services.flat_map(|service| &service.replicas);
        let replicas = replicas.filter_map(|replica| Some((replica.pid?, replica.id.clone())));
        let agent = (snapshot.agent.pid, "agent".to_owned());
        self.held.retain(|(.., victim)| !victim.is_dead());
        for (pid, name) in proxies.chain(replicas).chain([agent]) {
            if self.held.len() < HELD_MAX && !self.held.iter().any(|(held, ..)| *held == pid) {
                // One that can't be held is gone already.
                self.held.extend(Victim::hold(pid).ok().map(|victim| (pid, name, victim)));
            }
        }
    }

    /// Ends the daemon in order, at once when the user insists, and kills what outlived it. Returns what should not
    /// have been so.
    pub(crate) async fn clear(&mut self, daemon: &mut Daemon, interrupt: &mut Interrupt) -> Vec<String> {
        if let Ok(snapshot) = daemon.snapshot().await {
            self.see(&snapshot);
        }
        let stopped = tokio::select! {
            complaints = daemon.stop() => Some(complaints),
            () = interrupt.came() => None,
        };
        let mut complaints = match stopped {
            Some(complaints) => complaints,
            None => {
                daemon.kill().await;
                vec!["killed at once, as asked".to_owned()]
            }
        };
        for (pid, name, victim) in self.held.drain(..).filter(|(.., victim)| !victim.is_dead()) {
            complaints.push(format!("process {pid} ({name}) was still running and was killed"));
            // An error says that it ended in this very moment.
            drop(victim.signal(Signal::KILL));
        }
        complaints
    }
}
