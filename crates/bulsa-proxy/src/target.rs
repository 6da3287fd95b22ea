//! What is counted of a target, by all workers and across tables, and how it stands.
//!
//! Owns: the counters of one target, its health, and the guards that keep "in flight" and "tunnels" true.
//! Never: decides anything, or takes a lock on the path of a request that is answered.
//!
//! Each worker writes only its own padded slot. A request is counted in flight from the moment its target is
//! chosen until its answer is wholly handed over or dropped; the guard does both ends, so no way out of the code
//! in between can forget it. The count goes up in the same step as the choice, without a pause in between, and
//! the worker acknowledges a table later in the same thread: whoever has seen the acknowledgement sees the count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::health::{Health, Standing, Traffic};
use crate::report::{Signal, TargetReport};

/// How long requests may wait on a target, none getting its first byte, before that is worth a look: with the time of a
/// probe, a hang is found out within two seconds.
pub(crate) const STALL_TIME: Duration = Duration::from_millis(500);

/// How long requests may wait on a target, none of any worker getting its first byte, before further ones go to others
/// that do answer, if there are such.
pub(crate) const SILENT_TIME: Duration = Duration::from_millis(300);

/// The counters of one target.
#[derive(Debug)]
pub(crate) struct TargetStats {
    id: String,
    addr: SocketAddr,
    /// Unique within the process, so that workers compare numbers and not strings.
    key: u64,
    /// What the times in the slots count from.
    epoch: Instant,
    health: Health,
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
    timed_out: AtomicU64,
    /// Requests that were sent and have got no byte of an answer.
    waiting: AtomicU64,
    /// Since when requests have been waiting without one of them being answered, or were when none does, in milliseconds.
    waiting_since: AtomicU64,
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
    /// It gave no answer in the time that it has.
    TimedOut,
}

impl TargetStats {
    pub(crate) fn new(id: String, addr: SocketAddr, key: u64, workers: usize, signal: Arc<Signal>) -> Self {
        let slots = (0..workers).map(|_| Slot::default()).collect();
        let (epoch, health) = (Instant::now(), Health::new());
        Self { id, addr, key, epoch, health, unrouted: AtomicBool::new(false), slots, signal }
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

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Requests in flight, on all workers.
    pub(crate) fn in_flight(&self) -> u64 {
        self.slots.iter().map(|slot| slot.in_flight.load(Ordering::Relaxed)).sum()
    }

    /// Requests in flight and tunnels, on all workers.
    pub(crate) fn load(&self) -> u64 {
        let tunnels = self.slots.iter().map(|slot| slot.tunnels.load(Ordering::Relaxed)).sum::<u64>();
        self.in_flight() + tunnels
    }

    /// What it has had so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let sum = |field: fn(&Slot) -> &AtomicU64| {
            self.slots.iter().map(|slot| field(slot).load(Ordering::Relaxed)).sum::<u64>()
        };
        Traffic { requests: sum(|s| &s.requests), failures: sum(|s| &s.broken) + sum(|s| &s.timed_out) }
    }

    /// Whether requests wait there and none has been answered for [`STALL_TIME`].
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.slots.iter().any(|slot| 0 < slot.waiting.load(Ordering::Relaxed))
            && self.is_quiet(now, STALL_TIME)
    }

    /// Whether requests of this worker wait there and none of any worker has been answered for [`SILENT_TIME`]. It may be
    /// slow. Where nothing of the worker's own waits the others' counters are not looked at.
    pub(crate) fn is_silent(&self, worker: usize, now: Instant) -> bool {
        0 < self.slots[worker].waiting.load(Ordering::Relaxed) && self.is_quiet(now, SILENT_TIME)
    }

    /// Whether for so long no answer came, and no worker has sent it the first request that waits there.
    fn is_quiet(&self, now: Instant, time: Duration) -> bool {
        let (now, time) = (self.ms(now), time.as_millis() as u64);
        self.slots.iter().all(|slot| slot.waiting_since.load(Ordering::Relaxed) + time <= now)
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
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
            Outcome::TimedOut => {
                add(&slot.requests);
                add(&slot.timed_out);
                self.signal.raise();
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
            timed_out: sum(|s| &s.timed_out),
            stalled: self.is_stalled(Instant::now()),
            left_out: self.health.standing(Instant::now()) != Standing::Fine,
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

/// Holds one request that was sent and waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting<'f>(&'f InFlight);

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

    /// Counts the request as waiting for its answer from now on, until the guard is dropped.
    pub(crate) fn wait(&self, now: Instant) -> Waiting<'_> {
        let slot = &self.stats.slots[self.worker];
        if slot.waiting.load(Ordering::Relaxed) == 0 {
            slot.waiting_since.store(self.stats.ms(now), Ordering::Relaxed);
        }
        add(&slot.waiting);
        Waiting(self)
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

impl Waiting<'_> {
    /// The answer came: whoever else waits there is not forgotten.
    pub(crate) fn answered(self, now: Instant) {
        let InFlight { stats, worker } = self.0;
        stats.slots[*worker].waiting_since.store(stats.ms(now), Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.stats.slots[self.0.worker].waiting.fetch_sub(1, Ordering::Relaxed);
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

    #[tokio::test(start_paused = true)]
    async fn a_target_is_stalled_when_requests_wait_and_none_is_answered() {
        let stats = stats();
        let (one, other) = (InFlight::begin(&stats, 0), InFlight::begin(&stats, 1));
        let now = Instant::now();
        let (slow, quick) = (one.wait(now), other.wait(now));
        assert!(!stats.is_stalled(now + STALL_TIME / 2));
        assert!(stats.is_stalled(now + STALL_TIME));
        quick.answered(now + STALL_TIME);
        assert!(!stats.is_stalled(now + STALL_TIME), "the other worker is answered");
        let again = other.wait(now + STALL_TIME);
        drop(again);
        assert!(stats.is_stalled(now + STALL_TIME * 2));
        drop(slow);
        assert!(!stats.is_stalled(now + STALL_TIME * 3), "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_silent_to_who_waits_there_until_anybody_is_answered() {
        let stats = stats();
        let (one, other) = (InFlight::begin(&stats, 0), InFlight::begin(&stats, 1));
        let now = Instant::now() + STALL_TIME;
        let slow = one.wait(now);
        assert!(!stats.is_silent(0, now + SILENT_TIME / 2));
        assert!(stats.is_silent(0, now + SILENT_TIME));
        assert!(!stats.is_silent(1, now + SILENT_TIME), "it has nothing there");
        let quick = other.wait(now);
        assert!(stats.is_silent(1, now + SILENT_TIME));
        quick.answered(now + SILENT_TIME);
        assert!(!stats.is_silent(0, now + SILENT_TIME), "the other worker is answered");
        assert!(stats.is_silent(0, now + SILENT_TIME * 2));
        drop(slow);
        assert!(!stats.is_silent(0, now + SILENT_TIME * 2), "nobody waits");
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
