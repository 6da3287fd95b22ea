//! How many starts of what keeps dying the host is asked to bear.
//!
//! Owns: the budget over all projects, a token bucket. Never: limits the start of what has served and died once: a kill of good
//! workers, however many, is healed at once. What keeps dying has a back-off of its own, by slot; this is for many of them.

use std::time::Duration;

use crate::time::Timestamp;

/// So many starts are let through at once.
pub const BURST: f64 = 5.0;
/// From one to the next after that.
pub const EVERY: Duration = Duration::from_secs(1);
/// The same while the host is short of CPU.
pub const EVERY_SHORT: Duration = Duration::from_secs(5);

/// The budget of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestartBudget {
    tokens: f64,
    at: Timestamp,
}

impl Default for RestartBudget {
    fn default() -> Self {
        Self { tokens: BURST, at: Timestamp::default() }
    }
}

impl RestartBudget {
    /// Asks for one start.
    ///
    /// # Errors
    /// When to ask again, where the budget is used up.
    pub fn take(&mut self, short_of_cpu: bool, now: Timestamp) -> Result<(), Timestamp> {
        let every = if short_of_cpu { EVERY_SHORT } else { EVERY };
        let grown = now.since(self.at).as_secs_f64() / every.as_secs_f64();
        *self = Self { tokens: (self.tokens + grown).min(BURST), at: now.max(self.at) };
        if self.tokens < 1.0 {
            return Err(now + every.mul_f64(1.0 - self.tokens).max(Duration::from_millis(1)));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_start_at_once_and_the_others_one_a_second() {
        let mut budget = RestartBudget::default();
        let now = Timestamp(1_000_000);
        for _ in 0..5 {
            assert_eq!(budget.take(false, now), Ok(()));
        }
        let next = now + EVERY;
        assert_eq!(budget.take(false, now), Err(next));
        assert_eq!(budget.take(false, next), Ok(()));
        assert_eq!(
            budget.take(true, next),
            Err(next + EVERY_SHORT),
            "a host that is short of CPU bears less"
        );
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_one_for_each_second(
            asks in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..200),
        ) {
            let (mut budget, begin) = (RestartBudget::default(), Timestamp(5_000_000));
            let (mut now, mut let_through) = (begin, 0_u32);
            for (gap, short) in asks {
                now = now + Duration::from_millis(gap);
                match budget.take(short, now) {
                    Ok(()) => let_through += 1,
                    Err(at) => {
                        prop_assert!(now < at && at <= now + EVERY_SHORT + Duration::from_millis(1));
                        // Who comes back then, and finds the host as it was, is let through.
                        let mut later = budget;
                        prop_assert!(later.take(short, at + Duration::from_millis(1)).is_ok());
                    }
                }
                let most = BURST + now.since(begin).as_secs_f64() / EVERY.as_secs_f64();
                prop_assert!(f64::from(let_through) <= most + 1e-6);
            }
        }
    }
}
