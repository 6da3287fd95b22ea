//! What the proxy tells whoever embeds it.
//!
//! Owns: the report's types, each worker's own counters, and the signal that something worth a look has happened.
//! Never: blocks a worker. The signal is coalesced: it says "look again", the report says what is.
//!
//! The order of reading matters. A report reads the acknowledgements first and the counters of targets after it,
//! so that a target that it shows idle under table N got nothing after N was acknowledged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A snapshot of the proxy. Counters only grow while this process lives; `in_flight`, `tunnels`, `held` and
/// `connections` are the numbers of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The number of the newest table that *every* worker runs on, its holds and retries included.
    pub table: u64,
    /// Whether every worker has taken the newest table, listeners and orders.
    pub settled: bool,
    /// Workers whose thread has ended, by order or by a bug.
    pub workers_ended: usize,
    /// Targets of the newest table, and those of older ones until they were reported without work: one entry for each
    /// id *and address*. What is asked of an id is the sum over its entries.
    pub targets: Vec<TargetReport>,
    /// Requests and TCP connections waiting for a ready target now, per service; services with none are left out.
    pub held: Vec<HeldReport>,
    /// Client connections open now, those of tunnels included.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Failures to accept one, such as a lack of file descriptors.
    pub accept_errors: u64,
    /// Requests answered 404, and TCP connections closed, because no route takes them.
    pub no_route: u64,
    /// Requests answered 502 by the proxy itself.
    pub bad_gateway: u64,
    /// Requests answered 503 by the proxy itself, and TCP connections closed for the same reasons: no target in time, or
    /// no room to wait.
    pub unavailable: u64,
    /// Requests sent to a second target after the first had died without an answer.
    pub retried: u64,
    /// Connections to targets that failed for want of resources on this side.
    pub local_errors: u64,
    /// Client connections that were reset at once: too many of one address, or without the PROXY header that they should
    /// begin with.
    #[serde(default)]
    pub refused_clients: u64,
    /// Idle client connections that were closed because others needed their place.
    #[serde(default)]
    pub evicted: u64,
    /// Requests that are none, or that can be read in two ways. The connection ends with one.
    #[serde(default)]
    pub malformed: u64,
    /// Requests answered 504 by the proxy itself.
    #[serde(default)]
    pub timed_out: u64,
    /// Second attempts that were not made because there had been too many.
    #[serde(default)]
    pub over_budget: u64,
    /// Requests lost on a connection that had been idle and was closed by the target in that very moment, and that could
    /// not be sent again.
    #[serde(default)]
    pub lost_to_idle_close: u64,
    /// Lines of the access log that were not written: nobody took them in time, or the disk is full. `None` from a proxy
    /// that keeps no such log.
    #[serde(default)]
    pub access_log_dropped: Option<u64>,
    /// The last requests with which two targets died, oldest first; see [`Suspect::number`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<Suspect>,
}

/// A request that died with two targets: it may be what kills them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Counts them, from 1: who has seen one knows which are new.
    pub number: u64,
    /// The service.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path without its query, cut to [`SUSPECT_PATH_MAX`] bytes.
    pub path: String,
    /// The request's id, as in its `X-Request-Id`.
    pub request: String,
    /// The ids of the targets that it died with.
    pub targets: Vec<String>,
}

/// Bytes of a suspect's path that are kept.
pub const SUSPECT_PATH_MAX: usize = 256;
/// Suspects that are kept, at most.
pub(crate) const SUSPECTS_MAX: usize = 32;

/// The counters of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its opaque name.
    pub id: String,
    /// Its address.
    pub addr: SocketAddr,
    /// The label of its release.
    pub release: String,
    /// Whether the newest table routes to it.
    pub routed: bool,
    /// Requests in flight: chosen for it, and the answer not yet wholly sent.
    pub in_flight: u64,
    /// Tunnels open to it: upgraded connections, and TCP connections once it has taken them.
    pub tunnels: u64,
    /// Requests that it answered or broke, and TCP connections that it took.
    pub requests: u64,
    /// Answers with a status of 500 or above.
    pub answers_5xx: u64,
    /// Connections that died, or answers that were no HTTP, with a request on them; and TCP connections that it reset
    /// before it had sent a byte.
    pub broken: u64,
    /// Connections that it did not take: refused, reset before a byte was sent, or not taken in time.
    pub refused: u64,
    /// Requests that it did not answer in the time that its service gives it.
    #[serde(default)]
    pub timed_out: u64,
    /// Requests have been waiting there for a second or more, and none of them was answered: worth a look.
    #[serde(default)]
    pub stalled: bool,
    /// It is left out for what requests have met there.
    #[serde(default)]
    pub left_out: bool,
}

/// The requests waiting for one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The service's name.
    pub service: String,
    /// How many wait now.
    pub requests: u64,
}

/// What one worker counts, apart from targets.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerStats {
    /// The number of the table that the worker runs on.
    pub(crate) table: AtomicU64,
    /// The number of the last state that it has taken over; see [`crate::proxy`].
    pub(crate) settled: AtomicU64,
    pub(crate) ended: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) no_route: AtomicU64,
    pub(crate) bad_gateway: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) local_errors: AtomicU64,
    pub(crate) refused_clients: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) over_budget: AtomicU64,
    pub(crate) lost_to_idle_close: AtomicU64,
}

/// Adds one to a counter that only one worker writes.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// "Something changed": raised by any worker, awaited by the one who embeds the proxy.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    notify: Notify,
}

impl Signal {
    /// Wakes the waiter, or the next one if none waits. Many raises before that are one.
    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Waits until the signal was raised since the last wait. Cancel safe.
    pub(crate) async fn wait(&self) {
        while !self.raised.swap(false, Ordering::SeqCst) {
            self.notify.notified().await;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn raises_before_the_wait_are_one_and_not_lost() {
        let signal = Signal::default();
        signal.raise();
        signal.raise();
        signal.wait().await;
        assert!(!signal.is_raised());
        let again = tokio::time::timeout(std::time::Duration::from_millis(1), signal.wait()).await;
        assert!(again.is_err());
        signal.raise();
        signal.wait().await;
    }
}
