//! When to start the agent or the proxy again.
//!
//! The first few deaths cost no wait at all. Each death adds to a score that halves with time; above the free
//! part the wait doubles with every point. A long life weighs less than one that ended at once.

use std::time::{Duration, Instant};

/// Deaths in quick succession that are answered at once.
const FREE_SCORE: f64 = 5.0;
/// The time in which the score halves.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// A life at least this long was of use; its end weighs less.
const LONG_LIFE: Duration = Duration::from_secs(1);
/// The weight of such an end; that of a shorter life is 1.
const LONG_LIFE_WEIGHT: f64 = 0.25;
/// The first wait above the free score.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Above this the score does not grow: the wait after a storm stays bounded.
const MAX_SCORE: f64 = 14.0;

/// The score of one restarted process.
#[derive(Debug)]
pub(crate) struct Backoff {
    score: f64,
    at: Instant,
}

impl Backoff {
    /// No deaths so far.
    pub(crate) fn new(now: Instant) -> Self {
        Self { score: 0.0, at: now }
    }

    /// Counts a death after `life`, and says how long to wait before the next start.
    pub(crate) fn died(&mut self, life: Duration, now: Instant) -> Duration {
        let idle = now.saturating_duration_since(self.at).as_secs_f64();
        let weight = if life >= LONG_LIFE { LONG_LIFE_WEIGHT } else { 1.0 };
        self.score = (self.score * (-idle / HALF_LIFE.as_secs_f64()).exp2() + weight).min(MAX_SCORE);
        self.at = now;
        if self.score <= FREE_SCORE {
            return Duration::ZERO;
        }
        FIRST_WAIT.mul_f64((self.score - FREE_SCORE).exp2() / 2.0).min(MAX_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deaths_are_answered_at_once() {
        let now = Instant::now();
        let mut backoff = Backoff::new(now);
        for _ in 0..5 {
            assert_eq!(backoff.died(Duration::ZERO, now), Duration::ZERO);
        }
        assert_eq!(backoff.died(Duration::ZERO, now), FIRST_WAIT);
    }

    #[test]
    fn a_crash_loop_waits_longer_and_longer_up_to_the_limit() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        let mut last = Duration::ZERO;
        for _ in 0..60 {
            let wait = backoff.died(Duration::ZERO, now);
            assert!(wait <= MAX_WAIT);
            now += wait;
            last = wait;
        }
        assert!(last > Duration::from_secs(2), "{last:?}");
    }

    #[test]
    fn kills_of_something_that_works_cost_no_wait() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for _ in 0..100 {
            now += Duration::from_secs(2);
            assert_eq!(backoff.died(Duration::from_secs(2), now), Duration::ZERO);
        }
    }

    #[test]
    fn the_score_decays() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for _ in 0..30 {
            backoff.died(Duration::ZERO, now);
        }
        now += Duration::from_secs(120);
        assert_eq!(backoff.died(Duration::from_secs(120), now), Duration::ZERO);
    }
}
