//! Idle connections to one target, on one worker.
//!
//! Owns: the list of idle connections, and for how long they are kept.
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
use std::time::Duration;

use tokio::time::Instant;

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
            if reuse == Reuse::Proven {
                if PROVEN_TIME_MAX < now.saturating_duration_since(last.since) {
                    // The others are older still.
                    idle.push(last);
                    return None;
                }
                if !last.upstream.is_surely_open() {
                    self.closed_early(now.saturating_duration_since(last.since), now);
                    return None;
                }
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
        if idle.until <= now {
            return false;
        }
        let is_open = idle.upstream.is_open();
        if !is_open {
            self.closed_early(now.saturating_duration_since(idle.since), now);
        }
        is_open
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// How long a connection may be idle, if the target states how long it keeps one. `None`: it is not to be used again.
pub(crate) fn idle_time(stated: Option<Duration>) -> Option<Duration> {
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
