//! A table compiled for the workers, and the registry that gives targets their identity across tables.
//!
//! Owns: [`Plan`], what all workers share read-only of one table; [`Registry`], which outlives tables.
//! Never: used on the path of a request except to read a plan.
//!
//! A target is the same one in two tables if its id and address are equal; then its counters go on. A target that a
//! table leaves out stays in the registry, and in reports, until a report has shown it without work.
//!
//! A service that a table does not change is the same object in two plans: a worker then keeps all that it knows of it,
//! so that the cost of a switch is that of what has changed.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::balance::Cookie;
use crate::health;
use crate::report::{HeldReport, Signal, TargetReport};
use crate::route::Routes;
use crate::table::{
    Balance, CloseTunnels, ListenerRoutes, Policy, ProxyHeader, Secret, Service, Table, Target,
};
use crate::target::TargetStats;
use crate::tunnel::Bounds;

/// Targets without work that a registry keeps only to report them once more, at most.
const RETIRED_MAX: usize = 4096;

/// One table, compiled.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) routes: Arc<Routes>,
    pub(crate) services: Vec<Arc<PlanService>>,
    /// The services' places by their names.
    pub(crate) by_name: Arc<HashMap<String, usize>>,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) close_tunnels: Vec<CloseTunnels>,
    /// The ids of targets on which nobody is to wait any longer.
    pub(crate) abandon: HashSet<String>,
    /// Connections of one client address, at most; 0 is no limit.
    pub(crate) connections_per_address: u32,
    /// The balancers of each listener that say in a PROXY header who their clients are. Only listeners that have some.
    proxy_from: HashMap<String, Vec<IpNet>>,
}

/// One service of a table.
#[derive(Debug)]
pub(crate) struct PlanService {
    pub(crate) name: String,
    pub(crate) targets: Vec<PlanTarget>,
    pub(crate) hold_time: Duration,
    pub(crate) hold_requests: u32,
    /// Requests are held although targets may be ready.
    pub(crate) hold_on: bool,
    /// What those get who waited in vain.
    pub(crate) page: Option<Bytes>,
    /// Places taken in the hold on all workers.
    pub(crate) places: Arc<AtomicU32>,
    pub(crate) balance: Balance,
    pub(crate) rules: health::Rules,
    /// How long a fresh target's share grows.
    pub(crate) slow_start: Duration,
    /// Whether all targets are alike, so that the next one in turn is the right one if it is fine.
    pub(crate) is_plain: bool,
    /// How long an answer's first byte may take.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) health_path: Option<String>,
    pub(crate) cookie: Option<Cookie>,
    /// Limits on the time of its tunnels.
    pub(crate) tunnels: Bounds,
    /// The PROXY header that targets get before a TCP connection.
    pub(crate) send_proxy: Option<ProxyHeader>,
    /// Each of its requests gets a line in the access log.
    pub(crate) access_log: bool,
    /// What it was made from, to see whether the next table changes it.
    source: (Service, Option<Secret>),
}

/// One target of a service.
#[derive(Debug)]
pub(crate) struct PlanTarget {
    pub(crate) stats: Arc<TargetStats>,
    /// The number of the table since which it has been routed without a break.
    pub(crate) since: u64,
    pub(crate) weight: u32,
    pub(crate) is_backup: bool,
    /// What hashes tell it apart by: the same for every process.
    pub(crate) hash: u64,
}

impl Plan {
    /// Whether a client's word about itself is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|block| block.contains(&peer))
    }

    /// Whether a connection from there begins with a PROXY header.
    pub(crate) fn expects_header(&self, listener: &str, from: IpAddr) -> bool {
        let blocks = self.proxy_from.get(listener).map(Vec::as_slice).unwrap_or_default();
        blocks.iter().any(|block| block.contains(&from))
    }

    /// Whether a request's way from listener to service name may differ between two plans.
    pub(crate) fn routes_differ(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.routes, &other.routes) || !Arc::ptr_eq(&self.by_name, &other.by_name)
    }
}

impl PlanService {
    /// The time out, if 0 means none.
    fn time(ms: u64) -> Option<Duration> {
        (0 < ms).then(|| Duration::from_millis(ms))
    }
}

/// The targets and services that are known, across tables.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    signal: Arc<Signal>,
    next_key: u64,
    targets: HashMap<(String, SocketAddr), Entry>,
    places: HashMap<String, Arc<AtomicU32>>,
    /// The services of the newest table.
    services: HashMap<String, Arc<PlanService>>,
    by_name: Arc<HashMap<String, usize>>,
    /// The routes of the newest table, as they were written and compiled.
    listeners: Vec<ListenerRoutes>,
    routes: Arc<Routes>,
}

#[derive(Debug)]
struct Entry {
    stats: Arc<TargetStats>,
    release: String,
    since: u64,
    routed: bool,
    /// The number of the table that left it out.
    gone_at: u64,
    /// A report has shown it without work after all workers had left it out.
    reported: bool,
}

impl Entry {
    /// Whether nothing can begin on it any more. `table` is the number that all workers have acknowledged, read
    /// before: until then one of them may still choose the target from an older table.
    fn is_finished(&self, table: u64) -> bool {
        !self.routed && self.gone_at <= table && self.stats.is_idle()
    }
}

impl Registry {
    pub(crate) fn new(workers: usize, signal: Arc<Signal>) -> Self {
        Self {
            workers,
            signal,
            next_key: 0,
            targets: HashMap::new(),
            places: HashMap::new(),
            services: HashMap::new(),
            by_name: Arc::default(),
            listeners: Vec::new(),
            routes: Arc::default(),
        }
    }

    /// Compiles a table that was checked. `acknowledged` is the number of the table that all workers run on.
    pub(crate) fn compile(&mut self, table: &Table, acknowledged: u64) -> Plan {
        self.retire(table, acknowledged);
        let services: Vec<_> = table.services.iter().map(|service| self.service(service, table)).collect();
        self.services = services.iter().map(|one| (one.name.clone(), Arc::clone(one))).collect();
        // What is the same as before is the same object: the workers see at a glance that it is.
        let is_known = |(index, one): (usize, &Arc<PlanService>)| self.by_name.get(&one.name) == Some(&index);
        if self.by_name.len() != services.len() || !services.iter().enumerate().all(is_known) {
            let by_name = services.iter().enumerate().map(|(index, one)| (one.name.clone(), index));
            self.by_name = Arc::new(by_name.collect());
        }
        if self.listeners != table.listeners {
            (self.listeners, self.routes) = (table.listeners.clone(), Arc::new(Routes::compile(table)));
        }
        Plan {
            number: table.number,
            routes: Arc::clone(&self.routes),
            by_name: Arc::clone(&self.by_name),
            services,
            trusted: table.trusted.clone(),
            close_tunnels: table.close_tunnels.clone(),
            abandon: table.abandon.iter().cloned().collect(),
            connections_per_address: table.limits.connections_per_address,
            proxy_from: proxy_from(table),
        }
    }

    fn retire(&mut self, table: &Table, acknowledged: u64) {
        let routed: HashSet<(&str, SocketAddr)> =
            table.services.iter().flat_map(|s| &s.targets).map(|t| (t.id.as_str(), t.addr)).collect();
        for ((id, addr), entry) in &mut self.targets {
            if entry.routed && !routed.contains(&(id.as_str(), *addr)) {
                (entry.routed, entry.gone_at) = (false, table.number);
                entry.stats.set_unrouted(true);
            }
        }
        let crowded = RETIRED_MAX < self.targets.values().filter(|entry| !entry.routed).count();
        self.targets.retain(|_, entry| !(entry.is_finished(acknowledged) && (entry.reported || crowded)));
        let services: HashSet<&str> = table.services.iter().map(|s| s.name.as_str()).collect();
        self.places
            .retain(|name, count| services.contains(name.as_str()) || 0 < count.load(Ordering::Relaxed));
    }

    fn service(&mut self, service: &Service, table: &Table) -> Arc<PlanService> {
        // The newest table had it with the same targets, and this one has it: they have been routed without a break.
        if let Some(known) = self.services.get(&service.name)
            && known.source.0 == *service
            && known.source.1 == table.secret
        {
            return Arc::clone(known);
        }
        let targets = service.targets.iter().map(|target| self.target(target, table.number)).collect();
        Arc::new(self.new_service(service, targets, table.secret.as_ref()))
    }

    fn new_service(
        &mut self,
        service: &Service,
        targets: Vec<PlanTarget>,
        secret: Option<&Secret>,
    ) -> PlanService {
        let balance = service.balance;
        let ids = service.targets.iter().map(|target| target.id.as_str());
        let is_sticky = balance.policy == Policy::Sticky;
        let cookie = secret.filter(|_| is_sticky).map(|secret| Cookie::new(&secret.0, &service.name, ids));
        let has_caps = 0 < balance.max_connections || 0 < balance.max_in_flight;
        let is_alike = |target: &Target| target.weight == 1 && !target.backup;
        PlanService {
            name: service.name.clone(),
            hold_time: Duration::from_millis(service.hold.time_ms),
            hold_requests: service.hold.requests,
            hold_on: service.hold.on,
            page: service.hold.page.clone().map(Bytes::from),
            places: Arc::clone(self.places.entry(service.name.clone()).or_default()),
            balance,
            rules: health::Rules {
                max_fails: balance.max_fails,
                fail_timeout: Duration::from_millis(balance.fail_timeout_ms),
            },
            slow_start: Duration::from_millis(balance.slow_start_ms),
            is_plain: !has_caps && balance.slow_start_ms == 0 && service.targets.iter().all(is_alike),
            first_byte: PlanService::time(service.times.first_byte_ms),
            health_path: service.health_path.clone(),
            cookie,
            tunnels: Bounds::of(&service.times),
            send_proxy: service.send_proxy,
            access_log: service.access_log,
            targets,
            source: (service.clone(), secret.cloned()),
        }
    }

    fn target(&mut self, target: &Target, number: u64) -> PlanTarget {
        let Self { workers, signal, next_key, targets, .. } = self;
        let entry = targets.entry((target.id.clone(), target.addr)).or_insert_with(|| {
            *next_key += 1;
            let stats =
                TargetStats::new(target.id.clone(), target.addr, *next_key, *workers, Arc::clone(signal));
            Entry {
                stats: Arc::new(stats),
                release: String::new(),
                since: number,
                routed: true,
                gone_at: 0,
                reported: false,
            }
        });
        if !entry.routed {
            (entry.since, entry.routed, entry.reported) = (number, true, false);
            entry.stats.set_unrouted(false);
            // Whoever routes it again knows better than what was met there before.
            entry.stats.health().reset();
        }
        entry.release.clone_from(&target.release);
        PlanTarget {
            stats: Arc::clone(&entry.stats),
            since: entry.since,
            weight: target.weight.max(1),
            is_backup: target.backup,
            hash: stable_hash(&target.id),
        }
    }

    /// Reports all targets, sorted by id and address. `acknowledged` must have been read before.
    pub(crate) fn report_targets(&mut self, acknowledged: u64) -> Vec<TargetReport> {
        let report = |entry: &mut Entry| {
            // In this order: what is finished now shows no work in what is read next.
            entry.reported |= entry.is_finished(acknowledged);
            entry.stats.report(entry.release.clone(), entry.routed)
        };
        let mut targets: Vec<_> = self.targets.values_mut().map(report).collect();
        targets.sort_by(|a, b| (&a.id, a.addr).cmp(&(&b.id, b.addr)));
        targets
    }

    /// Reports the services that hold requests, sorted by name.
    pub(crate) fn report_held(&self) -> Vec<HeldReport> {
        let waiting = self.places.iter().map(|(name, count)| (name, count.load(Ordering::Relaxed)));
        let mut held: Vec<_> = waiting
            .filter(|(_, count)| 0 < *count)
            .map(|(name, count)| HeldReport { service: name.clone(), requests: u64::from(count) })
            .collect();
        held.sort_by(|a, b| a.service.cmp(&b.service));
        held
    }
}

fn proxy_from(table: &Table) -> HashMap<String, Vec<IpNet>> {
    let listeners = table.listeners.iter().filter(|listener| !listener.proxy_from.is_empty());
    listeners.map(|listener| (listener.name.clone(), listener.proxy_from.clone())).collect()
}

/// A hash of a name that is the same in every process (64-bit FNV-1a).
fn stable_hash(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::InFlight;

    fn table(number: u64, targets: &[(&str, u16)]) -> Table {
        let target = |(id, port): &(&str, u16)| Target::new(id, ([127, 0, 0, 1], *port).into());
        let services = vec![Service::new("web", targets.iter().map(target).collect())];
        Table { services, ..Table::empty(number) }
    }

    fn registry() -> Registry {
        Registry::new(1, Arc::default())
    }

    fn ids(registry: &mut Registry) -> Vec<(String, bool)> {
        registry.report_targets(u64::MAX).into_iter().map(|t| (t.id, t.routed)).collect()
    }

    #[test]
    fn a_target_keeps_its_counters_across_tables() {
        let mut registry = registry();
        let first = registry.compile(&table(1, &[("a", 1)]), u64::MAX);
        let second = registry.compile(&table(2, &[("a", 1), ("b", 2)]), u64::MAX);
        let (old, new) = (&first.services[0].targets[0], &second.services[0].targets[0]);
        assert!(Arc::ptr_eq(&old.stats, &new.stats));
        assert_eq!((new.since, second.services[0].targets[1].since), (1, 2));
    }

    #[test]
    fn another_address_is_another_target() {
        let mut registry = registry();
        let first = registry.compile(&table(1, &[("a", 1)]), u64::MAX);
        let second = registry.compile(&table(2, &[("a", 2)]), u64::MAX);
        assert!(!Arc::ptr_eq(&first.services[0].targets[0].stats, &second.services[0].targets[0].stats));
    }

    #[test]
    fn a_target_that_comes_back_is_routed_anew() {
        let mut registry = registry();
        registry.compile(&table(1, &[("a", 1)]), u64::MAX);
        registry.compile(&table(2, &[]), u64::MAX);
        assert_eq!(registry.compile(&table(3, &[("a", 1)]), u64::MAX).services[0].targets[0].since, 3);
    }

    #[test]
    fn an_unrouted_target_is_reported_until_it_was_seen_without_work() {
        let mut registry = registry();
        let plan = registry.compile(&table(1, &[("a", 1)]), u64::MAX);
        let in_flight = InFlight::begin(&plan.services[0].targets[0].stats, 0);
        registry.compile(&table(2, &[]), u64::MAX);
        assert_eq!(ids(&mut registry), [("a".into(), false)]);
        registry.compile(&table(3, &[]), u64::MAX);
        assert_eq!(ids(&mut registry), [("a".into(), false)], "still busy");
        drop(in_flight);
        registry.compile(&table(4, &[]), u64::MAX);
        assert_eq!(ids(&mut registry), [("a".into(), false)], "not yet shown idle");
        registry.compile(&table(5, &[]), u64::MAX);
        assert_eq!(ids(&mut registry), []);
    }

    #[test]
    fn a_target_that_a_worker_may_still_choose_stays() {
        let mut registry = registry();
        registry.compile(&table(1, &[("a", 1)]), 0);
        registry.compile(&table(2, &[]), 1);
        assert_eq!(registry.report_targets(1).len(), 1);
        registry.compile(&table(3, &[]), 1);
        assert_eq!(registry.report_targets(1).len(), 1, "no worker has acknowledged table 2 yet");
        assert_eq!(registry.report_targets(3).len(), 1, "shown once after all have");
        registry.compile(&table(4, &[]), 3);
        assert_eq!(registry.report_targets(3).len(), 0);
    }

    #[test]
    fn a_service_that_is_not_changed_is_the_same_object() {
        let mut registry = registry();
        let first = registry.compile(&table(1, &[("a", 1)]), u64::MAX);
        let second = registry.compile(&table(2, &[("a", 1)]), u64::MAX);
        assert!(Arc::ptr_eq(&first.services[0], &second.services[0]));
        let third = registry.compile(&table(3, &[("a", 1), ("b", 2)]), u64::MAX);
        assert!(!Arc::ptr_eq(&second.services[0], &third.services[0]));
        registry.compile(&table(4, &[]), u64::MAX);
        let again = registry.compile(&table(5, &[("a", 1), ("b", 2)]), u64::MAX);
        assert!(!Arc::ptr_eq(&third.services[0], &again.services[0]), "its targets are routed anew");
    }

    #[test]
    fn only_changed_routes_differ() {
        let mut registry = registry();
        let (one, two) =
            (registry.compile(&table(1, &[("a", 1)]), u64::MAX), registry.compile(&table(2, &[]), u64::MAX));
        assert!(!one.routes_differ(&two));
        let mut renamed = table(3, &[]);
        renamed.services[0].name = "api".into();
        assert!(registry.compile(&renamed, u64::MAX).routes_differ(&two));
    }
}
