//! Time as the core sees it: a number that the shell passes in.
//!
//! Owns: the point in time [`Timestamp`]. Never: reads a clock.

use std::{fmt, ops::Add, time::Duration};

/// Milliseconds since the Unix epoch, as the agent's clock gives them.
///
/// The agent anchors it to the wall clock once at its start and then counts monotonic time, so that a clock that
/// jumps moves no deadline while the agent lives, and times that were stored make sense to its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero where `earlier` is later (a clock that was set back).
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
