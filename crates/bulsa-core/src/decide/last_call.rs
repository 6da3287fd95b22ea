//! A daemon that must be gone by a given time: what its replicas still get of it.
//!
//! Owns: how the time is shared between what is under way and the replicas' own ends. Never: makes a file's times
//! longer. The daemon's last minute is 75 s, in which the defaults have room; a container is killed 10 s after
//! `docker stop`, in which they have not.

use std::time::Duration;

use crate::time::Timestamp;

/// Before its end the daemon needs this for itself: the kernel's killing, the last lines of output.
const OWN_TIME: Duration = Duration::from_secs(1);
/// Requests under way get at least this part of the time before SIGTERM, however long the replica's grace is: 1 in 4.
const REQUESTS_PART: u32 = 4;

/// When everything began to end, and by when it must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCall {
    began: Timestamp,
    limit: Duration,
}

impl LastCall {
    /// From `began` on, everything must be gone after `limit`.
    #[must_use]
    pub const fn new(began: Timestamp, limit: Duration) -> Self {
        Self { began, limit }
    }

    /// What is still alive then is killed.
    pub(super) fn kill_at(self) -> Timestamp {
        self.began + self.limit.saturating_sub(OWN_TIME)
    }

    /// Requests are waited for no longer than until then: the replica with this `grace` is told to end.
    pub(super) fn stop_at(self, grace: Duration) -> Timestamp {
        let left = self.limit.saturating_sub(OWN_TIME).saturating_sub(grace);
        self.began + left.max(self.limit / REQUESTS_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn where_there_is_room_a_replica_has_its_whole_grace() {
        let last = LastCall::new(Timestamp(0), secs(75));
        assert_eq!((last.stop_at(secs(10)), last.kill_at()), (Timestamp(64_000), Timestamp(74_000)));
    }

    #[test]
    fn in_a_short_time_requests_get_a_quarter_and_the_replica_most_of_the_rest() {
        let last = LastCall::new(Timestamp(1_000), secs(8));
        assert_eq!((last.stop_at(secs(10)), last.kill_at()), (Timestamp(3_000), Timestamp(8_000)));
    }

    #[test]
    fn no_time_is_no_panic() {
        let last = LastCall::new(Timestamp(5), Duration::ZERO);
        assert_eq!((last.stop_at(secs(10)), last.kill_at()), (Timestamp(5), Timestamp(5)));
    }
}
