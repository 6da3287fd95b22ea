//! Idle connections to one target, on one worker.
//!
//! Owns: the list of idle connections, and the lease on one that is in use.
//! Never: shared between workers; no lock.
//!
//! The one used last is used first, so that the rest grow old and go. Node.js closes an idle connection after 5
//! seconds, so ours live 4; a target that states its own time gets one second less than that. A connection
//! goes back only when both sides are wholly done: the request's body was sent before the answer began, and the
//! answer was read to its end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::body::BodyState;
use crate::local::LocalTarget;
use crate::upstream::Upstream;

/// How long a connection may be idle.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// What is taken off the time that a target states, so that we close first.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// Idle connections to one target on one worker, at most.
pub(crate) const IDLE_MAX: usize = 256;
/// How long a connection may take after its answer's end to be ready for the next request.
const READY_TIME_MAX: Duration = Duration::from_secs(1);

/// The idle connections to one target.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    until: Instant,
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        now < self.until && self.upstream.sender.is_ready()
    }
}

impl Pool {
    /// Takes the connection that was used last, if one is usable.
    pub(crate) fn take(&self, now: Instant) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if last.is_usable(now) {
                return Some(last.upstream);
            }
        }
        None
    }

    /// Keeps a connection for reuse until then.
    pub(crate) fn put(&self, upstream: Upstream, until: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { upstream, until });
        }
    }

    /// Closes what is too old, and forgets what is closed already.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|one| one.is_usable(now));
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
    request: Rc<BodyState>,
    /// How long it may be idle afterwards. `None`: it is not to be used again.
    idle_time: Option<Duration>,
}

impl Lease {
    /// Made when the answer's head has come. `stated` is the target's own limit.
    pub(crate) fn new(
        upstream: Upstream,
        target: Rc<LocalTarget>,
        request: Rc<BodyState>,
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
            self.target.put_idle(self.upstream, Instant::now() + idle_time);
        } else if !self.upstream.sender.is_closed() {
            drop(tokio::task::spawn_local(self.give_back_when_ready(idle_time)));
        }
    }

    async fn give_back_when_ready(mut self, idle_time: Duration) {
        if let Ok(Ok(())) = timeout(READY_TIME_MAX, self.upstream.sender.ready()).await {
            self.target.put_idle(self.upstream, Instant::now() + idle_time);
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
