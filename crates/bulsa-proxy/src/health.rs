//! Whether a target is taken for good, by what requests have met there: passive health.
//!
//! Owns: the rules by which a target is left out, tried again and taken back ([`Breaker`], pure), and the one state of
//! a target that all workers share ([`Health`]). Never: probes a target, or takes one away for good; that is whoever
//! gives out tables. What is chosen from what is left is in [`crate::balance`].
//!
//! ```text
//! Fine ─ refused ─────────────────────────▶ Out(dead) ─ its time is up ─▶ one request tries ─ answered ─▶ Fine
//!   └─ max_fails in fail_timeout, or in a row, ─▶ Out(suspect) ─ as above ─┘      └─ failed ─▶ Out, for longer
//!      or half of all requests in the window
//! ```
//!
//! - A refused connection proves that nobody listens: the target is out at once, for a short time that doubles.
//! - Anything else is a suspicion. `max_fails` and `fail_timeout` mean what they mean to nginx, but that one death is one
//!   failure: of the requests that were under way when the last failure was counted, none counts again.
//! - Each time out in a row is longer (the second twice `fail_timeout`, up to six times), and each `fail_timeout` of
//!   good service takes one step back.
//! - Suspects are left out only while they are a minority; see [`crate::balance`]. So the last target stays unless it
//!   is dead, and nobody can empty a service by making its requests fail.
//!
//! The path of a request that is answered reads one atomic number. The lock is for failures, and for the first success
//! after one.

mod breaker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::breaker::Breaker;
pub(crate) use self::breaker::{Fault, Rules, Traffic};

/// How long a request that tries a target out has it for itself. After that another may try.
const TRIAL_TIME: Duration = Duration::from_secs(2);
/// In the gate's number: the target has refused a connection.
const DEAD: u64 = 1;

/// What all workers share of one target's health.
#[derive(Debug)]
pub(crate) struct Health {
    /// What the gate counts from.
    epoch: Instant,
    /// 0: fine. Else the moment until which it is left out, in milliseconds since the epoch, times two, and [`DEAD`].
    gate: AtomicU64,
    /// Whether a success would change anything.
    is_watched: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// How a target stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Requests may go to it.
    Fine,
    /// It is left out until then.
    Out {
        /// The moment.
        until: Instant,
        /// It has refused a connection.
        dead: bool,
    },
    /// Its time out is over: one request may try it.
    Trial {
        /// It had refused a connection.
        dead: bool,
    },
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            // Before anything that happens, so that no moment is 0.
            epoch: Instant::now(),
            gate: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
            breaker: Mutex::default(),
        }
    }

    /// How it stands.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match self.gate.load(Ordering::Relaxed) {
            0 => Standing::Fine,
            gate => self.read(gate, now),
        }
    }

    fn read(&self, gate: u64, now: Instant) -> Standing {
        let dead = gate & DEAD != 0;
        let until = self.epoch + Duration::from_millis(gate >> 1);
        if now < until { Standing::Out { until, dead } } else { Standing::Trial { dead } }
    }

    /// Takes the one trial that there is, if its time has come. Who gets true must send a request there, and say how it
    /// went; should it not, the trial is free again after [`TRIAL_TIME`].
    pub(crate) fn take_trial(&self, now: Instant) -> bool {
        let gate = self.gate.load(Ordering::Relaxed);
        if gate == 0 || matches!(self.read(gate, now), Standing::Out { .. }) {
            return false;
        }
        let lease = self.gate_at(now + TRIAL_TIME, gate & DEAD != 0);
        self.gate.compare_exchange(gate, lease, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A request has met a fault. `traffic` counts what the target has had so far. Returns until when it is left out
    /// now, if the fault has put it out.
    pub(crate) fn failed(
        &self,
        fault: Fault,
        rules: &Rules,
        traffic: Traffic,
        now: Instant,
    ) -> Option<Instant> {
        let mut breaker = self.breaker();
        let out = breaker.failed(fault, rules, traffic, now);
        self.is_watched.store(true, Ordering::Relaxed);
        if let Some(until) = out {
            self.gate.store(self.gate_at(until, breaker.is_dead()), Ordering::Relaxed);
        }
        out
    }

    /// A request sent at that moment was answered. Returns true if that has taken the target back.
    pub(crate) fn succeeded(&self, sent: Instant, rules: &Rules, now: Instant) -> bool {
        if !self.is_watched.load(Ordering::Relaxed) {
            return false;
        }
        let mut breaker = self.breaker();
        let is_back = breaker.succeeded(sent, rules, now);
        if is_back {
            self.gate.store(0, Ordering::Relaxed);
        }
        self.is_watched.store(!breaker.is_clean(), Ordering::Relaxed);
        is_back
    }

    /// Forgets everything: the target was routed anew by somebody who knows better.
    pub(crate) fn reset(&self) {
        *self.breaker() = Breaker::default();
        self.gate.store(0, Ordering::Relaxed);
        self.is_watched.store(false, Ordering::Relaxed);
    }

    fn gate_at(&self, until: Instant, dead: bool) -> u64 {
        let ms =
            u64::try_from(until.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX >> 2);
        (ms.max(1) << 1) | if dead { DEAD } else { 0 }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // A breaker is sound after each of its steps.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Traffic = Traffic { requests: 0, failures: 0 };

    #[tokio::test(start_paused = true)]
    async fn a_target_that_refused_is_tried_by_one_request_when_its_time_is_up() {
        let (health, rules) = (Health::new(), Rules::default());
        let now = Instant::now();
        assert_eq!(health.standing(now), Standing::Fine);
        let until = health.failed(Fault::Refused, &rules, NONE, now).unwrap();
        assert_eq!(health.standing(now), Standing::Out { until, dead: true });
        assert!(!health.take_trial(now));
        assert_eq!(health.standing(until), Standing::Trial { dead: true });
        assert!(health.take_trial(until));
        assert!(!health.take_trial(until), "one at a time");
        assert!(matches!(health.standing(until), Standing::Out { dead: true, .. }));
        assert!(health.succeeded(until, &rules, until));
        assert_eq!(health.standing(until), Standing::Fine);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_nobody_reports_on_is_free_again() {
        let (health, rules) = (Health::new(), Rules::default());
        let until = health.failed(Fault::Refused, &rules, NONE, Instant::now()).unwrap();
        assert!(health.take_trial(until));
        assert!(!health.take_trial(until + TRIAL_TIME - Duration::from_millis(1)));
        assert!(health.take_trial(until + TRIAL_TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn routed_anew_it_is_fine() {
        let (health, rules) = (Health::new(), Rules::default());
        let now = Instant::now();
        health.failed(Fault::Refused, &rules, NONE, now);
        health.reset();
        assert_eq!(health.standing(now), Standing::Fine);
        assert!(!health.succeeded(now, &rules, now));
    }
}
