//! What is counted of a target, by all workers and across tables.
//!
//! Owns: the counters of one target, and the guards that keep "in flight" and "tunnels" true.
//! Never: decides anything, or takes a lock on the path of a request.
//!
//! Each worker writes only its own padded slot. A request is counted in flight from the moment its target is
//! chosen until its answer is wholly handed over or dropped; the guard does both ends, so no way out of the code
//! in between can forget it. The count goes up in the same step as the choice, without a pause in between, and
//! the worker acknowledges a table later in the same thread: whoever has seen the acknowledgement sees the count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::report::{Signal, TargetReport};

/// The counters of one target.
#[derive(Debug)]
pub(crate) struct TargetStats {
    id: String,
    addr: SocketAddr,
    /// Unique within the process, so that workers compare numbers and not strings.
    key: u64,
    /// Whether the newest table leaves the target out.
    unrouted: AtomicBool,
    slots: Box<[Slot]>,
    signal: Arc<Signal>,
}

/// One worker's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    in_flight: AtomicU64,
    tunnels: AtomicU64,
    requests: AtomicU64,
    answers_5xx: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
}

/// How an exchange with a target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered with this status.
    Answered(u16),
    /// The connection died, or what came back was no HTTP, before there was an answer.
    Lost,
    /// It broke off in the middle of an answer, or reset a connection, that was already counted.
    BrokenOff,
    /// It took a connection that is passed through whole.
    Opened,
    /// It did not take the connection.
    Refused,
}

impl TargetStats {
    pub(crate) fn new(id: String, addr: SocketAddr, key: u64, workers: usize, signal: Arc<Signal>) -> Self {
        let slots = (0..workers).map(|_| Slot::default()).collect();
        Self { id, addr, key, unrouted: AtomicBool::new(false), slots, signal }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// Says whether the newest table routes to the target. From then on its last request's end is signalled.
    pub(crate) fn set_unrouted(&self, unrouted: bool) {
        self.unrouted.store(unrouted, Ordering::SeqCst);
    }

    /// Counts how an exchange of `worker` ended.
    pub(crate) fn count(&self, worker: usize, outcome: Outcome) {
        let slot = &self.slots[worker];
        match outcome {
            Outcome::Answered(status) => {
                add(&slot.requests);
                if 500 <= status {
                    add(&slot.answers_5xx);
                }
            }
            Outcome::Lost => {
                add(&slot.requests);
                add(&slot.broken);
            }
            Outcome::Opened => add(&slot.requests),
            Outcome::BrokenOff => add(&slot.broken),
            Outcome::Refused => {
                add(&slot.refused);
                self.signal.raise();
            }
        }
    }

    /// Whether no worker has a request or a tunnel on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.iter().all(Slot::is_idle)
    }

    /// The sums over all workers.
    pub(crate) fn report(&self, release: String, routed: bool) -> TargetReport {
        let sum = |field: fn(&Slot) -> &AtomicU64| {
            self.slots.iter().map(|slot| field(slot).load(Ordering::Acquire)).sum()
        };
        TargetReport {
            id: self.id.clone(),
            addr: self.addr,
            release,
            routed,
            in_flight: sum(|s| &s.in_flight),
            tunnels: sum(|s| &s.tunnels),
            requests: sum(|s| &s.requests),
            answers_5xx: sum(|s| &s.answers_5xx),
            broken: sum(|s| &s.broken),
            refused: sum(|s| &s.refused),
        }
    }

    fn work_ended(&self, worker: usize) {
        // With SeqCst here and in `set_unrouted` either this sees the flag, or the table that set it is
        // acknowledged by this worker after the end, and the acknowledgement is signalled too.
        if self.unrouted.load(Ordering::SeqCst) && self.slots[worker].is_idle() {
            self.signal.raise();
        }
    }
}

impl Slot {
    fn is_idle(&self) -> bool {
        // Tunnels are read last: a request that becomes a tunnel is counted there before it leaves here.
        self.in_flight.load(Ordering::SeqCst) == 0 && self.tunnels.load(Ordering::SeqCst) == 0
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Holds one request in flight on its target.
#[derive(Debug)]
pub(crate) struct InFlight {
    stats: Arc<TargetStats>,
    worker: usize,
}

/// Holds one tunnel on its target.
#[derive(Debug)]
pub(crate) struct InTunnel {
    stats: Arc<TargetStats>,
    worker: usize,
}

impl InFlight {
    /// Counts a request in flight until the guard is dropped.
    pub(crate) fn begin(stats: &Arc<TargetStats>, worker: usize) -> Self {
        stats.slots[worker].in_flight.fetch_add(1, Ordering::SeqCst);
        Self { stats: Arc::clone(stats), worker }
    }

    /// Counts how the exchange ended.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.stats.count(self.worker, outcome);
    }

    /// Counts the request as a tunnel from now on. At no moment is it counted as neither.
    pub(crate) fn into_tunnel(self) -> InTunnel {
        self.stats.slots[self.worker].tunnels.fetch_add(1, Ordering::SeqCst);
        InTunnel { stats: Arc::clone(&self.stats), worker: self.worker }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.slots[self.worker].in_flight.fetch_sub(1, Ordering::SeqCst);
        self.stats.work_ended(self.worker);
    }
}

impl InTunnel {
    pub(crate) fn stats(&self) -> &Arc<TargetStats> {
        &self.stats
    }

    /// Counts how it ended.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.stats.count(self.worker, outcome);
    }
}

impl Drop for InTunnel {
    fn drop(&mut self) {
        self.stats.slots[self.worker].tunnels.fetch_sub(1, Ordering::SeqCst);
        self.stats.work_ended(self.worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Arc<TargetStats> {
        let addr = "127.0.0.1:1".parse().unwrap();
        Arc::new(TargetStats::new("a".into(), addr, 1, 2, Arc::new(Signal::default())))
    }

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let stats = stats();
        let guards = [InFlight::begin(&stats, 0), InFlight::begin(&stats, 1)];
        assert_eq!(stats.report(String::new(), true).in_flight, 2);
        drop(guards);
        assert_eq!(stats.report(String::new(), true).in_flight, 0);
        assert!(stats.is_idle());
    }

    #[test]
    fn a_tunnel_is_no_longer_in_flight_and_keeps_the_target_busy() {
        let stats = stats();
        let tunnel = InFlight::begin(&stats, 1).into_tunnel();
        let report = stats.report(String::new(), true);
        assert_eq!((report.in_flight, report.tunnels), (0, 1));
        assert!(!stats.is_idle());
        drop(tunnel);
        assert!(stats.is_idle());
    }

    #[tokio::test]
    async fn the_last_end_on_an_unrouted_target_is_signalled() {
        let stats = stats();
        let (one, other) = (InFlight::begin(&stats, 0), InFlight::begin(&stats, 0));
        stats.set_unrouted(true);
        drop(one);
        assert!(!stats.signal.is_raised());
        drop(other);
        stats.signal.wait().await;
    }

    #[test]
    fn outcomes_are_counted_apart() {
        let stats = stats();
        for outcome in [Outcome::Answered(200), Outcome::Answered(503), Outcome::Lost, Outcome::BrokenOff] {
            stats.count(0, outcome);
        }
        stats.count(1, Outcome::Opened);
        stats.count(1, Outcome::Refused);
        let report = stats.report(String::new(), true);
        let counted = (report.requests, report.answers_5xx, report.broken, report.refused);
        assert_eq!(counted, (4, 1, 2, 1));
    }
}
