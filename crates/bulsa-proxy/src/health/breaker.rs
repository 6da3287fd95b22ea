//! The rules of one target's passive health, without a clock or a lock.
//!
//! Owns: counting failures, and for how long a target is left out. Never: knows about other targets.

use std::time::Duration;

use tokio::time::Instant;

/// The first time out after a refused connection; it doubles with each further one.
const DEAD_MIN: Duration = Duration::from_millis(100);
/// The longest time out after refused connections.
const DEAD_MAX: Duration = Duration::from_secs(1);
/// How many times `fail_timeout` a suspect is left out at most.
const GROWTH_MAX: u32 = 6;
/// The share of failed requests in a window by which a target is suspect, whatever `max_fails` says, in percent.
const SHARE_PERCENT: u64 = 50;
/// Requests in a window below which a share says nothing.
const SHARE_REQUESTS_MIN: u64 = 20;

/// What is a failure, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Failures within [`Self::fail_timeout`], or in a row, that make a suspect; 0: nothing does.
    pub(crate) max_fails: u32,
    pub(crate) fail_timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_fails: 3, fail_timeout: Duration::from_secs(10) }
    }
}

/// What went wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The target took no connection.
    Refused,
    /// A connection died with a request on it that had been sent at this moment.
    Died { sent: Instant },
    /// What came was no HTTP.
    Garbled,
    /// Nothing came for longer than it may take.
    TimedOut,
}

/// What a target has had so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Requests that it answered or broke.
    pub(crate) requests: u64,
    /// Those that it broke.
    pub(crate) failures: u64,
}

/// One target's state.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    out: Option<Out>,
    /// Times out in a row, and when the last one was counted or taken back.
    outs: u32,
    outs_at: Option<Instant>,
    window: Option<Window>,
    /// Failures since the last success.
    in_a_row: u32,
    /// When the last failure was counted.
    counted_at: Option<Instant>,
}

#[derive(Debug)]
struct Out {
    until: Instant,
    dead: bool,
}

/// The time over which failures are added up.
#[derive(Debug)]
struct Window {
    begun: Instant,
    fails: u32,
    before: Traffic,
}

impl Breaker {
    /// Whether it was refused, and was not taken back since.
    pub(super) fn is_dead(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.dead)
    }

    /// Whether there is nothing that a success would change.
    pub(super) fn is_clean(&self) -> bool {
        self.out.is_none() && self.outs == 0 && self.in_a_row == 0
    }

    /// Takes a failure in. The moment until which the target is out, if it is so by this failure.
    pub(super) fn failed(
        &mut self,
        fault: Fault,
        rules: &Rules,
        traffic: Traffic,
        now: Instant,
    ) -> Option<Instant> {
        if fault == Fault::Refused {
            return self.refused(now);
        }
        let was_under_way = |sent: Instant| self.counted_at.is_some_and(|counted| sent <= counted);
        if matches!(fault, Fault::Died { sent } if was_under_way(sent)) {
            return None;
        }
        self.counted_at = Some(now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if rules.max_fails == 0 {
            return None;
        }
        if let Some(out) = &self.out {
            // It was being tried, or the failure is of a request from before it went out.
            let was_tried = out.until <= now || out.dead;
            return was_tried.then(|| self.suspect(rules, now));
        }
        let window = self.window_at(rules, traffic, now);
        window.fails = window.fails.saturating_add(1);
        let requests = traffic.requests.saturating_sub(window.before.requests);
        let failures = traffic.failures.saturating_sub(window.before.failures);
        let is_share = SHARE_REQUESTS_MIN <= requests && requests * SHARE_PERCENT <= failures * 100;
        let is_count = rules.max_fails <= window.fails || rules.max_fails <= self.in_a_row;
        (is_count || is_share).then(|| self.suspect(rules, now))
    }

    /// Takes a success in, of a request sent at that moment. True if it has taken the target back.
    pub(super) fn succeeded(&mut self, sent: Instant, rules: &Rules, now: Instant) -> bool {
        self.in_a_row = 0;
        // One that refuses connections may still answer on those that it has. Any answer of a suspect proves that it
        // serves; its record stays.
        let is_old = |out: &Out| out.dead && self.outs_at.is_some_and(|at| sent < at);
        if self.out.as_ref().is_some_and(is_old) {
            return false;
        }
        if self.out.take().is_some() {
            self.window = None;
            self.outs_at = Some(now);
            return true;
        }
        if self.outs_at.is_none_or(|at| rules.fail_timeout <= now.saturating_duration_since(at)) {
            self.outs = self.outs.saturating_sub(1);
            self.outs_at = Some(now);
        }
        false
    }

    fn refused(&mut self, now: Instant) -> Option<Instant> {
        if let Some(out) = self.out.as_ref().filter(|out| out.dead && now < out.until) {
            // Several found out at the same time. The lease of a trial ends no later than the time out that follows it.
            if self.outs_at.is_some_and(|at| now.saturating_duration_since(at) < DEAD_MIN) {
                return Some(out.until);
            }
        }
        let time = DEAD_MIN.saturating_mul(1 << self.outs.min(8)).min(DEAD_MAX);
        Some(self.leave_out(true, now + time, now))
    }

    fn suspect(&mut self, rules: &Rules, now: Instant) -> Instant {
        let times = (self.outs + 1).min(GROWTH_MAX);
        self.window = None;
        self.leave_out(false, now + rules.fail_timeout.saturating_mul(times), now)
    }

    fn leave_out(&mut self, dead: bool, until: Instant, now: Instant) -> Instant {
        self.outs = self.outs.saturating_add(1).min(GROWTH_MAX);
        self.outs_at = Some(now);
        self.out = Some(Out { until, dead });
        until
    }

    fn window_at(&mut self, rules: &Rules, traffic: Traffic, now: Instant) -> &mut Window {
        let is_over = |window: &Window| rules.fail_timeout <= now.saturating_duration_since(window.begun);
        if self.window.as_ref().is_some_and(is_over) {
            self.window = None;
        }
        // The failure that opens it is in `traffic` already.
        let before = Traffic {
            requests: traffic.requests.saturating_sub(1),
            failures: traffic.failures.saturating_sub(1),
        };
        self.window.get_or_insert(Window { begun: now, fails: 0, before })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { max_fails: 3, fail_timeout: Duration::from_secs(10) };

    /// Many requests, so that a share says nothing.
    fn busy() -> Traffic {
        Traffic { requests: 1_000_000, failures: 0 }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn three_failures_in_ten_seconds_are_too_many() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for at in [0, 4] {
            assert_eq!(breaker.failed(Fault::TimedOut, &RULES, busy(), now + seconds(at)), None);
            breaker.succeeded(now, &RULES, now + seconds(at));
        }
        let out = breaker.failed(Fault::TimedOut, &RULES, busy(), now + seconds(9));
        assert_eq!(out, Some(now + seconds(19)));
        assert!(!breaker.is_dead());
    }

    #[test]
    fn failures_far_apart_are_not_unless_nothing_succeeds_in_between() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for at in [0, 11, 22, 33] {
            assert_eq!(breaker.failed(Fault::Garbled, &RULES, busy(), now + seconds(at)), None);
            breaker.succeeded(now, &RULES, now + seconds(at));
        }
        let mut breaker = Breaker::default();
        let outs = [0, 11, 22].map(|at| breaker.failed(Fault::Garbled, &RULES, busy(), now + seconds(at)));
        assert_eq!(outs, [None, None, Some(now + seconds(32))]);
    }

    #[test]
    fn one_death_is_one_failure_however_many_requests_it_took_down() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(breaker.failed(Fault::Died { sent: now }, &RULES, busy(), now + seconds(1)), None);
        }
        for _ in 0..100 {
            let died = Fault::Died { sent: now + seconds(2) };
            assert_eq!(breaker.failed(died, &RULES, busy(), now + seconds(3)), None);
        }
        let died = Fault::Died { sent: now + seconds(4) };
        assert!(breaker.failed(died, &RULES, busy(), now + seconds(5)).is_some(), "the third death");
    }

    #[test]
    fn half_of_all_requests_failing_is_too_much_whatever_the_count() {
        let rules = Rules { max_fails: 1000, ..RULES };
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let mut outs = Vec::new();
        for n in 1..=20 {
            let traffic = Traffic { requests: 2 * n, failures: n };
            outs.push(breaker.failed(Fault::TimedOut, &rules, traffic, now).is_some());
        }
        assert_eq!(outs.iter().position(|out| *out), Some(10), "when there were 20 requests or more");
    }

    #[test]
    fn a_refusal_is_enough_and_each_next_time_out_is_longer_up_to_a_second() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..6 {
            let until = breaker.failed(Fault::Refused, &RULES, busy(), now).unwrap();
            times.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(times, [100, 200, 400, 800, 1000, 1000]);
        assert!(breaker.is_dead());
    }

    #[test]
    fn many_who_are_refused_at_the_same_time_are_one_refusal() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let first = breaker.failed(Fault::Refused, &RULES, busy(), now);
        for ms in 0..50 {
            let again = breaker.failed(Fault::Refused, &RULES, busy(), now + Duration::from_millis(ms));
            assert_eq!(again, first);
        }
    }

    #[test]
    fn a_suspect_that_fails_its_trial_is_out_for_longer_and_good_service_makes_up_for_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let fail = |breaker: &mut Breaker, at| breaker.failed(Fault::TimedOut, &RULES, busy(), at);
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        let first = fail(&mut breaker, now).unwrap();
        assert_eq!(first, now + seconds(10));
        let second = fail(&mut breaker, first).unwrap();
        assert_eq!(second, first + seconds(20));
        assert!(breaker.succeeded(second, &RULES, second));
        for at in [5, 10, 20, 30] {
            assert!(!breaker.succeeded(second, &RULES, second + seconds(at)));
        }
        assert!(breaker.is_clean());
        fail(&mut breaker, second + seconds(40));
        fail(&mut breaker, second + seconds(40));
        assert_eq!(fail(&mut breaker, second + seconds(40)), Some(second + seconds(50)));
    }

    #[test]
    fn a_late_failure_of_a_request_from_before_does_not_lengthen_the_time_out() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            breaker.failed(Fault::TimedOut, &RULES, busy(), now);
        }
        assert_eq!(breaker.failed(Fault::TimedOut, &RULES, busy(), now + seconds(1)), None);
    }

    #[test]
    fn who_refuses_connections_is_not_taken_back_by_an_answer_on_an_old_one() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(Fault::Refused, &RULES, busy(), now + seconds(1));
        assert!(!breaker.succeeded(now, &RULES, now + seconds(2)));
        assert!(breaker.is_dead());
        assert!(breaker.succeeded(now + seconds(2), &RULES, now + seconds(2)));
    }

    #[test]
    fn with_max_fails_0_only_a_refusal_counts() {
        let rules = Rules { max_fails: 0, ..RULES };
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let traffic = Traffic { requests: 100, failures: 100 };
        assert!((0..100).all(|_| breaker.failed(Fault::TimedOut, &rules, traffic, now).is_none()));
        assert!(breaker.failed(Fault::Refused, &rules, traffic, now).is_some());
    }

    proptest! {
        #[test]
        fn a_time_out_is_bounded_and_ends(
            steps in prop::collection::vec((0..5_u8, 0..30_000_u64), 1..200),
        ) {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            let mut out_until = None;
            for (step, ms) in steps {
                now += Duration::from_millis(ms);
                let fault = match step {
                    0 => Fault::Refused,
                    1 => Fault::Died { sent: now - Duration::from_millis(ms / 2) },
                    2 => Fault::Garbled,
                    3 => Fault::TimedOut,
                    _ => {
                        let back = breaker.succeeded(now, &RULES, now);
                        prop_assert_eq!(back, out_until.take().is_some());
                        continue;
                    }
                };
                if let Some(until) = breaker.failed(fault, &RULES, busy(), now) {
                    prop_assert!(until <= now + RULES.fail_timeout * GROWTH_MAX);
                    prop_assert!(fault != Fault::Refused || until <= now + DEAD_MAX);
                    out_until = Some(until);
                }
            }
        }
    }
}
