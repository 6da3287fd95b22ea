//! How many messages a URL gets: a bucket of tokens.
//!
//! Owns: [`Bucket`]. Never: drops anything: what finds no token waits, and gathers what else happens.

use std::time::Duration;

use crate::time::Timestamp;

/// So many messages may go out at once after a quiet time.
pub const BURST: u32 = 5;
/// After each of these, one more.
pub const REFILL: Duration = Duration::from_secs(20);

/// Tokens, counted in the milliseconds that they took to gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    level_ms: u64,
    at: Timestamp,
}

const REFILL_MS: u64 = REFILL.as_millis() as u64;
const FULL_MS: u64 = BURST as u64 * REFILL_MS;

impl Bucket {
    /// A full one.
    #[must_use]
    pub const fn full(now: Timestamp) -> Self {
        Self { level_ms: FULL_MS, at: now }
    }

    /// Takes a token, or says when there will be one.
    ///
    /// # Errors
    /// When there is none yet: the time of the next.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let at = self.next(now);
        if at > now {
            return Err(at);
        }
        self.level_ms = self.level(now).saturating_sub(REFILL_MS);
        self.at = self.at.max(now);
        Ok(())
    }

    /// When there is a token.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Timestamp {
        let missing = REFILL_MS.saturating_sub(self.level(now));
        if missing == 0 { now } else { now.max(self.at) + Duration::from_millis(missing) }
    }

    fn level(&self, now: Timestamp) -> u64 {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.level_ms.saturating_add(passed).min(FULL_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    #[test]
    fn a_burst_goes_out_at_once_and_then_one_each_refill() {
        let mut bucket = Bucket::full(Timestamp(0));
        let mut now = Timestamp(0);
        for _ in 0..BURST {
            assert_eq!(bucket.take(now), Ok(()));
        }
        for _ in 0..3 {
            let next = bucket.take(now).unwrap_err();
            assert_eq!(next.since(now), REFILL);
            now = next;
            assert_eq!(bucket.take(now), Ok(()));
        }
    }

    proptest! {
        /// Whenever it is asked, in any stretch of time no more goes out than was full plus what came.
        #[test]
        fn no_stretch_of_time_has_more_than_the_limit(steps in collection::vec(0_u64..60_000, 1..200)) {
            let mut bucket = Bucket::full(Timestamp(0));
            let (mut now, mut taken) = (Timestamp(0), Vec::new());
            for step in steps {
                now = now + Duration::from_millis(step);
                match bucket.take(now) {
                    Ok(()) => taken.push(now.0),
                    Err(at) => {
                        prop_assert!(at > now && at.since(now) <= REFILL);
                        // What it promises holds, and not a moment earlier.
                        let early = Timestamp(at.0 - 1);
                        prop_assert!(early < now || bucket.next(early) > early);
                        prop_assert_eq!(bucket.next(at), at);
                    }
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let most = u64::from(BURST) + (to - from) / REFILL_MS + 1;
                    prop_assert!((j - i + 1) as u64 <= most, "{} in {} ms", j - i + 1, to - from);
                }
            }
        }

        /// A clock that goes back gives nothing away.
        #[test]
        fn a_clock_that_jumps_gives_no_more(times in collection::vec(0_u64..400_000, 1..200)) {
            let mut bucket = Bucket::full(Timestamp(0));
            let mut taken = 0_u64;
            for time in &times {
                taken += u64::from(bucket.take(Timestamp(*time)).is_ok());
            }
            let latest = times.iter().max().copied().unwrap_or(0);
            prop_assert!(taken <= u64::from(BURST) + latest / REFILL_MS + 1);
        }
    }
}
