//! Idle connections to one target, on one worker.
//!
//! Owns: the list of idle connections, and the lease on one that is in use.
//! Never: shared between workers; no lock.
//!
//! The one used last is used first, so that the rest grow old and go. Node.js closes an idle connection after 5
//! seconds, so ours live 4; a target that states its own time gets one second less than that. One that closes earlier
//! without a word is seen to do so: for a minute its connections are then kept for half of what it was seen to keep them.
//!
//! A request that must not be sent twice gets an idle connection only if that was used in the last second, and its target
//! was not seen closing any in the last minute; else a fresh one. (HAProxy's `http-reuse safe` follows the same thought.)
//!
//! A connection goes back only when both sides are wholly done: the request's body was sent before the answer began, and the
//! answer was read to its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::local::LocalTarget;
use crate::request_body::Source;
use crate::upstream::Upstream;

/// How long a connection may be idle.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// What is taken off the time that a target states, so that we close first.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// How long a connection may have been idle for a request that must not be sent twice.
const PROVEN_TIME_MAX: Duration = Duration::from_secs(1);
/// How long it is remembered that a target closed an idle connection.
const EARLY_TIME: Duration = Duration::from_secs(60);
/// Idle connections to one target on one worker, at most.
pub(crate) const IDLE_MAX: usize = 256;
/// How long a connection may take after its answer's end to be ready for the next request.
const READY_TIME_MAX: Duration = Duration::from_secs(1);

/// The idle connections to one target.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    early: Cell<Option<Early>>,
}

/// A target was seen closing an idle connection before its time.
#[derive(Debug, Clone, Copy)]
struct Early {
    seen: Instant,
    /// How long connections are kept since.
    keep: Duration,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: Instant,
    until: Instant,
}

/// What a request may be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It may be sent again: any idle connection.
    Any,
    /// It must not be sent twice: one that is surely open.
    Proven,
}

impl Pool {
    /// Takes the connection that was used last, if one is usable.
    pub(crate) fn take(&self, now: Instant, reuse: Reuse) -> Option<Upstream> {
        if reuse == Reuse::Proven && self.early(now).is_some() {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if !self.is_usable(&last, now) {
                continue;
            }
            if reuse == Reuse::Proven && PROVEN_TIME_MAX < now.saturating_duration_since(last.since) {
                // The others are older still.
                idle.push(last);
                return None;
            }
            let mut upstream = last.upstream;
            upstream.idle_since = Some(last.since);
            return Some(upstream);
        }
        None
    }

    /// Keeps a connection for reuse for so long.
    pub(crate) fn put(&self, upstream: Upstream, now: Instant, idle_time: Duration) {
        let idle_time = self.early(now).map_or(idle_time, |early| idle_time.min(early.keep));
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && !idle_time.is_zero() {
            idle.push(Idle { upstream, since: now, until: now + idle_time });
        }
    }

    /// Closes what is too old, and forgets what is closed already.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|one| self.is_usable(one, now));
    }

    /// Notes that a connection was closed by the target after it had been idle for so long.
    pub(crate) fn closed_early(&self, idle: Duration, now: Instant) {
        let keep = idle / 2;
        let keep = self.early(now).map_or(keep, |known| keep.min(known.keep));
        self.early.set(Some(Early { seen: now, keep }));
    }

    fn early(&self, now: Instant) -> Option<Early> {
        self.early.get().filter(|early| now.saturating_duration_since(early.seen) < EARLY_TIME)
    }

    fn is_usable(&self, idle: &Idle, now: Instant) -> bool {
        if idle.upstream.sender.is_ready() {
            return now < idle.until;
        }
        if let Some(closed) = idle.upstream.closed_at().filter(|closed| *closed < idle.until) {
            self.closed_early(closed.saturating_duration_since(idle.since), now);
        }
        false
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// A connection in use; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Lease {
    upstream: Upstream,
    target: Rc<LocalTarget>,
    request: Rc<Source>,
    /// How long it may be idle afterwards. `None`: it is not to be used again.
    idle_time: Option<Duration>,
}

impl Lease {
    /// Made when the answer's head has come. `stated` is the target's own limit.
    pub(crate) fn new(
        upstream: Upstream,
        target: Rc<LocalTarget>,
        request: Rc<Source>,
        stated: Option<Duration>,
    ) -> Self {
        let idle_time = idle_time(stated).filter(|_| request.ended());
        Self { upstream, target, request, idle_time }
    }

    /// Whether the client broke off the request's body.
    pub(crate) fn request_failed(&self) -> bool {
        self.request.failed()
    }

    /// The answer has ended: the connection goes back to the pool, or is closed.
    pub(crate) fn give_back(self) {
        let Some(idle_time) = self.idle_time else { return };
        if self.upstream.sender.is_ready() {
            self.target.put_idle(self.upstream, Instant::now(), idle_time);
        } else if !self.upstream.sender.is_closed() {
            drop(tokio::task::spawn_local(self.give_back_when_ready(idle_time)));
        }
    }

    async fn give_back_when_ready(mut self, idle_time: Duration) {
        if let Ok(Ok(())) = timeout(READY_TIME_MAX, self.upstream.sender.ready()).await {
            self.target.put_idle(self.upstream, Instant::now(), idle_time);
        }
    }
}

fn idle_time(stated: Option<Duration>) -> Option<Duration> {
    match stated {
        None => Some(IDLE_TIME_MAX),
        Some(stated) => {
            stated.checked_sub(IDLE_MARGIN).filter(|t| !t.is_zero()).map(|t| t.min(IDLE_TIME_MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_live_shorter_than_the_target_keeps_them() {
        let seconds = Duration::from_secs;
        assert_eq!(idle_time(None), Some(seconds(4)));
        assert_eq!(idle_time(Some(seconds(5))), Some(seconds(4)));
        assert_eq!(idle_time(Some(seconds(3))), Some(seconds(2)));
        assert_eq!(idle_time(Some(seconds(60))), Some(seconds(4)));
        assert_eq!(idle_time(Some(seconds(1))), None);
        assert_eq!(idle_time(Some(seconds(0))), None);
    }
}
