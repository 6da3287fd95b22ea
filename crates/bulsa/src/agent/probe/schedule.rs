//! When the next run of a loop is due.
//!
//! Owns: the times between runs. Pure: reads no clock. Never: runs anything.

use std::time::Duration;

use bulsa_core::spec::Check;
use tokio::time::Instant;

use super::{ProbePlan, ProbeResult};

/// From the start of one run to the start of the next, at the least, whoever asks.
pub const MIN_GAP: Duration = Duration::from_millis(5);

/// After a failed run the next starts this much after the start of it, or after the interval if that is shorter.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// After this many failed runs in a row the interval counts again: the verdict has fallen, and a program started five
/// times a second is a burden.
pub const QUICK_RETRIES_MAX: u32 = 10;

/// After a run without an answer the next ones wait so many times as long as the slowest answer of late, and not less than
/// [`CONFIRM_MIN`]: they only confirm.
const CONFIRM_FACTOR: u32 = 4;
/// The least that they wait.
const CONFIRM_MIN: Duration = Duration::from_secs(1);
/// With each answer that much of the slowest one is forgotten: a hundred later it counts for a third.
const FORGOTTEN: f64 = 0.01;

/// What a loop remembers of its runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    started: Option<Instant>,
    failures: u32,
    could_not_run: bool,
    passed: bool,
    silent: bool,
    /// The slowest answer of late; `None` before the first.
    slowest: Option<Duration>,
}

impl Schedule {
    /// A run was started (and perhaps abandoned).
    pub(super) fn start(&mut self, at: Instant) {
        self.started = Some(at);
    }

    /// The run ended.
    pub(super) fn end(&mut self, result: &ProbeResult) {
        self.failures =
            if matches!(result, ProbeResult::Fail { .. }) { self.failures.saturating_add(1) } else { 0 };
        self.passed = matches!(result, ProbeResult::Pass { .. });
        self.could_not_run = matches!(result, ProbeResult::CouldNotRun { .. });
        self.silent = matches!(result, ProbeResult::Fail { no_answer: true, .. });
        if let ProbeResult::Pass { took } = result {
            let before = self.slowest.unwrap_or_default().mul_f64(1.0 - FORGOTTEN);
            self.slowest = Some(before.max(*took));
        }
    }

    /// How long the next run may take. A long time limit is for what is slow now and then; once it has passed in vain, a service
    /// that used to answer soon is not given all of it again.
    pub(super) fn timeout(&self, plan: &ProbePlan) -> Duration {
        let confirms = self.silent && !plan.fast && matches!(plan.check, Check::Http { .. });
        match self.slowest.filter(|_| confirms) {
            Some(slowest) => plan.timeout.min((slowest * CONFIRM_FACTOR).max(CONFIRM_MIN)),
            None => plan.timeout,
        }
    }

    /// When the next run is due by itself; `first` if there was none yet.
    pub(super) fn due(&self, plan: &ProbePlan, first: Instant) -> Instant {
        let Some(started) = self.started else { return first };
        let quick = self.failures > 0 && !plan.fast && self.failures <= QUICK_RETRIES_MAX;
        let after = if plan.fast && self.passed {
            // It answers: what is left of the gate is the next pass.
            plan.interval.min(MIN_GAP)
        } else if quick {
            plan.interval.min(RETRY_AFTER)
        } else if self.could_not_run {
            // Whatever is short here is not helped by trying a hundred times a second.
            plan.interval.max(RETRY_AFTER)
        } else {
            plan.interval
        };
        started + after.max(MIN_GAP)
    }

    /// The earliest time at which a run that was asked for may start.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        self.started.map_or(now, |started| now.max(started + MIN_GAP))
    }
}

#[cfg(test)]
mod tests {
    use bulsa_core::spec::Accept;

    use super::*;
    use crate::agent::probe::ProbeTarget;

    #[test]
    fn what_answers_in_its_gate_is_asked_again_at_once_and_what_does_not_at_its_interval() {
        let plan = |fast| ProbePlan {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            target: ProbeTarget::default(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            offset: Duration::ZERO,
            fast,
        };
        let now = Instant::now();
        let after = |result: &ProbeResult, fast| {
            let mut schedule = Schedule::default();
            schedule.start(now);
            schedule.end(result);
            schedule.due(&plan(fast), now) - now
        };
        let pass = ProbeResult::Pass { took: Duration::ZERO };
        assert_eq!(after(&pass, true), MIN_GAP);
        assert_eq!(after(&pass, false), Duration::from_secs(1));
        assert_eq!(after(&ProbeResult::fail("500"), true), Duration::from_secs(1));
    }

    #[test]
    fn what_used_to_answer_soon_is_asked_again_for_a_moment_only() {
        let mut plan = ProbePlan {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            target: ProbeTarget::default(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            offset: Duration::ZERO,
            fast: false,
        };
        let pass = |ms| ProbeResult::Pass { took: Duration::from_millis(ms) };
        let mut schedule = Schedule::default();
        schedule.end(&ProbeResult::no_answer(""));
        assert_eq!(schedule.timeout(&plan), plan.timeout, "nothing is known of it");
        schedule.end(&pass(20));
        assert_eq!(schedule.timeout(&plan), plan.timeout);
        schedule.end(&ProbeResult::no_answer(""));
        assert_eq!(schedule.timeout(&plan), CONFIRM_MIN);
        schedule.end(&pass(800));
        schedule.end(&ProbeResult::no_answer(""));
        assert_eq!(schedule.timeout(&plan), Duration::from_millis(3200), "it may be slow");
        plan.check = Check::Exec(vec!["true".to_owned()]);
        assert_eq!(schedule.timeout(&plan), plan.timeout);
    }
}
