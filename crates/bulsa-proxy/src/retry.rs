//! What follows when a request went wrong at a target: pure decisions.
//!
//! Owns: the rules for a second attempt, and the budget that bounds them. Never: chooses a target; that is
//! [`crate::balance`].
//!
//! ```text
//! refused, or given back unsent ─▶ choose again, whatever the method
//! sent, not a byte of an answer ─▶ replayable: once more, elsewhere if there is anywhere else
//!                               └─ otherwise, or the second time: 502 (504 if it took too long)
//! part of an answer, or no HTTP ─▶ 502
//! ```
//!
//! *Replayable* is a request whose method is idempotent (RFC 9110, 9.2.2) and whose body, if it has one, is still there.
//!
//! A request that dies with a second target is suspected to have killed both; there is no third.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Lost;

/// How long a request stays away from a target that it was lost on, while there is no other.
pub(crate) const LEAVE_OUT: Duration = Duration::from_secs(1);
/// The same, if its idle connection there was closed: should the target be dying, its socket still takes connections for
/// a moment, and what is sent on one is lost, too.
pub(crate) const STALE_LEAVE_OUT: Duration = Duration::from_millis(50);
/// How often a request may be given back unsent by a connection before it is answered 502.
pub(crate) const UNSENT_MAX: u32 = 8;
/// From a request's first attempt, the time after which no second one begins.
pub(crate) const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
/// Second attempts that a service may have in advance, on each worker.
const BUDGET_MAX: u32 = 1000;
/// A second attempt is earned by so many requests: 20 % of the traffic.
const REQUESTS_FOR_ONE: u32 = 5;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The target did not take the connection.
    Refused,
    /// We could not make a connection for reasons of our own.
    Local,
    /// The connection gave the request back: not a byte of it was sent.
    Unsent,
    /// It was sent and the connection died without a byte of an answer.
    Lost(Lost),
    /// As [`Self::Lost`], at once and on a connection that had been idle: it may have been closed in that moment, or by
    /// a death. The next attempt is on a fresh one, elsewhere, or after [`STALE_LEAVE_OUT`] at the same target.
    Stale(Lost),
    /// It was sent, and nothing came in time.
    TimedOut(Lost),
    /// Something came back that was no answer, or only part of one.
    Garbled,
    /// The client broke off its own body.
    Client,
    /// The client was too slow with its own body.
    SlowClient,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Choose again; not a byte of the request was sent.
    Again,
    /// Send it a second time, if the budget allows; otherwise as [`Self::BadGateway`].
    Resend,
    /// Answer 502.
    BadGateway,
    /// Answer 504.
    TimedOut,
    /// Answer 503.
    Unavailable,
    /// Answer 400, should the client still listen.
    BadBody,
    /// Answer 408.
    SlowBody,
}

/// What has been tried for one request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Attempts {
    begun: Option<Instant>,
    lost: Option<Lost>,
    sent: u32,
    unsent: u32,
}

impl Attempts {
    /// The target that the request died on.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Whether pooled connections have to be left alone because one of them has just turned out to be dead.
    pub(crate) fn wants_fresh_connection(&self) -> bool {
        0 < self.unsent + self.sent
    }

    /// Whether it has died with two targets.
    pub(crate) fn is_suspect(&self) -> bool {
        1 < self.sent
    }

    /// Decides what follows.
    pub(crate) fn failed(&mut self, failure: Failure, replayable: bool, now: Instant) -> Next {
        let begun = *self.begun.get_or_insert(now);
        let is_first = self.sent == 0 && now.saturating_duration_since(begun) <= RETRY_TIME_MAX;
        let may_resend = replayable && is_first;
        match failure {
            Failure::Refused => Next::Again,
            Failure::Local => Next::Unavailable,
            Failure::Client => Next::BadBody,
            Failure::SlowClient => Next::SlowBody,
            Failure::Unsent => {
                self.unsent += 1;
                if self.unsent <= UNSENT_MAX { Next::Again } else { Next::BadGateway }
            }
            Failure::Stale(lost) | Failure::Lost(lost) | Failure::TimedOut(lost) => {
                self.sent += 1;
                self.lost = Some(lost);
                match failure {
                    _ if may_resend => Next::Resend,
                    Failure::TimedOut(_) => Next::TimedOut,
                    _ => Next::BadGateway,
                }
            }
            Failure::Garbled => {
                self.sent += 1;
                Next::BadGateway
            }
        }
    }
}

/// How many second attempts a service may have on one worker: a share of its traffic, so that a service that fails as a
/// whole does not get its load twice.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In parts of a second attempt.
    parts: Cell<u32>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { parts: Cell::new(BUDGET_MAX * REQUESTS_FOR_ONE) }
    }
}

impl Budget {
    /// A request came.
    pub(crate) fn earn(&self) {
        self.parts.set((self.parts.get() + 1).min(BUDGET_MAX * REQUESTS_FOR_ONE));
    }

    /// Takes a second attempt out, if there is one.
    pub(crate) fn spend(&self) -> bool {
        let left = self.parts.get().checked_sub(REQUESTS_FOR_ONE);
        if let Some(left) = left {
            self.parts.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lost(now: Instant) -> Failure {
        Failure::Lost(Lost { key: 1, since: 1, until: now })
    }

    #[test]
    fn a_lost_request_is_replayed_once_and_only_if_it_may_be() {
        let now = Instant::now();
        assert_eq!(Attempts::default().failed(lost(now), false, now), Next::BadGateway);
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(lost(now), true, now), Next::Resend);
        assert!(!attempts.is_suspect());
        assert_eq!(attempts.failed(lost(now), true, now), Next::BadGateway);
        assert!(attempts.is_suspect());
    }

    #[test]
    fn a_request_that_took_too_long_at_both_is_told_so() {
        let now = Instant::now();
        let timed_out = Failure::TimedOut(Lost { key: 1, since: 1, until: now });
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(timed_out, true, now), Next::Resend);
        assert_eq!(attempts.failed(timed_out, true, now), Next::TimedOut);
        assert_eq!(Attempts::default().failed(timed_out, false, now), Next::TimedOut);
    }

    #[test]
    fn after_a_minute_of_attempts_nothing_is_sent_again() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(Failure::Refused, true, now), Next::Again);
        let late = now + RETRY_TIME_MAX + Duration::from_millis(1);
        assert_eq!(attempts.failed(lost(now), true, late), Next::BadGateway);
    }

    #[test]
    fn second_attempts_are_a_fifth_of_the_traffic_once_the_reserve_is_gone() {
        let budget = Budget::default();
        assert_eq!((0..10_000).filter(|_| budget.spend()).count(), BUDGET_MAX as usize);
        for _ in 0..50 {
            budget.earn();
        }
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }

    proptest! {
        #[test]
        fn whatever_fails_a_request_is_sent_at_most_twice(
            failures in prop::collection::vec(0..8_u8, 0..64),
            replayable: bool,
        ) {
            let now = Instant::now();
            let mut attempts = Attempts::default();
            let (mut sent, mut unsent) = (0, 0);
            for failure in failures {
                let failure = match failure {
                    0 => Failure::Refused,
                    1 => Failure::Local,
                    2 => Failure::Unsent,
                    3 => lost(now),
                    4 => Failure::Client,
                    5 => Failure::Stale(Lost { key: 1, since: 1, until: now }),
                    6 => Failure::TimedOut(Lost { key: 1, since: 1, until: now }),
                    _ => Failure::Garbled,
                };
                let is_lost = matches!(failure, Failure::Lost(_) | Failure::Stale(_) | Failure::TimedOut(_));
                sent += u32::from(is_lost || failure == Failure::Garbled);
                unsent += u32::from(failure == Failure::Unsent);
                let next = attempts.failed(failure, replayable, now);
                let expected = match failure {
                    Failure::Refused => Next::Again,
                    Failure::Local => Next::Unavailable,
                    Failure::Client => Next::BadBody,
                    Failure::Unsent if unsent <= UNSENT_MAX => Next::Again,
                    _ if is_lost && replayable && sent == 1 => Next::Resend,
                    Failure::TimedOut(_) => Next::TimedOut,
                    _ => Next::BadGateway,
                };
                prop_assert_eq!(next, expected);
                if !matches!(next, Next::Again | Next::Resend) {
                    break;
                }
            }
            let most = if replayable { 2 } else { 1 };
            prop_assert!(sent <= most);
        }
    }
}
