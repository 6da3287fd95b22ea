//! The agent's one clock.
//!
//! Owns: the time that the core is given. Never: goes back, whatever becomes of the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use bulsa_core::time::Timestamp;
use tokio::time::Instant;

/// Time for the core: the wall clock at the agent's start, and monotonic time from there on.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Clock {
    anchor: Timestamp,
    since: Instant,
}

impl Clock {
    pub(in crate::agent) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor: Timestamp(0) + wall, since: Instant::now() }
    }

    /// The time now.
    pub(in crate::agent) fn now(&self) -> Timestamp {
        self.anchor + self.since.elapsed()
    }

    /// The time of an instant of the monotonic clock.
    pub(in crate::agent) fn at(&self, instant: Instant) -> Timestamp {
        self.anchor + instant.saturating_duration_since(self.since)
    }

    /// The instant of the monotonic clock at a time.
    pub(in crate::agent) fn instant(&self, at: Timestamp) -> Instant {
        self.since + at.since(self.anchor)
    }
}
