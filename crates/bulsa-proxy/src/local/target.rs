//! One target as one worker sees it: its idle connections, how fast it answers, and who waits there.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::balance::Lost;
use crate::pool::{Pool, Reuse};
use crate::target::TargetStats;
use crate::upstream::Upstream;

/// What a target is taken to need before it has answered once, in seconds.
const LATENCY_FIRST: f64 = 0.001;
/// How much the last answer counts in the running mean, if it was faster; a slower one counts in full.
const LATENCY_SHARE: f64 = 0.1;

/// One target as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalTarget {
    pub(crate) stats: Arc<TargetStats>,
    pub(crate) since: u64,
    /// When this worker was first told of it.
    known_since: Instant,
    latency: Cell<f64>,
    is_routed: Cell<bool>,
    is_abandoned: Cell<bool>,
    abandoned: Notify,
    pool: Pool,
}

impl LocalTarget {
    pub(super) fn new(stats: &Arc<TargetStats>, since: u64) -> Rc<Self> {
        Rc::new(Self {
            stats: Arc::clone(stats),
            since,
            known_since: Instant::now(),
            latency: Cell::new(LATENCY_FIRST),
            is_routed: Cell::new(true),
            is_abandoned: Cell::new(false),
            abandoned: Notify::new(),
            pool: Pool::default(),
        })
    }

    /// How long it has been known.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.known_since)
    }

    pub(super) fn latency(&self) -> f64 {
        self.latency.get()
    }

    /// Notes how long an answer's head took.
    pub(crate) fn answered_in(&self, time: Duration) {
        let (known, time) = (self.latency.get(), time.as_secs_f64());
        self.latency.set(if known < time { time } else { known + (time - known) * LATENCY_SHARE });
    }

    pub(super) fn retire(&self) {
        self.is_routed.set(false);
        self.pool.clear();
    }

    pub(super) fn abandon(&self) {
        self.is_abandoned.set(true);
        self.abandoned.notify_waiters();
    }

    /// Waits until nobody is to wait for an answer from here any longer.
    pub(crate) async fn abandoned(&self) {
        while !self.is_abandoned.get() {
            self.abandoned.notified().await;
        }
    }

    /// Closes the idle connections: there is nobody at the other end.
    pub(crate) fn close_idle(&self) {
        self.pool.clear();
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
    }

    /// What bars a request from coming back until then after it has died here.
    pub(crate) fn lost(&self, until: Instant) -> Lost {
        Lost { key: self.stats.key(), since: self.since, until }
    }

    pub(crate) fn take_idle(&self, now: Instant, reuse: Reuse) -> Option<Upstream> {
        self.pool.take(now, reuse)
    }

    /// Notes that an idle connection was closed by the target before its time.
    pub(crate) fn closed_early(&self, idle: Duration, now: Instant) {
        self.pool.closed_early(idle, now);
    }

    /// Keeps a connection for the next request, if there will be one.
    pub(crate) fn put_idle(&self, upstream: Upstream, now: Instant, idle_time: Duration) {
        if self.is_routed.get() {
            self.pool.put(upstream, now, idle_time);
        }
    }
}
