//! One worker's own view of the current table.
//!
//! Owns: turns, pools, queues, and which targets this worker leaves out for a while.
//! Never: leaves its thread.
//!
//! A view is built anew for each table and takes over what the old one knew: pools of targets that stay, queues of
//! services by their name. Targets that the new table leaves out close their idle connections at once; those in use
//! are closed when their answer has ended.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::choose::{Candidate, Choice, LEAVE_OUT, Lost, choose};
use crate::hold::Room;
use crate::plan::{Plan, PlanService};
use crate::pool::Pool;
use crate::target::TargetStats;
use crate::upstream::Upstream;

/// The current table as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalTable {
    pub(crate) plan: Arc<Plan>,
    services: Vec<LocalService>,
    targets: HashMap<u64, Rc<LocalTarget>>,
}

/// One service as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalService {
    index: usize,
    targets: Vec<Rc<LocalTarget>>,
    turn: Cell<usize>,
    pub(crate) room: Rc<Room>,
}

/// One target as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalTarget {
    pub(crate) stats: Arc<TargetStats>,
    since: u64,
    out_until: Cell<Option<Instant>>,
    routed: Cell<bool>,
    pool: Pool,
}

/// What a service says to a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Send it there.
    Go(Rc<LocalTarget>),
    /// Wait until a target is ready.
    Wait,
    /// Wait until then, or for a newer table.
    WaitFor(Instant),
}

impl LocalTable {
    /// A view of nothing.
    pub(crate) fn empty(plan: Arc<Plan>) -> Self {
        Self { plan, services: Vec::new(), targets: HashMap::new() }
    }

    /// Builds the view of a newer table and retires what it leaves out. `worker` spreads the first turns.
    pub(crate) fn next(&self, plan: Arc<Plan>, worker: usize) -> Self {
        let targets = self.next_targets(&plan);
        let services: Vec<_> = plan
            .services
            .iter()
            .enumerate()
            .map(|(index, service)| self.next_service(index, service, &targets, worker))
            .collect();
        let next = Self { plan, services, targets };
        for (key, target) in &self.targets {
            if !next.targets.get(key).is_some_and(|kept| Rc::ptr_eq(kept, target)) {
                target.retire();
            }
        }
        next
    }

    fn next_targets(&self, plan: &Plan) -> HashMap<u64, Rc<LocalTarget>> {
        let mut targets = HashMap::new();
        for target in plan.services.iter().flat_map(|service| &service.targets) {
            let key = target.stats.key();
            let kept = self.targets.get(&key).filter(|known| known.since == target.since);
            let local = kept.cloned().unwrap_or_else(|| LocalTarget::new(&target.stats, target.since));
            local.out_until.set(None);
            targets.insert(key, local);
        }
        targets
    }

    fn next_service(
        &self,
        index: usize,
        service: &PlanService,
        targets: &HashMap<u64, Rc<LocalTarget>>,
        worker: usize,
    ) -> LocalService {
        let known = self.services.iter().find(|known| self.plan.services[known.index].name == service.name);
        LocalService {
            index,
            targets: service.targets.iter().filter_map(|t| targets.get(&t.stats.key()).cloned()).collect(),
            turn: Cell::new(known.map_or(worker, |known| known.turn.get())),
            room: known
                .map_or_else(|| Room::new(Arc::clone(&service.places)), |known| Rc::clone(&known.room)),
        }
    }

    /// The service that a request is for.
    pub(crate) fn find(&self, listener: &str, host: &str, path: &str) -> Option<&LocalService> {
        self.services.get(self.plan.routes.find(listener, host, path)?)
    }

    /// The service that a TCP listener's connections go to.
    pub(crate) fn find_tcp(&self, listener: &str) -> Option<&LocalService> {
        self.services.get(self.plan.routes.find_tcp(listener)?)
    }

    /// What the table says about a service.
    pub(crate) fn plan_of(&self, service: &LocalService) -> &PlanService {
        &self.plan.services[service.index]
    }

    /// Tells every queue how many targets are ready now.
    pub(crate) fn let_out(&self, now: Instant) {
        for service in &self.services {
            service.room.set_ready(service.ready(now));
        }
    }

    /// Sends everybody who waits to look for a route again.
    pub(crate) fn disperse(&self) {
        for service in &self.services {
            service.room.disperse();
        }
    }

    /// Closes idle connections that are too old.
    pub(crate) fn sweep(&self, now: Instant) {
        for target in self.targets.values() {
            target.pool.sweep(now);
        }
    }
}

impl LocalService {
    /// Chooses the next target in turn.
    pub(crate) fn choose(&self, lost: Option<Lost>, now: Instant) -> Turn {
        let count = self.targets.len();
        match choose(count, self.turn.get(), lost, now, |index| self.targets[index].candidate()) {
            Choice::Go(index) => {
                self.turn.set((index + 1) % count);
                Turn::Go(Rc::clone(&self.targets[index]))
            }
            Choice::Wait => Turn::Wait,
            Choice::WaitFor(until) => Turn::WaitFor(until),
        }
    }

    fn ready(&self, now: Instant) -> usize {
        self.targets.iter().filter(|target| target.candidate().is_ready(now)).count()
    }
}

impl LocalTarget {
    fn new(stats: &Arc<TargetStats>, since: u64) -> Rc<Self> {
        Rc::new(Self {
            stats: Arc::clone(stats),
            since,
            out_until: Cell::new(None),
            routed: Cell::new(true),
            pool: Pool::default(),
        })
    }

    fn candidate(&self) -> Candidate {
        Candidate { key: self.stats.key(), since: self.since, out_until: self.out_until.get() }
    }

    fn retire(&self) {
        self.routed.set(false);
        self.pool.clear();
    }

    /// Leaves the target out for a while. Returns until when, unless it was left out already.
    pub(crate) fn leave_out(&self, now: Instant) -> Option<Instant> {
        if self.out_until.get().is_some_and(|until| now < until) {
            return None;
        }
        let until = now + LEAVE_OUT;
        self.out_until.set(Some(until));
        self.pool.clear();
        Some(until)
    }

    /// What bars a request from coming back after it has died here.
    pub(crate) fn lost(&self, now: Instant) -> Lost {
        Lost { key: self.stats.key(), since: self.since, until: now + LEAVE_OUT }
    }

    pub(crate) fn take_idle(&self, now: Instant) -> Option<Upstream> {
        self.pool.take(now)
    }

    /// Keeps a connection for the next request, if there will be one.
    pub(crate) fn put_idle(&self, upstream: Upstream, until: Instant) {
        if self.routed.get() {
            self.pool.put(upstream, until);
        }
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
