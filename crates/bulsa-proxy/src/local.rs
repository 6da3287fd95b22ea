//! One worker's own view of the current table.
//!
//! Owns: turns, pools, queues, and how fast targets answer here.
//! Never: leaves its thread.
//!
//! A view is built anew for each table and takes over what the old one knew: services that have not changed as they are,
//! pools of targets that stay, queues of services by their name. Only the targets of services that have changed are
//! looked at. Targets that the new table leaves out close their idle connections at once; those in use are closed when
//! their answer has ended.

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
    targets: Targets,
    /// Targets of earlier tables on which somebody may still wait.
    former: Vec<Weak<LocalTarget>>,
}

/// The targets of a table, by their keys. They are those of the newest view: it takes them from the one before it, which
/// nobody chooses from any more.
#[derive(Debug, Default)]
struct Targets(RefCell<HashMap<u64, Held>>);

/// A target, and how many services have it.
#[derive(Debug)]
struct Held {
    target: Rc<LocalTarget>,
    services: usize,
}

impl LocalTable {
    /// A view of nothing.
    pub(crate) fn empty(plan: Arc<Plan>) -> Self {
        Self { plan, services: Vec::new(), targets: Targets::default(), former: Vec::new() }
    }

    /// Builds the view of a newer table and retires what it leaves out. `worker` spreads the first turns.
    pub(crate) fn next(&self, plan: Arc<Plan>, worker: usize) -> Self {
        let mut targets = self.targets.0.take();
        let mut former: Vec<_> = self.former.iter().filter(|one| one.strong_count() > 0).cloned().collect();
        let retired = Self::change_targets(&mut targets, &self.plan, &plan);
        for target in retired {
            target.retire();
            former.push(Rc::downgrade(&target));
        }
        let services = plan
            .services
            .iter()
            .enumerate()
            .map(|(index, one)| self.next_service(index, one, &targets, worker));
        Self { services: services.collect(), plan, targets: Targets(RefCell::new(targets)), former }
    }

    /// Makes one plan's targets those of the next; returns those that it leaves out, or has anew.
    fn change_targets(targets: &mut HashMap<u64, Held>, old: &Plan, new: &Plan) -> Vec<Rc<LocalTarget>> {
        let changed = |from: &Plan, to: &Plan, index: usize| {
            let service = &from.services[index];
            to.services.get(index).is_none_or(|other| !Arc::ptr_eq(service, other))
                && to.by_name.get(&service.name).is_none_or(|at| !Arc::ptr_eq(service, &to.services[*at]))
        };
        let mut left = Vec::new();
        for index in (0..old.services.len()).filter(|index| changed(old, new, *index)) {
            for target in &old.services[index].targets {
                let key = target.stats.key();
                if let Some(held) = targets.get_mut(&key) {
                    held.services -= 1;
                    left.push(key);
                }
            }
        }
        let mut retired = Vec::new();
        for index in (0..new.services.len()).filter(|index| changed(new, old, *index)) {
            for target in &new.services[index].targets {
                let fresh = || Held { target: LocalTarget::new(&target.stats, target.since), services: 0 };
                let held = targets.entry(target.stats.key()).or_insert_with(fresh);
                if held.target.since != target.since {
                    retired.push(std::mem::replace(held, fresh()).target);
                }
                held.services += 1;
            }
        }
        for key in left {
            if targets.get(&key).is_some_and(|held| held.services == 0) {
                retired.extend(targets.remove(&key).map(|held| held.target));
            }
        }
        retired
    }

    fn next_service(
        &self,
        index: usize,
        service: &Arc<PlanService>,
        targets: &HashMap<u64, Held>,
        worker: usize,
    ) -> Rc<LocalService> {
        // Most often it is where it was.
        if let Some(known) = self.services.get(index).filter(|known| Arc::ptr_eq(&known.plan, service)) {
            return Rc::clone(known);
        }
        let known = self.plan.by_name.get(&service.name).and_then(|index| self.services.get(*index));
        match known {
            Some(known) if Arc::ptr_eq(&known.plan, service) => Rc::clone(known),
            known => {
                let target = |key| targets.get(&key).map(|held| Rc::clone(&held.target));
                LocalService::new(service, target, known.map(Rc::as_ref), worker)
            }
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
        for Held { target, .. } in self.targets.0.borrow().values().filter(|held| given_up(&held.target)) {
            target.abandon();
        }
        for target in self.former.iter().filter_map(Weak::upgrade).filter(|target| given_up(target)) {
            target.abandon();
        }
    }

    /// Closes idle connections that are too old, and says whether a target is stalled.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut stalled = false;
        for Held { target, .. } in self.targets.0.borrow().values() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Registry;
    use crate::table::{Service, Table, Target};

    /// A table whose services, `a` and `b`, have these targets.
    fn table(number: u64, targets: [&[&str]; 2]) -> Table {
        let target = |id: &&str| Target::new(id, ([127, 0, 0, 1], 1).into());
        let service = |(name, ids): (&str, &[&str])| Service::new(name, ids.iter().map(target).collect());
        Table { services: ["a", "b"].into_iter().zip(targets).map(service).collect(), ..Table::empty(number) }
    }

    fn held(view: &LocalTable, id: &str) -> Option<Rc<LocalTarget>> {
        let targets = view.targets.0.borrow();
        let mut held = targets.values().filter(|held| held.target.stats.id() == id);
        held.next().map(|held| Rc::clone(&held.target))
    }

    #[test]
    fn a_target_stays_the_same_as_long_as_one_service_has_it() {
        let mut registry = Registry::new(1, Arc::default());
        let mut view = LocalTable::empty(Arc::default());
        let mut step = |number: u64, targets: [&[&str]; 2]| {
            view = view.next(Arc::new(registry.compile(&table(number, targets), u64::MAX)), 0);
            (held(&view, "x"), view.services.clone())
        };
        let (first, services) = step(1, [&["x"], &["x", "y"]]);
        let (second, changed) = step(2, [&[], &["x", "y"]]);
        assert!(Rc::ptr_eq(first.as_ref().unwrap(), second.as_ref().unwrap()));
        assert!(Rc::ptr_eq(&services[1], &changed[1]) && !Rc::ptr_eq(&services[0], &changed[0]));
        assert!(
            Rc::ptr_eq(first.as_ref().unwrap(), step(3, [&["x"], &["y"]]).0.as_ref().unwrap()),
            "it moves"
        );
        assert!(step(4, [&[], &["y"]]).0.is_none());
        let back = step(5, [&["x"], &["y"]]).0.unwrap();
        assert!(!Rc::ptr_eq(first.as_ref().unwrap(), &back), "it is routed anew");
    }

    #[test]
    fn a_target_that_was_away_in_a_table_that_this_worker_passed_over_is_new() {
        let mut registry = Registry::new(1, Arc::default());
        let plan = Arc::new(registry.compile(&table(1, [&["x"], &["x"]]), u64::MAX));
        let view = LocalTable::empty(Arc::default()).next(plan, 0);
        let first = held(&view, "x").unwrap();
        registry.compile(&table(2, [&[], &[]]), u64::MAX);
        let plan = Arc::new(registry.compile(&table(3, [&["x"], &["x"]]), u64::MAX));
        let view = view.next(plan, 0);
        assert!(!Rc::ptr_eq(&first, &held(&view, "x").unwrap()));
        assert_eq!(view.former.iter().filter(|one| one.strong_count() > 0).count(), 1);
    }
}
