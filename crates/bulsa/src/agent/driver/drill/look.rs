//! What is seen of a drill: its moments, to the millisecond at which the driver knew.
//!
//! Owns: the moments, and when a drill is over. Level-triggered, as everything is here: after whatever happened it is
//! looked at how the victim and its place are.

use std::{collections::BTreeSet, time::Duration};

use bulsa_core::{
    decide::{Observed, ReplicaPhase},
    drill::{BROKEN_RUNS, CRASHES, Seen},
    ids::ReplicaId,
    spec::Service,
    time::Timestamp,
    wire::api::DrillKind,
};

use super::{Drill, Drills, Driver};

/// The program in a probe's place that is not there.
const NO_PROGRAM: &str = "/nonexistent/bulsa-drill-broken-probe";

/// When something was seen first.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    detected: Option<Timestamp>,
    unrouted: Option<Timestamp>,
    recovered: Option<Timestamp>,
    /// Who died, and when the last of them was gone.
    dead: BTreeSet<ReplicaId>,
    last_death: Option<Timestamp>,
    /// Whom a crash loop has killed.
    killed: BTreeSet<ReplicaId>,
    /// The table from which on the place is served again.
    back_in: Option<u64>,
    /// Runs of the probe that could not run.
    broken_runs: u32,
    first_broken: Option<Timestamp>,
}

impl Moments {
    pub(super) fn seen(&self, injured: Timestamp, is_routed: bool) -> Seen {
        let since = |at: Option<Timestamp>| at.map(|at| at.since(injured));
        let from = self.last_death.filter(|_| self.killed.len() > 1).unwrap_or(injured);
        Seen {
            detected: since(self.detected),
            unrouted: since(self.unrouted),
            recovered: self.recovered.map(|at| at.since(from)),
            deaths: u32::try_from(self.dead.len()).unwrap_or(u32::MAX),
            is_routed,
        }
    }
}

/// What a look found that others should hear of.
#[derive(Debug, Default)]
struct News {
    told: Vec<(&'static str, String)>,
    kill: Option<ReplicaId>,
    is_over: bool,
}

impl Driver {
    /// Looks at the drill under way, and at what an earlier agent's left.
    pub(in crate::agent::driver) async fn watch_drill(&mut self) {
        self.undo_left().await;
        let now = self.clock.now();
        let Some(drill) = self.drills.running.as_mut().filter(|drill| drill.injured.is_some()) else {
            return;
        };
        let Some(project) = self.projects.get(&drill.project) else { return self.end_drill().await };
        let service = project.desired.service(drill.victim.release, &drill.victim.service);
        let news = drill.look(&project.observed, service, now);
        let (name, victim) = (drill.project.clone(), drill.victim.clone());
        for (kind, text) in news.told {
            self.tell(&name, kind, Some(&victim), text);
        }
        if let Some(next) = news.kill {
            self.crash_again(&name, next).await;
        }
        if news.is_over {
            self.end_drill().await;
        }
    }

    async fn crash_again(&mut self, name: &str, next: ReplicaId) {
        match self.kill_again(name, &next).await {
            Ok(()) => {
                let text = format!("a drill (`{}`): {} is killed, too", DrillKind::CrashLoop, next.name());
                self.tell(name, "drill.killed", Some(&next), text);
                if let Some(drill) = &mut self.drills.running {
                    drill.seen.killed.insert(next);
                }
            }
            // It is looked at again when something happens: it may just have ended.
            Err(error) => tracing::debug!(%error, replica = %next, "a drill could not kill a replica"),
        }
    }
}

impl Drills {
    /// A probe of a replica could not run.
    pub(in crate::agent::driver) fn probe_is_broken(&mut self, name: &str, id: &ReplicaId, now: Timestamp) {
        let is_meant = self.broken_probe_of(name, id).is_some();
        if let Some(drill) = self.running.as_mut().filter(|_| is_meant) {
            drill.seen.broken_runs += 1;
            drill.seen.first_broken.get_or_insert(now);
        }
    }

    /// The program that a replica's probe runs instead of its own, for a drill's sake.
    pub(in crate::agent::driver) fn broken_probe_of(
        &self,
        name: &str,
        id: &ReplicaId,
    ) -> Option<&'static str> {
        let drill = self.running.as_ref()?;
        let is_it = drill.kind == DrillKind::Probe && drill.injured.is_some();
        (is_it && drill.project == name && drill.victim == *id).then_some(NO_PROGRAM)
    }
}

impl Drill {
    /// One look.
    fn look(&mut self, observed: &Observed, service: Option<&Service>, now: Timestamp) -> News {
        let mut news = News::default();
        let after = now.since(self.injured.unwrap_or(now));
        let name = self.victim.name();
        let replica = observed.replica(&self.victim);
        let is_going = replica.is_none_or(|one| one.ended || one.is_stopping());
        let is_ill = is_going || replica.is_some_and(|one| one.paused || !one.health.is_ready());
        let noticed =
            if self.kind == DrillKind::Probe { self.seen.first_broken } else { is_ill.then_some(now) };
        if let (None, Some(at)) = (self.seen.detected, noticed) {
            self.seen.detected = Some(at);
            news.told
                .push(("drill.detected", format!("it is seen that {name} is hurt, after {}", ms(after))));
        }
        let can_be_chosen = observed.routed().contains(&self.victim) || !observed.is_unrouted(&self.victim);
        if self.is_routed && self.seen.unrouted.is_none() && !can_be_chosen {
            self.seen.unrouted = Some(now);
            news.told.push(("drill.unrouted", format!("no proxy can choose {name}, after {}", ms(after))));
        }
        self.count_deaths(observed, now);
        if self.kind == DrillKind::CrashLoop {
            self.seen.killed.insert(self.victim.clone());
            news.kill = self.next_to_kill(observed);
        }
        if self.is_back(observed, service, now) {
            news.told
                .push(("drill.recovered", format!("the place of {name} serves again, after {}", ms(after))));
        }
        let has_seen_enough = match self.kind {
            DrillKind::Probe => self.seen.broken_runs >= BROKEN_RUNS || is_going,
            _ => self.seen.recovered.is_some(),
        };
        news.is_over = has_seen_enough || after >= self.plan.limit;
        news
    }

    fn count_deaths(&mut self, observed: &Observed, now: Timestamp) {
        let killed = self.seen.killed.iter().chain([&self.victim]);
        let gone: Vec<ReplicaId> = killed
            .filter(|id| observed.replica(id).is_none() && !self.seen.dead.contains(*id))
            .cloned()
            .collect();
        if !gone.is_empty() {
            self.seen.last_death = Some(now);
            self.seen.dead.extend(gone);
        }
    }

    /// A crash loop's next victim: whoever runs in the place, until enough were killed.
    fn next_to_kill(&self, observed: &Observed) -> Option<ReplicaId> {
        if self.seen.killed.len() >= CRASHES as usize {
            return None;
        }
        let slot = self.victim.slot();
        let mut running = observed.in_slot(&slot).filter(|(id, replica)| {
            replica.phase == ReplicaPhase::Running && !replica.ended && !self.seen.killed.contains(*id)
        });
        running.next().map(|(id, _)| id.clone())
    }

    /// Whether the place serves again as of now, for the first time.
    fn is_back(&mut self, observed: &Observed, service: Option<&Service>, now: Timestamp) -> bool {
        let Some(service) = service.filter(|_| self.seen.detected.is_some()) else { return false };
        let is_done = self.kind != DrillKind::CrashLoop || self.seen.killed.len() >= CRASHES as usize;
        if self.seen.recovered.is_some() || self.kind == DrillKind::Probe || !is_done {
            return false;
        }
        let slot = self.victim.slot();
        let serves = observed.in_slot(&slot).any(|(id, replica)| {
            let is_killed = self.seen.killed.contains(id);
            let is_reached = !self.is_routed || observed.routed().contains(id);
            replica.serves(service) && is_reached && !is_killed
        });
        if !serves {
            self.seen.back_in = None;
            return false;
        }
        // Routed is who every proxy knows.
        let table = *self.seen.back_in.get_or_insert(observed.published());
        if self.is_routed && observed.proxies().any(|(_, proxy)| proxy.table() < table) {
            return false;
        }
        self.seen.recovered = Some(now);
        true
    }
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
