//! One worker's own view of the current table.
//!
//! Owns: turns, pools, queues, and how fast targets answer here.
//! Never: leaves its thread.
//!
//! A view is built anew for each table and takes over what the old one knew: services that have not changed as they are,
//! pools of targets that stay, queues of services by their name. Targets that the new table leaves out close their idle
//! connections at once; those in use are closed when their answer has ended.

mod service;
mod target;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use self::service::{LocalService, Request, Turn};
pub(crate) use self::target::LocalTarget;
use crate::plan::{Plan, PlanService};
use crate::route::Found;

/// The current table as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalTable {
    pub(crate) plan: Arc<Plan>,
    services: Vec<Rc<LocalService>>,
    targets: HashMap<u64, Rc<LocalTarget>>,
    /// Targets of earlier tables on which somebody may still wait.
    former: Vec<Weak<LocalTarget>>,
}

impl LocalTable {
    /// A view of nothing.
    pub(crate) fn empty(plan: Arc<Plan>) -> Self {
        Self { plan, services: Vec::new(), targets: HashMap::new(), former: Vec::new() }
    }

    /// Builds the view of a newer table and retires what it leaves out. `worker` spreads the first turns.
    pub(crate) fn next(&self, plan: Arc<Plan>, worker: usize) -> Self {
        let targets = self.next_targets(&plan);
        let services =
            plan.services.iter().map(|service| self.next_service(service, &targets, worker)).collect();
        let mut former: Vec<_> = self.former.iter().filter(|one| one.strong_count() > 0).cloned().collect();
        for (key, target) in &self.targets {
            if !targets.get(key).is_some_and(|kept: &Rc<LocalTarget>| Rc::ptr_eq(kept, target)) {
                target.retire();
                former.push(Rc::downgrade(target));
            }
        }
        Self { plan, services, targets, former }
    }

    fn next_targets(&self, plan: &Plan) -> HashMap<u64, Rc<LocalTarget>> {
        let mut targets = HashMap::with_capacity(self.targets.len());
        for target in plan.services.iter().flat_map(|service| &service.targets) {
            let key = target.stats.key();
            let kept = self.targets.get(&key).filter(|known| known.since == target.since);
            let local = kept.cloned().unwrap_or_else(|| LocalTarget::new(&target.stats, target.since));
            targets.insert(key, local);
        }
        targets
    }

    fn next_service(
        &self,
        service: &Arc<PlanService>,
        targets: &HashMap<u64, Rc<LocalTarget>>,
        worker: usize,
    ) -> Rc<LocalService> {
        let known = self.plan.by_name.get(&service.name).and_then(|index| self.services.get(*index));
        match known {
            Some(known) if Arc::ptr_eq(&known.plan, service) => Rc::clone(known),
            known => LocalService::new(service, targets, known.map(Rc::as_ref), worker),
        }
    }

    /// Where a request leads, by listener, host and path.
    pub(crate) fn find(&self, listener: &str, host: &str, path: &str) -> Option<Found<'_>> {
        self.plan.routes.find(listener, host, path)
    }

    /// The service with this index.
    pub(crate) fn service(&self, index: usize) -> Option<&Rc<LocalService>> {
        self.services.get(index)
    }

    /// The service that a TCP listener's connections go to.
    pub(crate) fn find_tcp(&self, listener: &str) -> Option<&Rc<LocalService>> {
        self.services.get(self.plan.routes.find_tcp(listener)?)
    }

    /// The services.
    pub(crate) fn services(&self) -> &[Rc<LocalService>] {
        &self.services
    }

    /// Sends everybody who waits in a hold to look for a route again.
    pub(crate) fn disperse(&self) {
        for service in &self.services {
            service.room.disperse();
        }
    }

    /// Tells whoever waits for an answer of a target that the plan gives up.
    pub(crate) fn abandon(&self) {
        if self.plan.abandon.is_empty() {
            return;
        }
        let given_up = |target: &LocalTarget| self.plan.abandon.contains(target.stats.id());
        for target in self.targets.values().filter(|target| given_up(target)) {
            target.abandon();
        }
        for target in self.former.iter().filter_map(Weak::upgrade).filter(|target| given_up(target)) {
            target.abandon();
        }
    }

    /// Closes idle connections that are too old, and says whether a target is stalled.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut stalled = false;
        for target in self.targets.values() {
            target.sweep(now);
            stalled |= target.stats.is_stalled(now);
        }
        stalled
    }
}

/// The cell in which a worker keeps its view.
#[derive(Debug)]
pub(crate) struct CurrentTable(RefCell<Rc<LocalTable>>);

impl CurrentTable {
    pub(crate) fn new(table: LocalTable) -> Self {
        Self(RefCell::new(Rc::new(table)))
    }

    pub(crate) fn get(&self) -> Rc<LocalTable> {
        Rc::clone(&self.0.borrow())
    }

    pub(crate) fn set(&self, table: LocalTable) {
        *self.0.borrow_mut() = Rc::new(table);
    }
}
